"""Ollama's options: each is honored, refused by name, or told as ignored."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.ollama.options import ReadOptions, read_options
from llm_local.api.ollama.schemas import OllamaOptions
from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS


def read(capped: bool = True, **options: Any) -> ReadOptions:
    return read_options(OllamaOptions(**options), capped=capped)


def test_names_become_ours() -> None:
    found = read(
        seed=3, num_predict=9, temperature=0.5, top_k=20, top_p=0.8, min_p=0.1, typical_p=0.7,
        repeat_penalty=1.1, presence_penalty=0.5, frequency_penalty=-0.5, stop=["a", "b"],
    )  # fmt: skip
    assert dict(found.changes) == {
        "seed": 3, "max_new_tokens": 9, "temperature": 0.5, "top_k": 20, "top_p": 0.8, "min_p": 0.1,
        "typical_p": 0.7, "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5,
        "stop": ("a", "b"),
    }  # fmt: skip
    assert found.ignored == ()


def test_nulls_say_nothing_and_whole_floats_are_integers() -> None:
    assert read(temperature=None, seed=None, stop=None, num_predict=None).changes == {}
    found = read(top_k=8.0, num_predict=4.0, temperature=1).changes
    assert found == {"top_k": 8, "max_new_tokens": 4, "temperature": 1.0}
    assert all(type(found[name]) is int for name in ("top_k", "max_new_tokens"))
    assert read_options(None, capped=True).changes == {}


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"seed": -1}, {}),
        ({"seed": 0}, {"seed": 0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_p": 0}, {"top_p": 1e-9}),
        ({"stop": "end"}, {"stop": ("end",)}),
        ({"num_predict": -1}, {"max_new_tokens": None}),
        ({"num_predict": -2}, {"max_new_tokens": None}),
        ({"num_predict": 0}, {"max_new_tokens": None}),
        ({"num_predict": 10**12}, {"max_new_tokens": BOUNDS["max_new_tokens"].high}),
        ({"repeat_last_n": -1, "repeat_penalty": 1.3}, {"repetition_penalty": 1.3}),
        (
            {"repeat_last_n": 0, "repeat_penalty": 1.3},
            {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
        ),
    ],
)
def test_values_that_mean_something_special(options: dict[str, Any], changes: dict[str, Any]) -> None:
    assert read(**options).changes == changes


def test_without_a_cap_anywhere_the_room_is_the_cap() -> None:
    assert read(capped=False).changes == {"max_new_tokens": None}
    assert read(capped=True).changes == {}


def test_what_has_no_effect_is_told() -> None:
    found = read(num_ctx=4096, num_keep=4, num_gpu=99, num_thread=8, use_mmap=True, repeat_last_n=64)
    assert set(found.ignored) == {
        f"options.{name}"
        for name in ("num_ctx", "num_keep", "num_gpu", "num_thread", "use_mmap", "repeat_last_n")
    }
    assert found.changes == {} and found.num_ctx == 4096


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", True, 'option "temperature" must be of type float32'),
        ("top_k", 1.5, 'option "top_k" must be of type integer'),
        ("num_ctx", "4k", 'option "num_ctx" must be of type integer'),
        ("stop", [1], 'option "stop" must be of type array'),
        ("stop", {}, 'option "stop" must be of type array'),
        ("temperature", 11, "options.temperature is 11"),
        ("temperature", -1, "options.temperature is -1"),
        ("top_p", 1.5, "options.top_p is 1.5"),
        ("repeat_penalty", 0, "options.repeat_penalty is 0"),
        ("seed", 2**70, "options.seed is"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**{name: value})
    assert words in str(caught.value) and caught.value.param == f"options.{name}"


@pytest.mark.parametrize("penalty", ["repeat_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_over_a_part_are_refused(penalty: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(repeat_last_n=64, **{penalty: 1.2})
    assert caught.value.param == "options.repeat_last_n"
