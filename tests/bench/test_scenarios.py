"""Each scenario on a scripted engine and a clock that ticks a second at every look: what is asked, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from fakes import FakeClock, ScriptedEngine
from llm_local.bench.decode import DecodeScenario
from llm_local.bench.driving import Subject, drive, greedy_request, random_prompt
from llm_local.bench.machine import copy_bytes_per_s
from llm_local.bench.prefix import PrefixScenario
from llm_local.bench.scenario import Column
from llm_local.bench.stall import StallScenario
from llm_local.engine.protocol import EngineStep, PrefillStep
from llm_local.errors import ContextLengthExceeded, EngineError
from llm_local.specs import EngineOptions, ModelInfo

INFO = ModelInfo("tiny", "", "llama", 3, 6, "float32", "cpu", 100, 50, False)
SUBJECT = Subject(None, INFO, EngineOptions())


class EndlessEngine(ScriptedEngine):
    """Replies to every request with as many tokens as it asks for; reads `chunk` prompt tokens of it a step before."""

    def __init__(self, chunk: int = 1000) -> None:
        super().__init__()
        self.chunk = chunk
        self.left: dict[str, int] = {}

    def submit(self, request) -> None:
        self.enqueue([1] * (request.options.max_new_tokens or 1))
        self.left[request.sequence_id] = len(request.prompt_ids)
        super().submit(request)

    def step(self) -> list[EngineStep]:
        return [step for one in list(self._active) for step in self._read_or_decode(one)]

    def _read_or_decode(self, sequence_id: str) -> list[EngineStep]:
        self.left[sequence_id] -= self.chunk
        if self.left[sequence_id] > 0:
            return [PrefillStep(sequence_id, 1, 2)]
        return self._step_one(sequence_id)


class FakePeer:
    """Gives all tokens of a step at once, after two looks at the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seen: list[Sequence[Sequence[int]]] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], num_new: int, on_token: Callable[[], None]
    ) -> list[list[int]]:
        self.seen.append(prompts)
        for _ in range(num_new):
            self.clock()
            on_token()
        return [[1] * num_new for _ in prompts]


def decode(clock: FakeClock, peer: FakePeer | None = None, *, new_tokens: int = 3) -> DecodeScenario:
    return DecodeScenario(
        SUBJECT, EndlessEngine(), (1, 2), 10, new_tokens, 2, lambda: 5e9, peer, "other" if peer else "", clock
    )


def test_decode_takes_turns_on_the_same_prompts() -> None:
    clock = FakeClock(tick=1.0)
    peer = FakePeer(clock)
    scenario = decode(clock, peer)
    rounds = list(scenario.rounds())
    order = [(one.index, one.what, one.figures["sequences"]) for one in rounds]
    once = [("llm-local", 1), ("other", 1), ("llm-local", 2), ("other", 2)]
    assert order == [(index, *rest) for index in (0, 1) for rest in once]
    engine = scenario.engine
    assert isinstance(engine, ScriptedEngine)
    asked = [request.prompt_ids for request in engine.requests]
    assert asked == [tuple(prompt) for prompts in peer.seen for prompt in prompts]
    assert len(set(asked)) == len(asked)
    assert all(request.options.greedy and not request.stop_token_ids for request in engine.requests)


def test_decode_figures_and_the_ratio_of_each_pair() -> None:
    clock = FakeClock(tick=1.0)
    scenario = decode(clock, FakePeer(clock))
    summary = scenario.summarize(list(scenario.rounds()))
    ours, theirs = summary.rows[2:]
    # two sequences, one token each a second, against the same every two seconds
    assert (ours["decode_tokens_per_s"], theirs["decode_tokens_per_s"]) == (2.0, 1.0)
    assert (ours["prefill_tokens_per_s"], theirs["prefill_tokens_per_s"]) == (20.0, 10.0)
    assert (ours["ttft_p50_s"], theirs["itl_p95_s"]) == (1.0, 2.0)
    assert (ours["decode_ratio"], ours["prefill_ratio"]) == (2.0, 2.0)
    assert summary.verdict == (
        "llm-local decodes 1.0 tokens/s with 1 sequence and 2.0 with 2 sequences, 2.00 times as many. "
        "Against other it decodes 2.00 times as many with 1 sequence, 2.00 times as many with 2 sequences."
    )


