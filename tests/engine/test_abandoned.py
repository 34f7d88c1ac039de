"""A forward pass that nobody waits for any more is left between two layers, on every tier, and nothing else suffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from engine_driving import drain, ids_of, request, run
from llm_local.engine import abandoned, native_runner
from llm_local.engine.engine import BatchEngine
from llm_local.engine.factory import make_engine
from llm_local.engine.protocol import TokenStep
from llm_local.engine.sequence import Chunk
from tiny_models import CONTEXT_LENGTH, random_prompt, tiny_model

TIERS = {"native": ("llama", "auto"), "torch": ("llama", "off"), "universal": ("mamba", "off")}
LONG, OTHER, SHORT = random_prompt(100, seed=1), random_prompt(100, seed=3), random_prompt(5, seed=2)


@pytest.fixture(params=TIERS)
def engine(request: pytest.FixtureRequest) -> BatchEngine:
    """One of each tier."""
    model_type, kernels = TIERS[request.param]
    return make_engine(tiny_model(model_type), context_length=CONTEXT_LENGTH, kernels=kernels)


def watch(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> list[int]:
    """Have `act` called at the `at`-th look between layers; gives the number of looks, in a list of one."""
    looks = [0]
    leave = abandoned.leave_if_abandoned

    def look(chunks: Sequence[Chunk]) -> None:
        looks[0] += 1
        if looks[0] == at:
            act()
        leave(chunks)

    monkeypatch.setattr(abandoned, "leave_if_abandoned", look)
    monkeypatch.setattr(native_runner, "leave_if_abandoned", look)
    return looks


def test_a_long_prompt_is_left_within_a_layer(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = run(engine, request("first", LONG))["first"]
    looks = watch(monkeypatch, 2, lambda: engine.cancel("long"))
    engine.submit(request("long", LONG))
    assert engine.step() == []
    assert looks == [2], "and so the layer behind was not begun"
    (last,) = engine.step()
    assert isinstance(last, TokenStep)
    assert (last.finish_reason, last.token_id) == ("cancelled", None)
    assert engine.stats()["kv_used_bytes"] == 0
    assert run(engine, request("again", LONG))["again"] == reference


def test_one_that_is_still_wanted_keeps_the_pass(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = run(engine, request("alone", OTHER))["alone"]
    watch(monkeypatch, 1, lambda: engine.cancel("long"))
    engine.submit(request("long", LONG))
    engine.submit(request("other", OTHER))
    steps = drain(engine)
    assert ids_of(steps["other"]) == reference
    assert steps["long"][-1].finish_reason == "cancelled"
    assert steps["other"][-1].finish_reason != "cancelled"


def test_a_short_pass_is_not_looked_into(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = watch(monkeypatch, 1, lambda: None)
    run(engine, request("short", SHORT))
    assert looks == [0]
