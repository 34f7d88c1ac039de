"""Files that go into a question: read whole, as text, within a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llm_local.conversations.exports import read_file
from llm_local.errors import InvalidRequest
from llm_local.messages import check_text

__all__ = ["MAX_FILE_BYTES", "Attachments", "read_text_file", "user_path"]

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


class Attachments:
    """Texts with names, which go into one question together."""

    def __init__(self) -> None:
        self._files: list[tuple[str, str]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(name for name, _ in self._files)

    def add(self, name: str, content: str) -> None:
        """One more. Raises InvalidRequest where it is no valid Unicode."""
        check_text(content, name)
        self._files.append((name, content))

    def clear(self) -> None:
        """None of them after all."""
        self._files.clear()

    def put_before(self, question: str) -> str:
        """The question behind the files, each with its name, in fences that none of their lines closes."""
        parts = []
        for name, content in self._files:
            fence = "```"
            while fence in content:
                fence += "`"
            ended = content if content.endswith("\n") else f"{content}\n"
            parts.append(f"{name}:\n{fence}\n{ended}{fence}\n")
        return "\n".join([*parts, question])
