"""Kept replies in Redis: the same as in memory, and harmless when it is slow, wrong, full or gone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fake_redis import FakeRedis, fake_redis
from fakes import FakeClock
from llm_local.config import Config, load_config
from llm_local.errors import ConfigError
from llm_local.events import Delta, Finish, Timings, Usage
from llm_local.runtime import redis_cache
from llm_local.runtime.redis_cache import KEPT_S, PREFIX, RedisResponseCache, open_redis_cache
from llm_local.runtime.response_cache import open_response_cache

REPLY = (Delta("content", "naïve ✓", (1, 2)), Finish("length", Usage(5, 0, 2), Timings(decode_s=1.0)))
TOLD_AGAIN = (REPLY[0], Finish("length", Usage(5, 5, 2, replayed_tokens=2), Timings()))


def cache_of(redis: FakeRedis, account: str = "", database: str = "") -> RedisResponseCache:
    cache = open_response_cache(
        Config(response_cache_url=f"redis://{account}127.0.0.1:{redis.port}{database}")
    )
    assert isinstance(cache, RedisResponseCache)
    return cache


def test_a_reply_goes_there_with_a_day_to_live_and_comes_back() -> None:
    async def ask() -> None:
        async with fake_redis() as redis:
            cache = cache_of(redis, "me:s%3Acret@", "/3")
            assert await cache.get("k") is None
            await cache.put("k", REPLY)
            assert await cache.get("k") == TOLD_AGAIN
            await cache.put("cut", REPLY[:1])
            assert list(redis.values) == [(PREFIX + "k").encode()]
            assert redis.asked[:2] == [(b"AUTH", b"me", b"s:cret"), (b"SELECT", b"3")]
            (stored,) = [command for command in redis.asked if command[0] == b"SET"]
            assert stored[-2:] == (b"EX", str(KEPT_S).encode())
            assert (cache.statistics().hits, cache.statistics().misses) == (1, 1)
            await cache.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize(
    "payload", [b"", b"no json", b"[]", b"7", b'[{"content": 3}]', b'[{"finish": "stop"}]', b"[" * 100_000]
)
def test_what_somebody_else_put_there_is_no_reply(payload) -> None:
    async def ask() -> None:
        async with fake_redis() as redis:
            redis.values[(PREFIX + "k").encode()] = payload
            cache = cache_of(redis)
            assert await cache.get("k") is None
            await cache.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("trouble", ["error", "silent"])
def test_one_that_does_not_work_is_left_alone_for_a_while(trouble, caplog, monkeypatch) -> None:
    monkeypatch.setattr(redis_cache, "TIMEOUT_S", 0.05)

    async def ask() -> None:
        async with fake_redis(trouble) as redis:
            clock = FakeClock()
            cache = cache_of(redis)
            cache._clock = clock
            assert await cache.get("k") is None
            asked = len(redis.asked)
            await cache.put("k", REPLY)
            assert (await cache.get("k"), len(redis.asked)) == (None, asked)
            redis.trouble = ""
            clock.advance(redis_cache.PAUSE_S)
            await cache.put("k", REPLY)
            assert await cache.get("k") == TOLD_AGAIN
            await cache.aclose()

    asyncio.run(ask())
    (record,) = caplog.records
    assert "does not work" in record.message


def test_one_that_is_gone_fails_no_request() -> None:
    async def ask() -> None:
        async with fake_redis() as redis:
            cache = cache_of(redis)
        assert await cache.get("k") is None
        await cache.put("k", REPLY)
        await cache.aclose()

    asyncio.run(ask())


def test_without_the_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match="pip install redis") as refused:
        open_redis_cache(Config(response_cache_url="redis://localhost"))
    assert refused.value.param == "RESPONSE_CACHE_URL"


@pytest.mark.parametrize(
    "url", ["http://x", "redis://", "redis://a/b", "redis://a?host=b", "unix://", "redis://a:x"]
)
def test_what_is_no_address_of_a_redis_is_refused(url) -> None:
    with pytest.raises(ConfigError, match="RESPONSE_CACHE_URL"):
        Config(response_cache_url=url)


def test_a_port_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="port"):
        open_redis_cache(Config(response_cache_url="redis://localhost:99999"))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("[::1]:7000", True),
        ("localhost", True),
        ("redis.example.com", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("evil@10.0.0.1:6379", False),
    ],
)
def test_a_dotenv_cannot_send_replies_to_another_machine(tmp_path: Path, host: str, allowed: bool) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"RESPONSE_CACHE_URL=redis://{host}\n")
    config = load_config(environ={}, env_file=env_file)
    if allowed:
        assert open_redis_cache(config) is not None
    else:
        with pytest.raises(ConfigError, match="another machine"):
            open_redis_cache(config)
    named = load_config(environ={"RESPONSE_CACHE_URL": f"redis://{host}"}, env_file=None)
    assert open_redis_cache(named) is not None


def test_a_socket_is_on_this_machine(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("RESPONSE_CACHE_URL=unix:///run/redis.sock\n")
    cache = open_redis_cache(load_config(environ={}, env_file=env_file))
    assert cache._client.connection_pool.connection_kwargs["path"] == "/run/redis.sock"


def test_its_password_is_never_shown() -> None:
    config = Config(response_cache_url="redis://:hunter22@localhost")
    assert "hunter22" not in repr(config) + config.summary()
    assert "redis://:hunter22@localhost" in config.secrets
