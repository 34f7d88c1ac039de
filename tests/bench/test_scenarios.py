"""Each scenario on a scripted engine and a clock that ticks a second at every look: what is asked, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from fakes import FakeClock, ScriptedEngine
from llm_local.bench.arrivals import ArrivalsScenario, arrival_times
from llm_local.bench.driving import drive, greedy_request, random_prompt
from llm_local.bench.figures import TokenTimes
from llm_local.bench.masks import MasksScenario
from llm_local.bench.prefix import PrefixScenario
from llm_local.bench.race import Case, Race
from llm_local.bench.runners import EngineRunner
from llm_local.bench.scenario import Column
from llm_local.bench.stall import StallScenario
from llm_local.bench.startup import Start, StartupScenario
from llm_local.bench.subjects import Subject
from llm_local.engine.protocol import EngineStep, PrefillStep
from llm_local.errors import ContextLengthExceeded, EngineError
from llm_local.specs import EngineOptions, ModelInfo

INFO = ModelInfo("tiny", "", "llama", 3, 6, "float32", "cpu", 100, 50, False)
TIED = {"vocab_size": 50, "hidden_size": 4, "tie_word_embeddings": True}
SUBJECT = Subject(None, INFO, EngineOptions(), TIED)
FACTS = {"weight_bytes": 900, "kv_bytes_per_token": 10}


def head(rounds: int = 2, clock: FakeClock | None = None) -> dict[str, Any]:
    """What every scenario takes; the probe reads 5,000 bytes a second."""
    return {
        "subject": SUBJECT,
        "rounds_wanted": rounds,
        "probe": lambda: 5000.0,
        "clock": clock or FakeClock(tick=1.0),
    }


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


class SlowRunner:
    """Gives a token of each sequence every two seconds."""

    name = "other"
    facts: Mapping[str, Any] = FACTS

    def __init__(self) -> None:
        self.seen: list[Sequence[Sequence[int]]] = []

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> TokenTimes:
        self.seen.append(prompts)
        moments = tuple(2.0 * (step + 1) for step in range(new_tokens))
        return TokenTimes((0.0,) * len(prompts), (moments,) * len(prompts))

    def peak_rss_bytes(self) -> int:
        return 1000

    def close(self) -> None:
        """Nothing runs."""


def race(other: SlowRunner | None = None, *, new_tokens: int = 3, streams: Sequence[int] = (1, 2)) -> Race:
    clock = FakeClock(tick=1.0)
    ours = EngineRunner(EndlessEngine(), FACTS, clock)
    cases = tuple(Case(count, 10) for count in streams)
    return Race(
        **head(clock=clock), runners=(ours, other) if other else (ours,), cases=cases, new_tokens=new_tokens
    )


def test_a_race_takes_turns_on_the_same_prompts() -> None:
    other = SlowRunner()
    scenario = race(other)
    rounds = list(scenario.rounds())
    order = [(one.index, one.what, one.figures["streams"]) for one in rounds]
    once = [("llm-local", 1), ("other", 1), ("llm-local", 2), ("other", 2)]
    assert order == [(index, *rest) for index in (0, 1) for rest in once]
    ours = scenario.runners[0]
    assert isinstance(ours, EngineRunner) and isinstance(ours.engine, ScriptedEngine)
    asked = [request.prompt_ids for request in ours.engine.requests]
    assert asked == [tuple(prompt) for prompts in other.seen for prompt in prompts]
    assert len(set(asked)) == len(asked)
    assert all(request.options.greedy and not request.stop_token_ids for request in ours.engine.requests)
    assert scenario.settings == {
        "streams": (1, 2), "context": (10,), "new_tokens": 3, "rounds": 2, "against": ("other",),
    }  # fmt: skip
    assert scenario.peers == {"other": FACTS}


def test_race_figures_ratios_and_the_share_of_memory() -> None:
    scenario = race(SlowRunner())
    summary = scenario.summarize(list(scenario.rounds()))
    ours, theirs = summary.rows[2:]
    # two sequences, one token each a second, against the same every two seconds
    assert (ours["decode_tokens_per_s"], theirs["decode_tokens_per_s"]) == (2.0, 1.0)
    assert (ours["prefill_tokens_per_s"], theirs["prefill_tokens_per_s"]) == (20.0, 10.0)
    assert (ours["ttft_p50_s"], theirs["itl_p95_s"], theirs["peak_rss_bytes"]) == (1.0, 2.0, 1000)
    assert ("ratio" in ours, theirs["ratio"], ours["spread"]) == (False, 2.0, 0.0)
    # a step reads 900 bytes of weights and 10 for each of 11.5 tokens of each sequence, once a second of 5,000
    assert ours["memory_share"] == pytest.approx((900 + 2 * 115) / 5000)
    assert summary.verdict == (
        "With 10 tokens of context llm-local decodes 1.0 tokens/s: 2.00 times as fast as other; "
        "20 % of what the memory allows. "
        "With 10 tokens of context and 2 streams llm-local decodes 2.0 tokens/s: 2.00 times as fast as other; "
        "23 % of what the memory allows."
    )


def test_one_new_token_makes_it_a_race_of_reading() -> None:
    scenario = race(SlowRunner(), new_tokens=1, streams=(1,))
    summary = scenario.summarize(list(scenario.rounds()))
    assert "prefill_tokens_per_s" in summary.columns and "decode_tokens_per_s" not in summary.columns
    assert (
        summary.verdict
        == "With 10 tokens of context llm-local reads 10.0 tokens/s: 2.00 times as fast as other."
    )
    assert summary.rows[0]["memory_share"] is None


def test_what_is_broken_off_is_still_summed_up() -> None:
    scenario = race(SlowRunner())
    first = next(iter(scenario.rounds()))
    summary = scenario.summarize([first])
    assert [row["streams"] for row in summary.rows] == [1]
    assert summary.rows[0]["spread"] is None
    assert summary.verdict.startswith("With 10 tokens of context llm-local decodes 1.0 tokens/s; 20 %")
    assert scenario.summarize([]).rows == []
    assert scenario.summarize([]).verdict == "Nothing was measured."


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        (TIED, 1.0),
        ({**TIED, "tie_word_embeddings": False}, 1.0 - 200 / 1000),
        ({**TIED, "num_experts": 8}, None),
    ],
)
def test_what_a_step_reads_of_the_weights(shape: Mapping[str, Any], share: float | None) -> None:
    info = ModelInfo("tiny", "", "llama", 1000, 6, "float32", "cpu", 100, 50, False)
    assert Subject(None, info, EngineOptions(), shape).read_share() == share


def test_prefix_asks_both_engines_the_same_second_turn() -> None:
    cached, uncached = EndlessEngine(), EndlessEngine(chunk=20)
    scenario = PrefixScenario(**head(), cached=cached, uncached=uncached, history_tokens=40, reply_tokens=3)
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

    engine = Slow(chunk=10)
    scenario = StallScenario(**head(1, clock), engine=engine, prompt_tokens=20, new_tokens=4)
    engine.left["stream"] = 0
    rounds = list(scenario.rounds())
    before, during = (one.figures for one in rounds)
    assert (before["num_gaps"], before["itl_max_s"]) == (4, 1.0)
    # one step reads half of the prompt, the next its end; one look at the clock belongs to the arrival
    assert (during["num_gaps"], during["itl_max_s"], during["prefill_s"]) == (2, 5.0, 5.0)
    assert "waited 5,000 ms for a token at most, 1,000 ms before" in scenario.summarize(rounds).verdict
    assert not engine.has_work()
    assert "No prompt was read" in scenario.summarize(rounds[:1]).verdict


# --- masks ---


def test_masks_tell_the_share_that_a_constraint_takes() -> None:
    clock = FakeClock(tick=1.0)

    class Masked(EndlessEngine):
        """A step under a mask takes a third of a second more."""

        def step(self) -> list[EngineStep]:
            clock.now += sum(request.mask is not None for request, *_ in self._active.values()) / 3
            return super().step()

    engine, made = Masked(), []
    scenario = MasksScenario(
        **head(2, clock),
        engine=engine,
        make_mask=lambda: made.append(1) or object(),
        prompt_tokens=9,
        new_tokens=4,
    )
    rounds = list(scenario.rounds())
    # who goes first changes, and what is measured beforehand does not count
    assert [(one.index, one.what) for one in rounds] == [
        (0, "free"), (0, "JSON schema"), (1, "JSON schema"), (1, "free"),
    ]  # fmt: skip
    assert len(made) == 3
    assert [engine.requests[n].prompt_ids == engine.requests[n + 1].prompt_ids for n in (2, 3, 4)] == [
        True, False, True,
    ]  # fmt: skip
    free, under = scenario.summarize(rounds).rows
    assert (free["itl_p50_s"], under["itl_p50_s"]) == (1.0, pytest.approx(4 / 3))
    assert under["mask_share"] == pytest.approx(0.25)
    assert "Masks take 25.0%" in scenario.summarize(rounds).verdict
    assert "Not both" in scenario.summarize(rounds[:1]).verdict
    assert scenario.settings["vocab_size"] == 50


# --- arrivals ---


class SteadyEngine(EndlessEngine):
    """Takes two seconds for a step, one sequence after the other in line for a single place."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def step(self) -> list[EngineStep]:
        self.clock.advance(2.0)
        return self._read_or_decode(next(iter(self._active)))

    @property
    def description(self) -> str:
        """What a report says that it ran as."""
        return "scripted"

    def stats(self) -> dict[str, int]:
        return {**super().stats(), "waiting": max(0, len(self._active) - 1), "kv_used_bytes": 70}


