"""Telling this machine that the server runs and what it has loaded, so that `ps`, `stop` and `doctor` know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from llm_local.service import Loaded, Service
from llm_local.store.servers import Registration

__all__ = ["Presence"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_SLACK_S: Final = 5.0  # an end that is further off than this from what was said is said anew


class Presence:
    """This server on the machine's list, from `__enter__` to `__exit__`. A disk that refuses stops nothing."""

    def __init__(self, host: str, port: int, service: Service) -> None:
        self._service = service
        self._stack = ExitStack()
        self._registration = Registration(host, port)
        self._said: tuple[str | None, int, float | None] | None = None

    def __enter__(self) -> Presence:
        try:
            self._stack.enter_context(self._registration)
        except OSError as error:
            logger.warning("`llm-local ps` will not show this server: %s", error)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def keep(self) -> None:
        """Say for ever what is loaded, when it changes."""
        while True:
            self._say(self._service.loaded())
            await asyncio.sleep(_EVERY_S)

    def _say(self, loaded: Sequence[Loaded]) -> None:
        model = ", ".join(dict.fromkeys(map(_named, loaded))) or None  # one may be loaded in two ways
        ends = [one.expires_in_s for one in loaded]
        stays = not ends or any(end is None for end in ends)
        until = None if stays else time.time() + max(end for end in ends if end is not None)
        memory = sum(one.weight_bytes + one.kv_bytes for one in loaded)
        if self._said is not None and self._said[:2] == (model, memory) and _close(self._said[2], until):
            return
        self._said = (model, memory, until)
        try:
            self._registration.update(model=model, memory_bytes=memory or None, keep_alive_until=until)
        except OSError as error:
            logger.warning("what is loaded could not be said to this machine: %s", error)


def _named(loaded: Loaded) -> str:
    """The name it goes by, and what it really is where another model stands in."""
    return loaded.name if loaded.info.ref == loaded.name else f"{loaded.name} ({loaded.info.ref})"


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < _SLACK_S
