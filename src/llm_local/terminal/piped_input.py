"""The prompt: from the command line, from a pipe, or from both."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.terminal.progress import format_bytes
from llm_local.terminal.sanitize import replace_surrogates
from llm_local.terminal.streams import Messages

__all__ = [
    "MAX_INPUT_BYTES",
    "compose_prompt",
    "decode_argument",
    "decode_input",
    "read_input",
    "read_prompt",
]

MAX_INPUT_BYTES: Final = 16_000_000
_CHUNK_BYTES: Final = 1 << 20
_PATIENCE_S: Final = 3.0


def read_input(
    descriptor: int, *, on_wait: Callable[[], None], limit_bytes: int | None = None, name: str = "stdin"
) -> bytes:
    """Read `descriptor`, called `name`, to its end, at most `limit_bytes` of it (`MAX_INPUT_BYTES`).

    `on_wait` is called once when nothing has come for a few seconds: a pipe that somebody inherited and never
    closes looks like a hang, and people should know what is being waited for.

    Raises:
        InvalidRequest: there is more to read than allowed, or it cannot be read (a directory).
    """
    limit_bytes = MAX_INPUT_BYTES if limit_bytes is None else limit_bytes
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):  # the size is known, so nothing needs to be read to refuse it
        size = status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
        if size > limit_bytes:
            raise _too_large(name, limit_bytes, f"{size} ({format_bytes(size)})")
    chunks: list[bytes] = []
    room = limit_bytes
    patience_s: float | None = None if os.isatty(descriptor) else _PATIENCE_S
    while True:
        ready, _, _ = select.select([descriptor], [], [], patience_s)
        if not ready:
            on_wait()
            patience_s = None
            continue
        try:
            chunk = os.read(descriptor, _CHUNK_BYTES)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise InvalidRequest(f"Cannot read {name}: {reason}.", param="prompt") from error
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        room -= len(chunk)
        if room < 0:
            raise _too_large(name, limit_bytes, "more")


def read_prompt(
    argument: str | None, messages: Messages, descriptor: int, *, exact: bool = False
) -> tuple[str, str]:
    """The prompt of a command line, and a notice about what was piped in, or "".

    What `descriptor` gives comes first; "-" means that alone. A terminal is read only when it was asked for.

    Raises:
        InvalidRequest: there is no prompt, or too much of it.
    """
    piped = notice = ""
    if argument == "-" or not os.isatty(descriptor):
        data = read_input(
            descriptor,
            on_wait=lambda: messages.note("waiting for stdin to end (if nothing is piped in: </dev/null)"),
        )
        piped, notice = decode_input(data)
    return compose_prompt(None if argument == "-" else argument, piped, exact=exact), notice


def decode_input(data: bytes) -> tuple[str, str]:
    """The text of `data` and a notice about it, or "". Bytes that are not UTF-8 become U+FFFD."""
    text = data.decode("utf-8-sig", "replace")
    nuls = text.count("\0")
    faults = [f"{nuls} NUL character{'s' * (nuls > 1)} (passed on)"] if nuls else []
    if "\ufffd" in text and "\ufffd".encode() not in data:
        faults.append("bytes that are not UTF-8 (replaced by U+FFFD)")
    return text, f"stdin contains {' and '.join(faults)}; is it a binary file?" if faults else ""


def decode_argument(text: str) -> str:
    """A command-line word as UTF-8, whatever the locale; bytes that are not UTF-8 become U+FFFD.

    Python hands on what it could not decode as lone surrogates, which no encoding can carry any further.
    """
    if replace_surrogates(text) == text:
        return text
    try:
        return os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # surrogates that do not stand for bytes
        return replace_surrogates(text)


def compose_prompt(argument: str | None, piped: str, *, exact: bool = False) -> str:
    """The prompt: what was piped, a blank line, the argument; or the one that is there.

    The line end that `echo` and editors put last is not part of what was meant, so one is removed from the
    piped text, unless it is the whole prompt and `exact` asks for every character.

    Raises:
        InvalidRequest: there is nothing to ask.
    """
    if not argument and exact and piped:
        return piped
    piped = piped.removesuffix("\n").removesuffix("\r")
    parts = [part for part in (piped, argument) if part and (part.strip() or exact)]
    if not parts:
        raise InvalidRequest(
            "No prompt given.", 'Pass it as "..." or pipe it in; see --help.', param="prompt"
        )
    return "\n\n".join(parts)


def _too_large(name: str, limit_bytes: int, size: str) -> InvalidRequest:
    allowed = f"{limit_bytes} bytes ({format_bytes(limit_bytes)})"
    return InvalidRequest(
        f"At most {allowed} are read from {name}, but it has {size}.", "Send a part of it.", param="prompt"
    )