def test_a_request_waits_for_the_step_it_arrives_in_and_counts_from_its_arrival() -> None:
    clock = FakeClock()
    engine = SteadyEngine(clock)
    requests = [greedy_request(name, (1, 2), 2) for name in "abcd"]
    run = drive(engine, requests, clock, (0.0, 1.0, 1.5, 20.0), clock.advance)
    began = run.times.submitted_s[0]
    assert [moment - began for moment in run.times.submitted_s] == [0.0, 1.0, 1.5, 20.0]
    # b waits for both steps of a, c for both of b; nothing happens between the end of c and the arrival of d
    seen = [[moment - began for moment in tokens] for tokens in run.times.tokens_s]
    assert seen == [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0], [22.0, 24.0]]
    assert (run.waiting, run.kv_bytes) == (1, 70)


def test_arrivals_are_summed_up() -> None:
    clock = FakeClock()
    scenario = ArrivalsScenario(
        **head(2, clock), engine=SteadyEngine(clock), prompt_tokens=10, new_tokens=3,
        num_requests=4, rate=2.0, sleep=clock.advance,
    )  # fmt: skip
    rounds = list(scenario.rounds())
    summary = scenario.summarize(rounds)
    assert [one.index for one in rounds] == [0, 1]
    (row,) = summary.rows
    assert row["itl_p50_s"] == 2.0 and row["waiting_max"] >= 1
    assert row["ttft_p95_s"] >= row["ttft_p50_s"] >= 2.0
    assert 0.0 < row["tokens_per_s"] <= 0.5  # a step gives one token in two seconds
    assert summary.verdict.startswith("With 2 requests/s arriving, half of them had their first token within")
    assert f"and {row['waiting_max']:.0f} waited in line at most." in summary.verdict
    assert scenario.summarize([]).verdict == "Nothing was measured."


