"""The model's reasoning on standard error: marked where it begins and ends, or hidden behind a count."""

from __future__ import annotations

from llm_local.events import Delta
from llm_local.terminal.streams import Messages

__all__ = ["ThinkingView"]


class ThinkingView:
    """Standard output has the answer alone; this shows people what comes before it, or at least that something does."""

    def __init__(self, messages: Messages, *, shown: bool) -> None:
        self._messages = messages
        self._shown = shown
        self._open = False
        self._num_tokens = 0
        self._ends_in_newline = True

    def show(self, delta: Delta) -> None:
        """The next event of the reply, of either channel."""
        if delta.channel != "reasoning":
            self.close()
            return
        self._num_tokens += len(delta.token_ids)
        if not self._shown:
            self._messages.status(f"thinking: {self._num_tokens} tokens")
        else:
            if not self._open:
                self._messages.note("--- thinking ---")
            self._messages.piece(delta.text)
            self._ends_in_newline = delta.text.endswith("\n")
        self._open = True

    def close(self) -> None:
        """The reasoning is over. Harmless when there is none."""
        if not self._open:
            return
        self._open = False
        if not self._shown:
            self._messages.status("")
            return
        if not self._ends_in_newline:
            self._messages.piece("\n")
        self._messages.note("--- end of thinking ---")
