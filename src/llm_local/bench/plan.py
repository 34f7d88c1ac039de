"""From what was asked for to a scenario that can be measured: what each takes, its engines, and its peers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from llm_local.bench.arrivals import ArrivalsScenario
from llm_local.bench.machine import ReadProbe
from llm_local.bench.masks import MasksScenario, mask_maker
from llm_local.bench.peers.files import model_folder
from llm_local.bench.peers.opening import PeerName, Peers
from llm_local.bench.prefix import PrefixScenario
from llm_local.bench.race import Case, Race
from llm_local.bench.runners import EngineRunner
from llm_local.bench.scenario import Scenario
from llm_local.bench.serve import CONTINUOUS, ServeScenario
from llm_local.bench.stall import StallScenario
from llm_local.bench.startup import Start, StartupScenario, one_shot_starter
from llm_local.bench.subjects import Subject
from llm_local.errors import InvalidRequest
from llm_local.options import Bound

__all__ = ["SCENARIOS", "Plan", "Takes", "prepare"]

_COUNT: Final = Bound(1, 1_000_000, integer=True)
_RATE: Final = Bound(0.001, 1_000_000)


@dataclass(frozen=True, slots=True)
class Takes:
    """What a scenario takes where nothing else is said; what is empty or None has no place with it."""

    help: str
    context: tuple[int, ...] = ()
    new_tokens: int | None = None
    streams: tuple[int, ...] = ()
    requests: int | None = None
    rate: float | None = None
    against: tuple[str, ...] = ()


_ALL: Final = ("transformers", "llama.cpp")

SCENARIOS: Final = {
    "decode": Takes("one stream", (128,), 64, against=_ALL),
    "prefill": Takes("reading one prompt", (256,), against=_ALL),
    "batch": Takes("streams side by side", (128,), 64, (1, 4, 8, 16), against=_ALL),
    "startup": Takes("from starting the one-shot script to its first token", against=("llama.cpp",)),
    "serve": Takes(
        "clients of the API server side by side, and what HTTP costs",
        (128,),
        32,
        (1, 8, 32),
        against=("transformers", f"transformers:{CONTINUOUS}"),
    ),
    "prefix": Takes("the second turn of a conversation, with the prefix cache and without", (2048,), 16),
    "stall": Takes("a running stream while a long prompt is read", (8192,), 32),
    "masks": Takes("one stream freely and under a JSON schema", (128,), 128),
    "arrivals": Takes("requests that come at random moments", (128,), 32, requests=16, rate=1.0),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, checked. What is empty or None means the scenario's own.

    Raises:
        InvalidRequest: a number out of its bound, or a flag that the scenario has no use for.
    """

    scenario: str = "decode"
    context: tuple[int, ...] = ()
    new_tokens: int | None = None
    streams: tuple[int, ...] = ()
    requests: int | None = None
    rate: float | None = None
    rounds: int = 3
    peers: Peers = field(default_factory=lambda: Peers((), ""))

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise InvalidRequest(
                f"There is no scenario {self.scenario!r}.",
                f"They are: {', '.join(SCENARIOS)}.",
                param="scenario",
            )
        takes = SCENARIOS[self.scenario]
        for name in ("context", "new_tokens", "streams", "requests", "rounds"):
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else [value]:
                if one is not None:
                    _COUNT.check(name, one)
        if self.rate is not None:
            _RATE.check("rate", self.rate)
        for name in ("context", "new_tokens", "streams", "requests", "rate"):
            if getattr(self, name) and not getattr(takes, name):
                self._refuse(name)
        for peer in self.peers.names:
            if peer.kind not in takes.against:
                self._refuse("against", f" {peer.kind}")
        if len(self.context) > 1 and self.scenario not in ("decode", "prefill", "batch"):
            raise InvalidRequest(f"The scenario {self.scenario} takes one --context.", param="context")

    def value(self, name: str) -> Any:
        """What was asked for, or what the scenario takes."""
        return getattr(self, name) or getattr(SCENARIOS[self.scenario], name)

    def _refuse(self, name: str, value: str = "") -> None:
        takers = [
            one
            for one, takes in SCENARIOS.items()
            if (value.strip() in takes.against if value else getattr(takes, name))
        ]
        raise InvalidRequest(
            f"--{name.replace('_', '-')}{value} has no place with the scenario {self.scenario}.",
            f"It belongs to {', '.join(takers)}.",
            param=name,
        )


