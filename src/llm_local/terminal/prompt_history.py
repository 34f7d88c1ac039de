"""What was typed into a chat, for the arrow keys and the search of prompt-toolkit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.history import History

from llm_local.terminal.history_file import MAX_ENTRY_CHARS, HistoryFile

__all__ = ["MAX_ENTRY_CHARS", "PromptHistory"]


class PromptHistory(History):
    """The entries of the file at `path`, and those of this chat; None keeps nothing on disk.

    `may_be_kept` says no to what makes sense in this chat only. What the disk refuses is told once, to `on_failure`.
    """

    def __init__(
        self, path: Path | None, on_failure: Callable[[str], None], may_be_kept: Callable[[str], bool]
    ) -> None:
        super().__init__()
        self._file = HistoryFile(path, on_failure)
        self._may_be_kept = may_be_kept

    def load_history_strings(self) -> Iterable[str]:
        """The newest first, as far as the last of the file hold them."""
        return reversed(self._file.entries())

    def store_string(self, string: str) -> None:
        """Append an entry."""
        if self._may_be_kept(string):
            self._file.add(string)
