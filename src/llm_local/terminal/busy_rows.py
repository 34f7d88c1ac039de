"""How far a download, a load or the reading of a prompt is, as rows with bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.style import Style
from rich.text import Text

from llm_local.events import Progress
from llm_local.terminal.progress import VERBS
from llm_local.terminal.sanitize import sanitize_line
from llm_local.terminal.sizes import format_bytes

__all__ = ["BusyRows"]

_BAR_WIDTH: Final = 24
_MAX_ROWS: Final = 4
_DONE: Final = Style(color="cyan")
_LEFT: Final = Style(dim=True)
_IN_BYTES: Final = ("downloading", "verifying", "loading")
_UNITS: Final = {"prefill": " tokens", "embedding": " tokens"}


class BusyRows:
    """Collects Progress events; `rows` draws what is not complete. Several files may be on their way at once."""

    def __init__(self) -> None:
        self._going_on: dict[tuple[str, str], Progress] = {}

    def add(self, progress: Progress) -> bool:
        """Take one event; False when nothing is left to be waited for."""
        self._going_on = {
            key: one for key, one in self._going_on.items() if key[0] == progress.stage
        }  # another stage began, so what came before is over
        key = (progress.stage, progress.label)
        if progress.total is not None and progress.done >= progress.total:
            self._going_on.pop(key, None)
        else:
            self._going_on[key] = progress
        return bool(self._going_on)

    def rows(self) -> Sequence[Text]:
        """A row for each of the last few."""
        return [_row(one) for one in list(self._going_on.values())[-_MAX_ROWS:]]


def _row(progress: Progress) -> Text:
    """What, how far, and last its name: that is what a narrow terminal cuts."""
    row = Text(f"{VERBS[progress.stage]}  ")
    label = f"  {sanitize_line(progress.label)}" if progress.label else ""
    if progress.stage == "queued":
        return row.append(f"place {progress.done} of {progress.total or '?'}{label}")
    unit = _UNITS.get(progress.stage, "")
    done, total = (
        format_bytes(count) if progress.stage in _IN_BYTES else f"{count:,}"
        for count in (progress.done, progress.total or 0)
    )
    if not progress.total:
        return row.append(f"{done}{unit}{label}")
    filled = _BAR_WIDTH * progress.done // progress.total
    row.append("━" * filled, _DONE).append("━" * (_BAR_WIDTH - filled), _LEFT)
    return row.append(f"  {100 * progress.done // progress.total}%  {done} of {total}{unit}{label}")
