"""Kept replies in a Redis that the user named: the only place but the model hub that this program connects to.

A Redis that is slow, full or gone costs a request a fraction of a second once in a while, and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from llm_local.config import Config
from llm_local.errors import ConfigError
from llm_local.events import Event
from llm_local.runtime.kept_replies import CacheStatistics, from_payload, to_payload

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisResponseCache", "open_redis_cache"]

logger = logging.getLogger(__name__)

SETTING: Final = "RESPONSE_CACHE_URL"
KEPT_S: Final = 24 * 3600
PREFIX: Final = "llm-local:reply:"
MAX_REPLY_BYTES: Final = 4 << 20
# Reading the reply again from the model takes longer than this; waiting longer does not pay.
TIMEOUT_S: Final = 0.5
# After a failure it is left alone for so long.
PAUSE_S: Final = 10.0


class RedisResponseCache:
    """Replies in Redis, each with a day to live, shared by all servers that use the same one."""

    def __init__(self, client: Redis, place: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`place` names it in the log: host and port, without a password."""
        self._client = client
        self._place = place
        self._clock = clock
        self._paused_until = float("-inf")
        self._hits = self._misses = 0

    async def get(self, key: str) -> tuple[Event, ...] | None:
        """The events of a kept reply, or None, also when Redis does not answer in time."""
        payload = await self._ask(lambda: self._client.get(PREFIX + key))
        events = await asyncio.to_thread(from_payload, payload) if isinstance(payload, bytes) else None
        if events is None:
            self._misses += 1
        else:
            self._hits += 1
        return events

    async def put(self, key: str, events: Iterable[Event]) -> None:
        """Keep a whole reply."""
        payload = await asyncio.to_thread(to_payload, tuple(events))
        if payload is not None and len(payload) <= MAX_REPLY_BYTES:
            await self._ask(lambda: self._client.set(PREFIX + key, payload, ex=KEPT_S))

    def statistics(self) -> CacheStatistics:
        """How often it helped this process."""
        return CacheStatistics("redis", self._hits, self._misses)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis answers, or None when it fails or has failed lately."""
        # Late: only who has a Redis has the package.
        from redis.exceptions import RedisError

        if self._clock() < self._paused_until:
            return None
        try:
            return await asyncio.wait_for(ask(), TIMEOUT_S)
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = self._clock() + PAUSE_S
            logger.warning(
                "the response cache at %s does not work (%s); left alone for %d s",
                self._place,
                type(error).__name__,
                PAUSE_S,
            )
            return None


def open_redis_cache(config: Config) -> RedisResponseCache:
    """The Redis of RESPONSE_CACHE_URL. Connects when it is first asked.

    Raises:
        ConfigError: the package is missing, or a `.env` names one on another machine.
    """
    url = config.response_cache_url or ""
    if url.startswith("unix://"):
        return RedisResponseCache(_client(unix_socket_path=url.removeprefix("unix://")), "its socket")
    parts = urlsplit(url)
    host, port = parts.hostname or "", _port(config, parts)
    if not _is_loopback(host) and config.source("response_cache_url") == ".env":
        # A .env may lie in a directory that somebody else made: it must not decide who gets the texts.
        raise ConfigError(
            f"{SETTING} (from {config.origin('response_cache_url')}) names another machine, {host}.",
            "Set it in the environment if the texts of replies may go there.",
            param=SETTING,
        )
    client = _client(
        host=host,
        port=port,
        db=int(parts.path.removeprefix("/") or 0),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        ssl=parts.scheme == "rediss",
    )
    return RedisResponseCache(client, f"{host}:{port}")


def _client(**address: Any) -> Redis:
    try:
        # Late: an optional package.
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise ConfigError(
            f"{SETTING} is set, but the package redis is not installed.",
            "Install it with `pip install redis`, or unset it.",
            param=SETTING,
        ) from error
    return Redis(
        **address,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # the next request tries again
        protocol=2,  # what every Redis and its forks speak
        driver_info=None,  # tells nothing about this machine
        max_connections=64,
    )


def _port(config: Config, parts: SplitResult) -> int:
    try:
        return 6379 if parts.port is None else parts.port
    except ValueError as error:
        raise ConfigError(
            f"{SETTING} (from {config.origin('response_cache_url')}) has a port that does not exist.",
            "Ports are 1 to 65535.",
            param=SETTING,
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may resolve to anything
        return False
