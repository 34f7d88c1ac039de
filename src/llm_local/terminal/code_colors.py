"""Colors for code that is still being written: each line from what stands above it, and never again.

What is printed cannot be recolored. So a line's colors depend on the lines before it and on the line itself alone, and
a block that is streamed looks as one that was printed whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pygments.lexers import get_all_lexers, get_lexer_by_name
from pygments.token import Comment, String, Token
from rich.syntax import Syntax
from rich.text import Text

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from pygments.token import _TokenType

__all__ = ["CODE_STYLE", "CodeColors"]

_THEME: Final = Syntax.get_theme("monokai")
CODE_STYLE: Final = _THEME.get_background_style() + _THEME.get_style_for_token(Token.Text)
"""What has no color of its own: light on dark, whatever the colors of the terminal are."""
_TAB_WIDTH: Final = 4
# Longer lines are not for reading, and cost a lexer much.
_MAX_LINE_CHARS: Final = 2000
_MAX_WINDOW_CHARS: Final = 16_000
# Up to here the whole block is read again for each line; then from the last place where nothing was open.
_GOOD_WINDOW_LINES: Final = 60
_MAX_WINDOW_LINES: Final = 200
# Ends a comment of the C family that has only begun: several lexers do not know it for one before its end.
_ENDING: Final = "\n*/\n"


class CodeColors:
    """Colors the lines of one block, in order. An unknown language is not colored."""

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language)
        self._window: list[str] = []
        self._nothing_open = False

    def add(self, line: str) -> Text:
        """The next line, without its end, in colors."""
        text, last_type = self._color(line)
        self._window.append(line.expandtabs(_TAB_WIDTH))
        self._nothing_open = not line.strip() and last_type not in Comment and last_type not in String
        return text

    def peek(self, line: str) -> Text:
        """A line that may still grow, in colors; it is not remembered."""
        return self._color(line)[0]

    def _color(self, line: str) -> tuple[Text, _TokenType]:
        line = line.expandtabs(_TAB_WIDTH)
        text = Text(line, style=CODE_STYLE, end="")
        last_type: _TokenType = Comment
        if self._lexer is None or len(line) > _MAX_LINE_CHARS:
            return text, last_type
        self._shorten(line)
        before = "".join(f"{one}\n" for one in self._window)
        start, end = len(before), len(before) + len(line)
        for position, token_type, value in self._lexer.get_tokens_unprocessed(before + line + _ENDING):
            if position > end:
                break
            if position + len(value) > start:
                last_type = token_type
                style = _THEME.get_style_for_token(token_type)
                text.stylize(style, max(position - start, 0), min(position + len(value), end) - start)
        return text, last_type

    def _shorten(self, line: str) -> None:
        """Forget what most likely has no effect on the colors of `line`, or is too much."""
        if len(self._window) > _GOOD_WINDOW_LINES and self._nothing_open and line[:1].isalpha():
            self._window = []
        if len(self._window) > _MAX_WINDOW_LINES or sum(map(len, self._window)) > _MAX_WINDOW_CHARS:
            self._window = self._window[len(self._window) // 2 + 1 :]


def _find_lexer(language: str) -> Lexer | None:
    alias = language.strip("{}.").lower()
    # Not asked of the lexers that other packages bring: their code would run because a model named a language.
    known = any(alias in aliases for _, aliases, _, _ in get_all_lexers(plugins=False))
    return get_lexer_by_name(alias, stripnl=False) if known else None
