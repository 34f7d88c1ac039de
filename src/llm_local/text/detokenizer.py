"""Token ids to text, a token at a time, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

__all__ = ["Detokenizer", "Tokenizer"]

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that detokenizing needs."""

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str:
        """The text of `token_ids`."""


class Detokenizer:
    """Feeds on ids, returns the text that can no longer change.

    A token may hold part of a character, and a tokenizer may decide about spaces by looking at the neighbor.
    So a window of recent ids is decoded as a whole and only its growth is returned, and replacement
    characters at the end are held back until the bytes after them decide.
    """

    def __init__(
        self, tokenizer: Tokenizer, context_ids: Sequence[int] = (), shown: Mapping[int, str] | None = None
    ) -> None:
        """`context_ids` are the last ids before the first one fed: what the text continues.

        `shown` are special tokens that are text here, because they say where a part of the reply begins or ends.
        """
        self._shown = shown or {}
        self._tokenizer = tokenizer
        # ids whose decoded text is the context of the next ones, then the new ones
        self._window = list(context_ids)
        self._num_context = len(self._window)
        self._context_text = self._decode(self._window)
        self._emitted = ""  # what of the window's text beyond the context is already out

    def feed(self, token_id: int) -> str:
        """Add one id; return the text that became final, possibly nothing."""
        if token_id in self._shown:
            return self._show(self._shown[token_id])
        self._window.append(token_id)
        new = self._new_text()
        # An unfinished character shows as replacement characters at the very end. There may be many: a tokenizer
        # that falls back to bytes gives up a whole run of bytes for one that is not finished.
        stable = new.rstrip(REPLACEMENT)
        delta = self._advance(stable)
        if stable == new and new:
            self._slide()
        return delta

    def finish(self) -> str:
        """Return what is still held back; bytes that never became a character are replacement characters."""
        return self._advance(self._new_text())

    def _show(self, text: str) -> str:
        """No character reaches across a special token: what is held back is final, and what follows begins anew."""
        before = self.finish()
        if self._emitted:
            self._slide()
        if self._context_text.endswith(REPLACEMENT):
            self._window, self._num_context, self._context_text = [], 0, self._decode([])
        return before + text

    def _new_text(self) -> str:
        return self._decode(self._window)[len(self._context_text) :]

    def _advance(self, stable: str) -> str:
        if len(stable) <= len(self._emitted):
            return ""
        delta = stable[len(self._emitted) :]
        self._emitted = stable
        return delta

    def _slide(self) -> None:
        """Everything is out: the ids that were new become the context, the older ones are forgotten."""
        del self._window[: self._num_context]
        self._num_context = len(self._window)
        self._context_text = self._decode(self._window)
        self._emitted = ""

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
