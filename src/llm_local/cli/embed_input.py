"""The texts of `llm-local embed`: from arguments, or from standard input in one of three forms."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.terminal.batch_lines import read_fields, split_lines
from llm_local.terminal.piped_input import decode_argument, decode_input, read_input
from llm_local.terminal.streams import STDIN, Messages

__all__ = ["MAX_EMBED_BYTES", "InputText", "Inputs", "read_inputs"]

MAX_EMBED_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class InputText:
    """One text. `line` is its line of the input, from 1, where lines hold texts; `id` what the input calls it."""

    text: str
    name: str
    line: int | None = None
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """All texts in order, the lines that were left out because they are empty, and what to tell about the input."""

    texts: tuple[InputText, ...]
    skipped: tuple[int, ...] = ()
    notice: str = ""


def read_inputs(args: argparse.Namespace, messages: Messages) -> Inputs:
    """The texts that `args` (of the verb) name.

    Raises:
        InvalidRequest: there is none, one is empty without --skip-empty, or the input is not what it should be.
    """
    words = args.text
    piped = words in ([], ["-"])
    if not piped and "-" in words:
        raise InvalidRequest(
            "Texts are given and - asks for standard input.", "Give one of the two.", param="text"
        )
    if not piped:
        if args.null or args.json_lines:
            flag = "--null" if args.null else "--json-lines"
            raise InvalidRequest(f"{flag} is for standard input, but texts are given.", param=flag)
        texts = [InputText(decode_argument(word), f"Text {n}") for n, word in enumerate(words, 1)]
        return _without_empty(texts, skip=args.skip_empty, notice="")
    if not words and os.isatty(STDIN):
        raise InvalidRequest("No text given.", 'Pass it as "..." or pipe lines in; see --help.', param="text")
    data = read_input(
        STDIN,
        on_wait=lambda: messages.note("waiting for stdin to end (if nothing is piped in: </dev/null)"),
        limit_bytes=MAX_EMBED_BYTES,
    )
    read: Callable[[bytes], tuple[Iterable[InputText], str]] = _read_lines
    if args.json_lines:
        read = _read_json_lines
    elif args.null:
        read = _read_records
    found, notice = read(data)
    texts = list(found)
    if not texts:
        raise InvalidRequest(
            "Standard input is empty, so there is no text to embed.", "See --help.", param="text"
        )
    return _without_empty(texts, skip=args.skip_empty, notice=notice)


def _without_empty(texts: list[InputText], *, skip: bool, notice: str) -> Inputs:
    empty = [one for one in texts if not one.text.strip()]
    if empty and not skip:
        more = f" So are {len(empty) - 1} more." if len(empty) > 1 else ""
        raise InvalidRequest(
            f"{empty[0].name} is empty, and an empty text has no embedding.{more}",
            "--skip-empty leaves such texts out.",
            param="text",
        )
    kept = tuple(one for one in texts if one.text.strip())
    if not kept:
        raise InvalidRequest("Every text is empty, so there is nothing to embed.", param="text")
    return Inputs(
        kept, tuple(one.line or n for n, one in enumerate(texts, 1) if not one.text.strip()), notice
    )


def _read_lines(data: bytes) -> tuple[Iterable[InputText], str]:
    text, notice = decode_input(data)
    # Not splitlines, which takes other characters for line ends; the last end begins no further line.
    lines = text.removesuffix("\n").split("\n") if text else []
    return (InputText(line.removesuffix("\r"), f"Line {n}", n) for n, line in enumerate(lines, 1)), notice


def _read_records(data: bytes) -> tuple[Iterable[InputText], str]:
    records = data.removesuffix(b"\0").split(b"\0") if data else []
    found = [decode_input(record) for record in records]
    notice = next((notice for _, notice in found if notice), "")
    return (InputText(text, f"Text {n}") for n, (text, _) in enumerate(found, 1)), notice


def _read_json_lines(data: bytes) -> tuple[Iterable[InputText], str]:
    return (_read_json_line(line.number, line.data) for line in split_lines(data)), ""


def _read_json_line(number: int, data: bytes) -> InputText:
    hint = 'Write {"text": "..."}, with an "id" if you like.'
    try:
        fields = read_fields(data)
    except InvalidRequest as error:
        raise InvalidRequest(f"Line {number}: {error.message}", hint, param="text") from None
    unknown = next((name for name in fields if name not in ("id", "text")), None)
    if unknown is not None:
        raise InvalidRequest(
            f"Line {number} has the field {unknown!r}, which is not known.", hint, param="text"
        )
    text, name = fields.get("text"), fields.get("id")
    if not isinstance(text, str):
        raise InvalidRequest(f"Line {number} has no text.", hint, param="text")
    if name is not None and not _is_name(name):
        raise InvalidRequest(
            f"Line {number} has an id that is neither text nor an integer.", hint, param="text"
        )
    return InputText(text, f"Line {number}", number, name)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
