"""Fixed strings found in text that comes in pieces, wherever the pieces happen to cut them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MarkerFinder"]


class MarkerFinder:
    """Lets text through up to the next marker, holding back what may be the beginning of one.

    The next is the one that is complete first, of two that the same character completes the longer one: so it does
    not matter how the text comes in pieces.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = tuple(markers)
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None, str]:
        """Add text; return what comes before a marker for certain, the marker if there is one, and what follows it.

        What follows was not looked at: feed it again to go on.
        """
        text = self._held + text
        found = [
            (text.find(marker) + len(marker), -len(marker), marker)
            for marker in self._markers
            if marker in text
        ]
        if found:
            end, _, marker = min(found)
            self._held = ""
            return text[: end - len(marker)], marker, text[end:]
        keep = max((_overlap(text, marker) for marker in self._markers), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None, ""

    def finish(self) -> str:
        """Return what was held back: the text is over, so it was no marker."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that begins `marker`."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
