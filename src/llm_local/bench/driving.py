"""Taking an engine through prompts of token ids, and noting when each token came."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llm_local.bench.figures import TokenTimes
from llm_local.engine.protocol import Engine, EngineStep, SequenceReport, TokenRequest, TokenStep
from llm_local.options import GenerationOptions

__all__ = ["Clock", "Run", "drive", "greedy_request", "random_prompt"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Run:
    """What came of prompts, in their order. `kv_bytes` is the most that keys and values took, `waiting` the longest
    line of those that a step had left waiting."""

    times: TokenTimes
    token_ids: tuple[tuple[int, ...], ...]
    reports: tuple[SequenceReport, ...]
    kv_bytes: int
    waiting: int


@dataclass(slots=True)
class _Noted:
    """One sequence so far."""

    tokens_s: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    report: SequenceReport | None = None


def drive(
    engine: Engine,
    requests: Sequence[TokenRequest],
    clock: Clock = time.perf_counter,
    arrivals_s: Sequence[float] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """Step the engine until every request is done. All tokens of a step come at once.

    `arrivals_s`: seconds from the start at which each request arrives, rising; without them, all do at once. One that
    arrives during a step waits for its end, and its time counts from its arrival.

    Raises:
        LocalLLMError: a sequence was refused, or failed.
    """
    noted = {request.sequence_id: _Noted() for request in requests}
    kv_bytes = waiting = 0
    began_s = now = clock()
    offsets = arrivals_s or [0.0] * len(requests)
    due = deque((began_s + offset, one) for offset, one in zip(offsets, requests, strict=True))
    submitted_s = tuple(moment for moment, _ in due)
    while due or engine.has_work():
        if due and due[0][0] > now and not engine.has_work():
            now = _wait_until(due[0][0], clock, sleep)
        while due and due[0][0] <= now:
            engine.submit(due.popleft()[1])
        now = _note(engine.step(), clock, noted)
        stats = engine.stats()
        kv_bytes, waiting = max(kv_bytes, stats["kv_used_bytes"]), max(waiting, stats["waiting"])
    done = [noted[request.sequence_id] for request in requests]
    return Run(
        TokenTimes(submitted_s, tuple(tuple(one.tokens_s) for one in done)),
        tuple(tuple(one.token_ids) for one in done),
        tuple(one.report for one in done if one.report is not None),
        kv_bytes,
        waiting,
    )


def greedy_request(sequence_id: str, prompt_ids: Sequence[int], new_tokens: int) -> TokenRequest:
    """Exactly `new_tokens` most likely tokens after a prompt: no token ends it."""
    options = GenerationOptions(max_new_tokens=new_tokens, temperature=0)
    return TokenRequest(sequence_id, tuple(prompt_ids), options)


def random_prompt(length: int, vocab_size: int, seed: str) -> tuple[int, ...]:
    """`length` token ids, always the same for a seed."""
    draw = random.Random(seed)  # noqa: S311  (nothing is kept secret)
    return tuple(draw.randrange(vocab_size) for _ in range(length))


def _wait_until(moment: float, clock: Clock, sleep: Callable[[float], None]) -> float:
    """Sleeps may end early, so the clock decides; the moment at which it is over."""
    while (now := clock()) < moment:
        sleep(moment - now)
    return now


def _note(steps: Sequence[EngineStep], clock: Clock, noted: dict[str, _Noted]) -> float:
    """Write down what a step brought; the moment at which it did."""
    now = clock()
    for step in steps:
        if not isinstance(step, TokenStep):
            continue
        if step.error is not None:
            raise step.error
        if step.token_id is not None:
            noted[step.sequence_id].tokens_s.append(now)
            noted[step.sequence_id].token_ids.append(step.token_id)
        if step.report is not None:
            noted[step.sequence_id].report = step.report
    return now
