"""Whether the service's own model would answer now, said of where it is."""

from __future__ import annotations

from llm_local.runtime.answers import Readiness
from llm_local.runtime.leases import Loading, Resident

__all__ = ["readiness_of"]


def readiness_of(
    name: str, resident: Resident | None, loading: Loading | None, *, was_loaded: bool
) -> Readiness:
    """One that went because nobody used it comes back with the next request, so it is as ready as one in memory.

    `was_loaded`: it could be loaded when that was last tried.
    """
    if resident is not None and resident.memory.alive:
        return Readiness(True)
    if loading is None:
        return (
            Readiness(True)
            if was_loaded and resident is None
            else Readiness(False, f"{name} is not in memory.")
        )
    progress = loading.progress
    share = f", {progress.done / progress.total:.0%}" if progress.total else ""
    return Readiness(False, f"{name} is being made ready ({progress.stage}{share}).")
