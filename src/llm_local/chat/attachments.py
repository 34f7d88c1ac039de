"""Files that go into a question: read whole, as text, within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llm_local.conversations.exports import read_file
from llm_local.errors import InvalidRequest

__all__ = ["MAX_FILE_BYTES", "read_text_file", "user_path", "with_files"]

MAX_FILE_BYTES: Final = 1 << 20


def read_text_file(text: str, max_bytes: int = MAX_FILE_BYTES) -> str:
    """The text of a regular file, of `max_bytes` at most. `~` is the home directory.

    Raises:
        InvalidRequest: there is none, it is no regular file, too large, or no UTF-8 text.
        StorageError: the disk refuses.
    """
    data = read_file(user_path(text), max_bytes)
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{text} is not UTF-8 text (byte {error.start}).", param="file") from None
    if "\0" in content:
        raise InvalidRequest(f"{text} is not text: it holds a zero byte.", param="file")
    return content


def user_path(text: str) -> Path:
    """The path that somebody typed: `~` is the home directory, and quotes around it are not part of it.

    Raises:
        InvalidRequest: there is no such home directory.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidRequest(f"{text} cannot be found: {error}", param="file") from None


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