def test_what_is_broken_off_is_still_summed_up() -> None:
    clock = FakeClock(tick=1.0)
    scenario = decode(clock, FakePeer(clock))
    first = next(iter(scenario.rounds()))
    summary = scenario.summarize([first])
    assert [row["sequences"] for row in summary.rows] == [1]
    assert summary.rows[0]["decode_ratio"] is None
    assert summary.verdict == "llm-local decodes 1.0 tokens/s with 1 sequence."
    assert scenario.summarize([]).rows == []


def test_one_new_token_decodes_nothing() -> None:
    scenario = decode(FakeClock(tick=1.0), new_tokens=1)
    assert "more new tokens" in scenario.summarize(list(scenario.rounds())).verdict


def test_prefix_asks_both_engines_the_same_second_turn() -> None:
    cached, uncached = EndlessEngine(), EndlessEngine(chunk=20)
    scenario = PrefixScenario(SUBJECT, cached, uncached, 40, 3, 2, lambda: 5e9, FakeClock(tick=1.0))
    summary = scenario.summarize(list(scenario.rounds()))
    first, second = (request.prompt_ids for request in cached.requests[1:3])
    assert second[:40] == first
    assert second[40:43] == (1, 1, 1)  # the reply
    assert len(second) == 75
    assert uncached.requests[1].prompt_ids == second
    assert cached.requests[3].prompt_ids != first  # the next round must not find this one's history
    # one look at the clock a step: one step against four
    assert [row["ttft_s"] for row in summary.rows] == [1.0, 4.0]
    assert summary.rows[0]["speedup"] == 4.0
    assert "4.0 times sooner: after 1,000 ms instead of 4,000 ms" in summary.verdict


def test_stall_tells_the_gaps_while_a_prompt_is_read_from_those_before() -> None:
    clock = FakeClock(tick=1.0)

    class Slow(EndlessEngine):
        """A step in which a prompt is read takes three seconds more."""

        def step(self) -> list[EngineStep]:
            steps = super().step()
            clock.now += 3.0 * any(isinstance(step, PrefillStep) and step.done < step.total for step in steps)
            return steps

    scenario = StallScenario(SUBJECT, engine := Slow(chunk=10), 20, 4, 1, lambda: 5e9, clock)
    engine.left["stream"] = 0
    rounds = list(scenario.rounds())
    before, during = (one.figures for one in rounds)
    assert (before["num_gaps"], before["itl_max_s"]) == (4, 1.0)
    # one step reads half of the prompt, the next its end; one look at the clock belongs to the arrival
    assert (during["num_gaps"], during["itl_max_s"], during["prefill_s"]) == (2, 5.0, 5.0)
    assert "waited 5,000 ms for a token at most, 1,000 ms before" in scenario.summarize(rounds).verdict
    assert not engine.has_work()
    assert "No prompt was read" in scenario.summarize(rounds[:1]).verdict


def scenarios() -> Iterator[DecodeScenario | PrefixScenario | StallScenario]:
    engine, probe = EndlessEngine(), lambda: 5e9
    yield DecodeScenario(SUBJECT, engine, (1,), 90, 11, 1, probe)
    yield PrefixScenario(SUBJECT, engine, engine, 90, 3, 1, probe)
    yield StallScenario(SUBJECT, engine, 100, 1, 1, probe)


@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda one: type(one).__name__)
def test_what_does_not_fit_the_window_is_refused_before_anything_runs(scenario) -> None:
    with pytest.raises(ContextLengthExceeded):
        next(scenario.rounds())


def test_a_sequence_that_fails_ends_the_measurement() -> None:
    engine = ScriptedEngine()
    engine.enqueue([1, EngineError("broken")])
    with pytest.raises(EngineError, match="broken"):
        drive(engine, [greedy_request("a", (1, 2), 5)])


def test_prompts_are_the_same_for_a_seed_and_inside_the_vocabulary() -> None:
    assert random_prompt(50, 7, "a") == random_prompt(50, 7, "a") != random_prompt(50, 7, "b")
    assert set(random_prompt(500, 7, "a")) == set(range(7))


def test_the_probe_says_bytes_per_second() -> None:
    assert copy_bytes_per_s(FakeClock(tick=0.5)) == 2 * (64 << 20)


def test_columns_show_units_and_what_is_missing() -> None:
    assert Column("ttft ms", 1e3, 1).show(1.23456) == "1,234.6"
    assert Column("runner").show("llm-local") == "llm-local"
    assert Column("ratio", digits=2).show(None) == "-"
