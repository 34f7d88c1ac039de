"""The error tree: one root, stable kinds, and a drawing that tells the truth."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from llm_local import errors
from llm_local.errors import (
    ConfigError,
    ContextLengthExceeded,
    InsufficientMemory,
    InvalidRequest,
    LocalLLMError,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)\s{2,}(?P<kind>[a-z_]+)")


def drawn_tree() -> dict[str, tuple[str | None, str]]:
    """Name to (parent, kind), read from the drawing in the docstring of the module."""
    drawing = re.search(r"LocalLLMError.*?\n(.*?)\n\n", errors.__doc__ or "", re.DOTALL)
    assert drawing is not None
    tree: dict[str, tuple[str | None, str]] = {}
    path = ["LocalLLMError"]
    for line in drawing[1].splitlines():
        match = DRAWN.match(line.removeprefix("    "))
        assert match is not None, f"a line of the drawing cannot be read: {line!r}"
        depth = len(match["branch"]) // 4
        path = [*path[:depth], match["name"]]
        tree[match["name"]] = (path[depth - 1], match["kind"])
    return tree


def test_the_drawn_tree_is_the_real_tree() -> None:
    real = {cls.__name__: (cls.__base__.__name__, cls.kind) for cls in CLASSES if cls is not LocalLLMError}
    assert drawn_tree() == real


def test_all_exports_every_class_and_nothing_else() -> None:
    assert sorted(errors.__all__) == sorted(cls.__name__ for cls in CLASSES)


def test_kinds_are_unique_snake_case() -> None:
    kinds = [cls.kind for cls in CLASSES]
    assert len(set(kinds)) == len(kinds)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) for kind in kinds)


@pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if cls not in (ContextLengthExceeded, InsufficientMemory)]
)
def test_text_is_message_then_hint(cls: type[LocalLLMError]) -> None:
    error = cls("It broke.", "Mend it.")
    assert (error.message, error.hint, str(error)) == ("It broke.", "Mend it.", "It broke. Mend it.")
    assert str(cls("It broke.")) == "It broke."


def test_one_error_may_have_a_finer_kind_than_its_class() -> None:
    assert InvalidRequest("x", kind="missing_field").kind == "missing_field"
    assert InvalidRequest("x").kind == InvalidRequest.kind == "invalid_value"


def test_context_length_exceeded_says_all_three_numbers() -> None:
    error = ContextLengthExceeded(prompt_tokens=2100, reserve=512, context_length=2048)
    assert all(number in error.message for number in ("2100", "512", "2048"))
    assert (error.prompt_tokens, error.reserve, error.context_length, error.param) == (
        2100,
        512,
        2048,
        "prompt",
    )
    assert error.hint


def test_details_survive() -> None:
    assert ConfigError("x", param="TOP_P").param == "TOP_P"
    error = InsufficientMemory("x", need_bytes=10, have_bytes=3)
    assert (error.need_bytes, error.have_bytes) == (10, 3)


def test_every_error_is_caught_by_the_root() -> None:
    assert all(issubclass(cls, LocalLLMError) for cls in CLASSES)
    assert not issubclass(LocalLLMError, (ValueError, OSError))


def test_plain_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("Wrong.", "Right it.", param="SEED")))
    assert (error.message, error.hint, error.param) == ("Wrong.", "Right it.", "SEED")
