"""From what was asked for to a scenario that can be measured: the model, its engines, and the peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_local.bench.decode import DecodeScenario
from llm_local.bench.driving import Peer, Subject
from llm_local.bench.machine import copy_bytes_per_s
from llm_local.bench.prefix import PrefixScenario
from llm_local.bench.scenario import Scenario
from llm_local.bench.stall import StallScenario
from llm_local.errors import InvalidRequest
from llm_local.events import Progress
from llm_local.loaders.configuration import read_config
from llm_local.loaders.published_shapes import PUBLISHED_SHAPES
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.options import Bound
from llm_local.specs import EngineOptions, ModelSpec
from llm_local.store.names import STARTER

__all__ = ["SCENARIOS", "SHAPES", "Plan", "open_shape", "open_weights", "prepare"]

SHAPES: Final = (*PUBLISHED_SHAPES, STARTER)
_COUNT: Final = Bound(1, 1_000_000, integer=True)


@dataclass(frozen=True, slots=True)
class _Defaults:
    prompt_tokens: int
    new_tokens: int


SCENARIOS: Final = {
    "decode": _Defaults(prompt_tokens=128, new_tokens=64),
    "prefix": _Defaults(prompt_tokens=2048, new_tokens=16),
    "stall": _Defaults(prompt_tokens=8192, new_tokens=32),
}
"""What each scenario takes where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, checked. `prompt_tokens` and `new_tokens` of None mean the scenario's own.

    Raises:
        InvalidRequest: a number out of its bound, or a flag that the scenario has no use for.
    """

    scenario: str = "decode"
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    sequences: tuple[int, ...] = ()
    rounds: int = 3
    against: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "rounds"):
            value = getattr(self, name)
            if value is not None:
                _COUNT.check(name, value)
        for value in self.sequences:
            _COUNT.check("sequences", value)
        if self.scenario not in SCENARIOS:
            raise InvalidRequest(f"There is no scenario {self.scenario!r}.", param="scenario")
        for name in ("sequences", "against"):
            if self.scenario != "decode" and getattr(self, name):
                raise InvalidRequest(
                    f"--{name} has no place with --scenario {self.scenario}.",
                    "It belongs to the scenario decode.",
                    param=name,
                )


def open_shape(name: str, spec: ModelSpec, options: EngineOptions) -> Subject:
    """A model of a published shape with random weights; `spec` says its number format and device.

    Raises:
        InvalidRequest, InsufficientMemory: see `loaders.random_weights.random_model`.
    """
    # Late: it imports torch, and the flags are judged by now.
    from llm_local.loaders.random_weights import random_model

    if name == STARTER:
        shape = read_config(resolve_model(ModelSpec(STARTER), explicit=True).path).values
    else:
        shape = PUBLISHED_SHAPES[name]
    model, info = random_model(f"{name} (random weights)", shape, dtype=spec.dtype, device=spec.device)
    return Subject(model, info, options)


def open_weights(
    spec: ModelSpec,
    options: EngineOptions,
    *,
    explicit: bool,
    offline: bool,
    on_progress: Callable[[Progress], None],
) -> tuple[Subject, tuple[str, ...]]:
    """A real model, found and loaded as for an answer, and what people should know about that.

    Raises:
        LocalLLMError: it cannot be found, reached, read or held in memory.
    """
    resolved = resolve_model(spec, explicit=explicit, offline=offline, on_progress=on_progress)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path, on_progress=on_progress)
    return Subject(loaded.model, loaded.info, options), tuple(
        filter(None, (resolved.notice, *loaded.notices))
    )


def prepare(plan: Plan, subject: Subject, on_round: Callable[[], None] = lambda: None) -> Scenario:
    """The scenario of `plan` over `subject`. `on_round` is called before each measurement, as the probe is."""

    def probe() -> float:
        on_round()
        return copy_bytes_per_s()

    defaults = SCENARIOS[plan.scenario]
    prompt_tokens, new_tokens = (
        plan.prompt_tokens or defaults.prompt_tokens,
        plan.new_tokens or defaults.new_tokens,
    )
    peer = _peer(subject) if plan.against else None  # before the engine, which changes the model's attention
    engine = subject.make_engine(prefix_cache=False)
    if plan.scenario == "prefix":
        cached = subject.make_engine(prefix_cache=True)
        return PrefixScenario(subject, cached, engine, prompt_tokens, new_tokens, plan.rounds, probe)
    if plan.scenario == "stall":
        return StallScenario(subject, engine, prompt_tokens, new_tokens, plan.rounds, probe)
    return DecodeScenario(
        subject=subject,
        engine=engine,
        sequences=plan.sequences or (1, 4, 8, 16),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds_wanted=plan.rounds,
        probe=probe,
        peer=peer,
        peer_name=plan.against,
    )


def _peer(subject: Subject) -> Peer:
    # Late: it imports torch.
    from llm_local.engine.reference import GenerateReference

    return GenerateReference(subject.model)
