"""Flags that say what the answer must be: read where they stand, so that a mistake needs no model to be found."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.options import MAX_CONSTRAINT_BYTES, Constraint, ConstraintKind

__all__ = ["add_constraint_flags", "check_given_constraint", "given_constraint"]

_GRAMMAR_KINDS: Final[dict[str, ConstraintKind]] = {".gbnf": "gbnf", ".lark": "lark"}
_FLAGS: Final[dict[ConstraintKind, str]] = {
    "json": "--json-mode",
    "json_schema": "--json-schema",
    "regex": "--regex",
    "choice": "--choice",
    **dict.fromkeys(("grammar", "gbnf", "lark"), "--grammar"),
}


def add_constraint_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags that constrain the answer, of which one may be given."""
    flags = group.add_mutually_exclusive_group()
    flags.add_argument(
        "--json-mode",
        dest="constraint",
        action="store_const",
        const=Constraint("json"),
        help="Make the answer a JSON object.",
    )
    for flag, metavar, read, text in (
        ("--json-schema", "SCHEMA", _read_schema, "JSON that satisfies SCHEMA, a file or a JSON object"),
        ("--regex", "REGEX", lambda text: Constraint("regex", text), "a text that REGEX matches as a whole"),
        (
            "--grammar",
            "GRAMMAR",
            _read_grammar,
            "a text of GRAMMAR, a file or itself, in GBNF or Lark syntax",
        ),
    ):
        reader = _reader(flag, read)
        flags.add_argument(
            flag, dest="constraint", type=reader, metavar=metavar, help=f"Make the answer {text}."
        )
    flags.add_argument(
        "--choice",
        action="append",
        metavar="TEXT",
        help="Make the answer exactly this text, or one of several when given several times.",
    )


def given_constraint(parsed: argparse.Namespace) -> Constraint | None:
    """The constraint the flags say, if any.

    Raises:
        InvalidRequest: an empty choice.
    """
    if parsed.choice is not None:
        return _reader("--choice", lambda texts: Constraint("choice", texts))(parsed.choice)
    constraint: Constraint | None = parsed.constraint
    return constraint


def check_given_constraint(constraint: Constraint) -> None:
    """Refuse what no model could keep, before one is loaded.

    Raises:
        InvalidRequest: the constraint cannot be enforced; the message names its flag.
    """
    # Late: it loads libraries that only constrained runs need.
    from llm_local.constraints.compiler import check_constraint

    def checked(given: Constraint) -> Constraint:
        check_constraint(given)
        return given

    _reader(_FLAGS[constraint.kind], checked)(constraint)


def _reader(flag: str, read: Callable[[Any], Constraint]) -> Callable[[Any], Constraint]:
    def named(value: Any) -> Constraint:
        try:
            return read(value)
        except InvalidRequest as error:
            raise InvalidRequest(f"{flag}: {error.message}", error.hint, param=flag) from None

    return named


def _read_schema(text: str) -> Constraint:
    return Constraint("json_schema", text if text.lstrip().startswith("{") else _read_file(text))


def _read_grammar(text: str) -> Constraint:
    # every grammar has a rule, and every rule a colon or a line of its own
    if "::=" in text or "\n" in text or (":" in text and not Path(text).is_file()):
        return Constraint("grammar", text)
    return Constraint(_GRAMMAR_KINDS.get(Path(text).suffix.lower(), "grammar"), _read_file(text))


def _read_file(name: str) -> str:
    try:
        with open(name, "rb") as file:
            data = file.read(MAX_CONSTRAINT_BYTES + 1)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The file {name!r} is not UTF-8 at byte {error.start + 1}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidRequest(f"The file {name!r} cannot be read: {reason}.") from None
