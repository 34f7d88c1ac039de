"""Sizes and large numbers as people read them."""

from __future__ import annotations

__all__ = ["format_bytes", "format_count"]


def format_bytes(count: int) -> str:
    """`count` in decimal units with three digits: 999 B, 1.50 kB, 12.3 MB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    if units[0] == "B":
        return f"{count} B"
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {units[0]}"


def format_count(count: int) -> str:
    """A count with three digits: 999, 12k, 494M, 1.54B."""
    size, units = float(count), ["", "k", "M", "B"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g}{units[0]}" if size < 999.5 else f"{size:.0f}{units[0]}"