def test_arrivals_are_random_but_the_same_for_a_seed() -> None:
    times = arrival_times(2000, 4.0, "x")
    assert times == arrival_times(2000, 4.0, "x") != arrival_times(2000, 4.0, "y")
    assert times[0] == 0.0 and list(times) == sorted(times)
    # a Poisson process: the mean gap of 2,000 is within 10 % of a quarter second but once in 10^5 seeds
    assert times[-1] / 1999 == pytest.approx(0.25, rel=0.1)
    assert arrival_times(1, 4.0, "x") == (0.0,)


# --- start-up ---


def test_startup_starts_everybody_once_for_nothing_and_then_in_turn() -> None:
    asked: list[tuple[str, int]] = []

    def ours() -> Start:
        asked.append(("ours", 0))
        return Start(2.0, 1.0, 0.25, 7)

    def other(prompt_tokens: int) -> Start:
        asked.append(("other", prompt_tokens))
        return Start(4.0, 3.0, 0.5, prompt_tokens)

    scenario = StartupScenario(
        **head(2), start=ours, others={"other": other}, facts={"other": {"version": "1"}}
    )
    rounds = list(scenario.rounds())
    assert asked == [("ours", 0), ("other", 7)] * 3
    first, second = scenario.summarize(rounds).rows
    assert (first["process_s"], second["process_s"]) == (0.75, 0.5)
    assert (second["ratio"], first["spread"]) == (0.5, 0.0)
    assert scenario.summarize(rounds).verdict == (
        "The first token comes 2,000 ms after the start of the script: 0.50 times as long as other."
    )
    assert scenario.summarize(rounds[:1]).verdict.endswith("after the start of the script.")
    assert scenario.summarize([]).verdict == "Nothing was measured."
    assert scenario.peers == {"other": {"version": "1"}}


# --- what all have in common ---


def scenarios() -> Iterator[Any]:
    engine = EndlessEngine()
    runner = EngineRunner(engine, FACTS)
    yield Race(**head(), runners=(runner,), cases=(Case(1, 90),), new_tokens=11)
    yield PrefixScenario(**head(), cached=engine, uncached=engine, history_tokens=90, reply_tokens=3)
    yield StallScenario(**head(), engine=engine, prompt_tokens=100, new_tokens=1)
    yield ArrivalsScenario(**head(), engine=engine, prompt_tokens=90, new_tokens=11, num_requests=1, rate=1.0)


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


def test_columns_show_units_and_what_is_missing() -> None:
    assert Column("ttft ms", 1e3, 1).show(1.23456) == "1,234.6"
    assert Column("runner").show("llm-local") == "llm-local"
    assert Column("ratio", digits=2).show(None) == "-"