def prepare(
    plan: Plan, subject: Subject, cleanup: ExitStack, on_round: Callable[[], None] = lambda: None
) -> Scenario:
    """The scenario of `plan` over `subject`; `cleanup` ends what it starts. `on_round` comes before each measurement.

    Raises:
        LocalLLMError: a peer cannot be opened, or the machine has no room.
    """
    read_probe = ReadProbe(subject.num_threads())
    cleanup.callback(read_probe.close)

    def probe() -> float:
        on_round()
        return read_probe.bytes_per_s()

    head: dict[str, Any] = {"subject": subject, "rounds_wanted": plan.rounds, "probe": probe}
    if plan.scenario == "startup":
        return _startup(plan, subject, head)
    if plan.scenario == "serve":
        return _serve(plan, subject, cleanup, head)
    if plan.value("streams") or plan.scenario in ("decode", "prefill"):
        return _race(plan, subject, cleanup, head)
    context, new_tokens = plan.value("context")[0], plan.value("new_tokens")
    engine = subject.make_engine(prefix_cache=False)
    head["runs_as"] = engine.description
    if plan.scenario == "prefix":
        cached = subject.make_engine(prefix_cache=True)
        return PrefixScenario(
            **head, cached=cached, uncached=engine, history_tokens=context, reply_tokens=new_tokens
        )
    if plan.scenario == "stall":
        return StallScenario(**head, engine=engine, prompt_tokens=context, new_tokens=new_tokens)
    if plan.scenario == "masks":
        make_mask = mask_maker(subject.info.vocab_size)
        return MasksScenario(
            **head, engine=engine, make_mask=make_mask, prompt_tokens=context, new_tokens=new_tokens
        )
    return ArrivalsScenario(
        **head,
        engine=engine,
        prompt_tokens=context,
        new_tokens=new_tokens,
        num_requests=plan.value("requests"),
        rate=plan.value("rate"),
    )


def _race(plan: Plan, subject: Subject, cleanup: ExitStack, head: dict[str, Any]) -> Race:
    contexts, streams = plan.value("context"), plan.value("streams") or (1,)
    new_tokens = plan.value("new_tokens") or 1
    cases = tuple(Case(count, context) for context in contexts for count in streams)
    for case in cases:
        subject.require_room(case.context, new_tokens)
    others = []
    for other in plan.peers.open(subject, max(streams), max(contexts) + new_tokens):
        cleanup.callback(other.close)
        others.append(other)
    facts = {"weight_bytes": subject.info.weight_bytes, "kv_bytes_per_token": subject.kv_bytes_per_token()}
    engine = subject.make_engine(prefix_cache=False)
    return Race(
        **head,
        runs_as=engine.description,
        runners=(EngineRunner(engine, facts), *others),
        cases=cases,
        new_tokens=new_tokens,
    )


def _serve(plan: Plan, subject: Subject, cleanup: ExitStack, head: dict[str, Any]) -> ServeScenario:
    # Late: asyncio is slow to import, and `--help` needs the table alone.
    from llm_local.bench.peers.servers import open_ours, open_transformers

    clients, context, new_tokens = plan.value("streams"), plan.value("context")[0], plan.value("new_tokens")
    subject.require_room(context, new_tokens)
    ours, within = open_ours(subject, max(clients), cleanup)
    others = [
        open_transformers(subject, cleanup, continuous=name.form == CONTINUOUS) for name in plan.peers.names
    ]
    return ServeScenario(
        **head,
        runs_as=str(ours.facts["runs_as"]),
        servers=(ours, within, *others),
        clients=clients,
        prompt_tokens=context,
        new_tokens=new_tokens,
    )


def _startup(plan: Plan, subject: Subject, head: dict[str, Any]) -> StartupScenario:
    info, facts = subject.info, dict[str, Any]()
    flags = ["--model", str(model_folder(subject)), "--quant", info.quantization, "--offline"]
    if info.quantization == "none":
        flags += ["--dtype", info.dtype]

    def starter(name: PeerName) -> Callable[[int], Start]:
        def start(prompt_tokens: int) -> Start:
            found, facts[name.shown(info)] = plan.peers.start(name, subject, prompt_tokens)
            return found

        return start

    others = {name.shown(info): starter(name) for name in plan.peers.names}
    ours = one_shot_starter(flags, {"KERNELS": subject.options.kernels})
    return StartupScenario(**head, start=ours, others=others, facts=facts)
