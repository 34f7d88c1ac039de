"""The line below the prompt: who answers, on what, how much context is used and left, how fast the last answer came."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from llm_local.terminal.chat_view import ChatStatus
from llm_local.terminal.sanitize import sanitize_line

__all__ = ["toolbar_line"]

_GAP = " · "


def toolbar_line(status: ChatStatus | None, hint: str, columns: int) -> str:
    """As much of it as fits; what is left out first stands last."""
    parts = [] if status is None else _parts(status)
    line = " " + _GAP.join(parts)
    if cell_len(line) + cell_len(hint) + len(_GAP) <= columns:
        return f"{line}{_GAP if parts else ''}{hint}"
    while parts and cell_len(line) > columns:
        parts.pop()
        line = " " + _GAP.join(parts)
    if not parts and status is not None:
        return set_cell_size(f" {sanitize_line(status.info.ref)}", max(columns, 0))
    return line


def _parts(status: ChatStatus) -> list[str]:
    info, used = status.info, status.context_used
    parts = [sanitize_line(info.ref), sanitize_line(info.device)]
    if used is None:
        parts.append(f"context {info.context_length:,}")
    else:
        left = max(info.context_length - used, 0)
        parts.append(f"context {used:,} used, {left:,} left")
    if status.tokens_per_s is not None:
        parts.append(f"{status.tokens_per_s:.1f} tok/s")
    if not status.is_stored:
        parts.append("not stored")
    return parts
