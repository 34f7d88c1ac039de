"""Stop strings: found wherever tokens happen to split them, and never shown."""

from __future__ import annotations

from collections.abc import Sequence

from llm_local.text.markers import MarkerFinder

__all__ = ["StopMatcher"]


class StopMatcher:
    """Passes text through until the first stop string, holding back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._finder = MarkerFinder(stops)
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Add text; return what is certainly not part of a stop string. After a match, nothing more comes."""
        if self.matched is not None:
            return ""
        before, self.matched, _ = self._finder.feed(text)
        return before

    def finish(self) -> str:
        """Return what was held back: the reply is over, so it was no stop string."""
        return self._finder.finish()
