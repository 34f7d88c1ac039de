"""Make foreign text harmless on a terminal.

A model, a hub or a document can put escape sequences into its text: they recolor the screen, write the
clipboard (OSC 52), hide links (OSC 8), or reorder what is read (bidirectional overrides). Every control
character is therefore *shown*, as `\\x1b` or `\\u202e`, and never sent. What is left of a sequence is plain
text, so no parser of sequences is needed and no split between two chunks can smuggle one through.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["TerminalFilter", "replace_surrogates", "sanitize_line", "show_controls"]

# C0 except tab and newline, DEL, C1, and the explicit bidirectional embeddings, overrides and isolates.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_BREAKS: Final = re.compile("[ \t\r\n\v\f\x85\u2028\u2029]+")
MAX_LINE_CHARS: Final = 2000


def replace_surrogates(text: str) -> str:
    """`text` with every lone surrogate, which no encoding can carry, replaced by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def sanitize_line(text: str) -> str:
    """`text` as one line of at most `MAX_LINE_CHARS` characters: white space folded, controls shown."""
    line = show_controls(_BREAKS.sub(" ", text).strip())
    return line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…"


class TerminalFilter:
    """Filters one stream of text for a terminal, whatever way it is cut into chunks.

    Newline and tab pass. A carriage return before a newline is dropped; any other one would overwrite the
    line, so it is shown. One filter serves one stream: it remembers a trailing carriage return.
    """

    def __init__(self) -> None:
        self._pending_return = False

    def feed(self, text: str) -> str:
        """The harmless form of the next chunk; a trailing carriage return waits for what follows it."""
        if not text:
            return ""
        if self._pending_return:
            text = "\r" + text
        self._pending_return = text.endswith("\r")
        if self._pending_return:
            text = text[:-1]
        return show_controls(text.replace("\r\n", "\n"))

    def finish(self) -> str:
        """What was still waiting at the end of the stream."""
        pending, self._pending_return = self._pending_return, False
        return show_controls("\r") if pending else ""


def show_controls(text: str) -> str:
    """A whole text with its controls shown; newlines and tabs stay, a carriage return is a control."""
    return _CONTROLS.sub(_escape, replace_surrogates(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
