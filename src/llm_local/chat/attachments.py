"""Files that go into a question: read whole, as text, within a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llm_local.errors import InvalidRequest

__all__ = ["MAX_FILE_BYTES", "read_text_file", "with_files"]

MAX_FILE_BYTES: Final = 1 << 20


def read_text_file(text: str, max_bytes: int = MAX_FILE_BYTES) -> str:
    """The text of a regular file, of `max_bytes` at most. `~` is the home directory.

    Raises:
        InvalidRequest: there is none, it is no regular file, too large, or no UTF-8 text.
    """
    path = Path(text).expanduser()
    try:
        # a pipe or a device would be waited for; this open waits for nothing
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidRequest(f"{text} is not a file.", param="file")
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{text} cannot be read: {reason}.", param="file") from None
    if len(data) > max_bytes:
        raise InvalidRequest(
            f"{text} has more than {max_bytes} bytes, which is not allowed.",
            "Take a part of it.",
            param="file",
        )
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{text} is not UTF-8 text (byte {error.start}).", param="file") from None
    if "\0" in content:
        raise InvalidRequest(f"{text} is not text: it holds a zero byte.", param="file")
    return content


def with_files(question: str, files: Sequence[tuple[str, str]]) -> str:
    """A question behind the files that it is about, each with its name, in fences that none of their lines closes."""
    parts = []
    for name, content in files:
        fence = "```"
        while fence in content:
            fence += "`"
        ended = content if content.endswith("\n") else f"{content}\n"
        parts.append(f"{name}:\n{fence}\n{ended}{fence}\n")
    return "\n".join([*parts, question])
