"""Kept replies: told again exactly, to their owner, for an equal request, and honest about what was computed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickletools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_local.config import Config
from llm_local.events import (
    ContextTrimmed,
    Delta,
    Finish,
    Progress,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
    fold,
)
from llm_local.generation.requests import PreparedRequest
from llm_local.messages import ToolCall, ToolDefinition
from llm_local.options import Constraint, GenerationOptions
from llm_local.runtime.kept_replies import from_payload, to_payload
from llm_local.runtime.response_cache import (
    MemoryResponseCache,
    cache_key,
    is_deterministic,
    open_response_cache,
)

FINISH = Finish("stop", Usage(12, 4, 3, 2, 1), Timings(0.1, 0.2, 0.3, 0.4, 0.6))
REPLY = (
    ContextTrimmed(2, 30),
    Progress("prefill", 12, 12),
    Delta("reasoning", "hm ", (5,)),
    Delta(
        "content", "naïve ✓\n", (6, 7), (TokenLogprob(6, -0.5, ((6, -0.5), (9, -2.0))), TokenLogprob(7, -1.0))
    ),
    ToolCallDelta(0, "call_1", "weather", '{"city":"Bonn"}'),
    ToolCallEvent(ToolCall("call_1", "weather", {"city": "Bonn", "days": [1, 2]})),
    FINISH,
)
PREPARED = PreparedRequest("hello", (1, 2, 3), GenerationOptions(temperature=0.0), ("###",))


def kept(cache: Any, key: str, events: Any) -> Any:
    async def put_and_get() -> Any:
        await cache.put(key, events)
        return await cache.get(key)

    return asyncio.run(put_and_get())


def test_a_kept_reply_is_told_again_and_says_that_nothing_was_computed() -> None:
    events = kept(MemoryResponseCache(1 << 20), "key", REPLY)
    assert events[:-1] == REPLY[2:-1], "all that the reader saw, and not how that run went"
    assert events[-1] == Finish("stop", Usage(12, 12, 3, replayed_tokens=3), Timings())
    assert dataclasses.replace(
        fold(events), usage=FINISH.usage, timings=FINISH.timings
    ) == dataclasses.replace(fold(REPLY), trimmed=None)


@given(st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), st.text(), st.lists(st.integers(0)))))
def test_any_text_comes_back_as_it_was(pieces) -> None:
    reply = [Delta(channel, text, tuple(ids)) for channel, text, ids in pieces]
    payload = to_payload([*reply, FINISH])
    assert payload is not None
    assert (from_payload(payload) or ())[:-1] == tuple(reply)


@pytest.mark.parametrize(
    "events", [(Delta("content", "x"),), (dataclasses.replace(FINISH, reason="cancelled"),)]
)
def test_what_was_cut_off_is_not_kept(events) -> None:
    assert kept(MemoryResponseCache(1 << 20), "key", events) is None


def test_only_what_allows_one_reply_is_deterministic() -> None:
    assert is_deterministic(GenerationOptions(temperature=0.0))
    assert is_deterministic(GenerationOptions(temperature=0.7, seed=3))
    assert not is_deterministic(GenerationOptions(temperature=0.7))


def test_the_key_holds_everything_that_decides_the_reply() -> None:
    tool = ToolDefinition("weather", "of a city", {"type": "object"})
    options = PREPARED.options
    others = [
        dataclasses.replace(PREPARED, prompt_ids=(1, 2, 4)),
        dataclasses.replace(PREPARED, prompt_ids=(1, 2)),
        dataclasses.replace(PREPARED, stops=()),
        dataclasses.replace(PREPARED, continues=True),
        dataclasses.replace(PREPARED, goes_on="reasoning"),
        dataclasses.replace(PREPARED, tools=(tool,)),
        dataclasses.replace(PREPARED, tools=(dataclasses.replace(tool, strict=True),)),
    ]
    changes: list[dict[str, Any]] = [
        {"max_new_tokens": 5},
        {"temperature": 0.5},
        {"seed": 7},
        {"top_k": 3},
        {"repetition_penalty": 1.1},
        {"logit_bias": {5: 1.0}},
        {"logprobs": True},
        {"stop": ("###",)},
        {"constraint": Constraint("json")},
        {"constraint": Constraint("choice", ("a", "b"))},
        {"constraint": Constraint("json_schema", {"type": "object"})},
        {"think": "off"},
        {"tool_choice": "none"},
    ]
    others += [dataclasses.replace(PREPARED, options=options.replace(**change)) for change in changes]
    keys = [cache_key("me", "digest", one) for one in (PREPARED, *others)]
    keys += [cache_key("you", "digest", PREPARED), cache_key("me", "other", PREPARED)]
    assert len(set(keys)) == len(keys)
    told_otherwise = dataclasses.replace(
        PREPARED, prompt_text="", notices=("x",), trimmed=ContextTrimmed(1, 2)
    )
    assert cache_key("me", "digest", told_otherwise) == keys[0]
    assert len(keys[0]) == 64


def test_the_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    async def fill() -> None:
        reply = (Delta("content", "x" * 1000), FINISH)
        cache = MemoryResponseCache(5_000)
        for name in "abc":
            await cache.put(name, reply)
        assert await cache.get("a") is not None
        await cache.put("d", reply)
        assert [await cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
        await cache.put("huge", (Delta("content", "x" * 9000), FINISH))
        assert await cache.get("huge") is None
        await cache.put("a", reply)
        statistics = cache.statistics()
        assert (statistics.entries, statistics.hits, statistics.misses) == (3, 4, 2)
        assert 3_000 < (statistics.num_bytes or 0) <= 5_000 == statistics.max_bytes
        await cache.aclose()
        assert (await cache.get("a"), cache.statistics().num_bytes) == (None, 0)

    asyncio.run(fill())


def test_it_is_off_unless_the_settings_ask_for_it() -> None:
    assert open_response_cache(Config()) is None
    cache = open_response_cache(Config(response_cache_mb=3))
    assert isinstance(cache, MemoryResponseCache)
    assert cache.statistics().max_bytes == 3 << 20


def test_what_is_kept_is_json_and_no_pickle() -> None:
    cache = MemoryResponseCache(1 << 20)
    kept(cache, "key", REPLY)
    (payload,) = cache._payloads.values()
    assert json.loads(payload)[-1]["finish"] == "stop"
    with pytest.raises(ValueError, match="opcode"):
        list(pickletools.genops(payload))


def test_the_stop_string_that_ended_a_reply_is_kept() -> None:
    payload = to_payload([Delta("content", "a", (1,)), Finish("stop", Usage(1, 0, 1), Timings(), "END")])
    assert payload is not None
    told = from_payload(payload)
    assert told is not None and isinstance(told[-1], Finish) and told[-1].stop == "END"
