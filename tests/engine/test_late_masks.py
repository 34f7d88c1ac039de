"""Masks that come late: the others go on, and nobody's tokens change."""

from __future__ import annotations

import pytest

from engine_driving import GREEDY, drain, engine_for, ids_of, request, run
from llm_local.engine.factory import make_draft, make_engine
from llm_local.engine.kv_cache import kv_layout
from llm_local.engine.speculative import NgramDrafter
from llm_local.options import GenerationOptions
from tiny_models import CONTEXT_LENGTH, END_TOKEN, VOCAB_SIZE, random_prompt, tiny_model

LONG = GREEDY.replace(logit_bias={END_TOKEN: -100.0})


class Late:
    """Allows ids by their remainder, which changes with every token, each mask after it was asked for `late` times."""

    def __init__(self, late, modulus=2):
        self.late, self.modulus = late, modulus
        self.asked = self.taken = 0
        self.accepted = []
        self.waits = []

    def ready(self, seconds):
        assert seconds < 1
        self.waits += [seconds] if self.asked < self.late else []
        self.asked += 1
        return self.asked > self.late

    def allowed(self):
        assert self.asked > self.late, "asked for a mask that is not there"
        return [token % self.modulus == self.taken % self.modulus for token in range(VOCAB_SIZE)]

    def accept(self, token_id):
        self.accepted.append(token_id)
        self.taken, self.asked = self.taken + 1, 0


def requests(late, options=LONG):
    return [
        request("a", random_prompt(20), options, mask=Late(late)),
        request("free", random_prompt(30, 1), options),
        request("b", random_prompt(9, 2), options, mask=Late(2 * late, 3)),
    ]


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mamba"])
@pytest.mark.parametrize("options", [LONG, GenerationOptions(seed=7, max_new_tokens=24)])
def test_late_masks_change_no_token(model_type, options):
    expected = run(engine_for(model_type), *requests(0, options))
    for late in (1, 3):
        assert run(engine_for(model_type), *requests(late, options)) == expected
    for one in requests(2, options):
        assert run(engine_for(model_type), one)[one.sequence_id] == expected[one.sequence_id], "alone"


def test_the_others_get_a_token_in_every_step_and_nothing_is_computed_twice():
    engine = engine_for()
    computed = []
    plain_run = engine._runner.run
    engine._runner.run = lambda chunks: (computed.append(sum(c.length for c in chunks)), plain_run(chunks))[1]
    slow = Late(5)
    engine.submit(request("slow", random_prompt(9), LONG, mask=slow))
    engine.submit(request("free", random_prompt(9, 1), LONG))
    steps = [engine.step() for _ in range(LONG.max_new_tokens)]
    assert [len(ids_of([s for s in some if s.sequence_id == "free"])) for some in steps] == [1] * len(steps)
    assert 0 < len(slow.accepted) < LONG.max_new_tokens / 2
    assert sum(map(bool, slow.waits)) <= len(slow.accepted) + 1, "waited for once for each token"
    drain(engine)
    # both prompts, and all sampled tokens but the last of each
    assert sum(computed) == 2 * 9 + 2 * (LONG.max_new_tokens - 1)


def test_guesses_wait_with_their_logits():
    """Masks late in the middle of guesses: the tokens and the count of guesses are as without."""

    class Cycle(Late):
        """Three tokens in turn, which n-grams guess."""

        def allowed(self):
            super().allowed()
            return [token == 10 + self.taken % 3 for token in range(VOCAB_SIZE)]

    def asked(late):
        return [
            request("a", random_prompt(12), LONG, mask=Cycle(late)),
            request("b", random_prompt(9, 1), LONG, mask=Late(late)),
        ]

    outcomes = []
    for late in (0, 1, 4):
        engine = make_engine(tiny_model("llama"), context_length=CONTEXT_LENGTH, drafter=NgramDrafter())
        for one in asked(late):
            engine.submit(one)
        steps = drain(engine)
        usage = {name: some[-1].report.usage for name, some in steps.items()}
        outcomes.append(({name: ids_of(some) for name, some in steps.items()}, usage["a"].accepted_tokens))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][1] > 10
    assert outcomes[0][0] == run(engine_for(), *asked(0))


@pytest.mark.parametrize("options", [LONG, GenerationOptions(seed=7, max_new_tokens=24)])
def test_a_draft_model_and_a_prefix_cache_beside_late_masks(options):
    """Twice the same requests, the second time from the cache; one of them cancelled while it is held."""
    expected = run(engine_for(), *requests(0, options))
    draft = make_draft(tiny_model("llama"), context_length=CONTEXT_LENGTH, kv_limit_bytes=None)
    engine = make_engine(
        tiny_model("llama"), context_length=CONTEXT_LENGTH, drafter=draft, prefix_cache_bytes=1 << 30
    )
    for late in (2, 3):
        assert run(engine, *requests(late, options)) == expected
        engine.submit(request("gone", random_prompt(20), options, mask=Late(10**9)))
        for _ in range(4):
            engine.step()
        engine.cancel("gone")
        drain(engine)
    assert draft._runner.budget.used_bytes == 0


def test_little_memory_and_late_masks():
    """Preempted while it is held: its logits are computed again, its mask is not asked twice for one token."""
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    long = LONG.replace(max_new_tokens=300)
    expected = run(engine_for(), *requests(0, long))
    engine = engine_for(kv_limit_bytes=3 * block)
    several = requests(2, long)
    assert run(engine, *several) == expected
    assert several[0].mask.accepted == expected["a"]


def test_cancelled_while_it_is_held():
    engine = engine_for()
    engine.submit(request("slow", random_prompt(9), LONG, mask=Late(10**9)))
    for _ in range(3):
        engine.step()
    engine.cancel("slow")
    steps = engine.step()
    assert [step.finish_reason for step in steps] == ["cancelled"]
    assert not engine.has_work()
    assert engine.stats()["kv_used_bytes"] == 0


def test_an_interruption_while_it_is_held():
    """Ctrl-C as a mask is waited for: the logits are computed again, and the tokens are the same."""

    class Interrupted(Late):
        interrupts = 1

        def ready(self, seconds):
            if self.taken == 3 and self.asked == 1 and self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return super().ready(seconds)

    expected = run(engine_for(), request("a", random_prompt(9), LONG, mask=Late(0)))
    engine = engine_for()
    mask = Interrupted(3)
    engine.submit(request("a", random_prompt(9), LONG, mask=mask))
    ids = []
    while engine.has_work():
        try:
            ids += ids_of(engine.step())
        except KeyboardInterrupt:
            assert mask.interrupts == 0
    assert ids == expected["a"]
    assert mask.interrupts == 0


def test_a_mask_that_cannot_say_whether_it_is_ready_is_asked():
    class Broken(Late):
        def ready(self, seconds):
            raise ValueError("confused")

        def allowed(self):
            raise ValueError("the grammar is confused")

    engine = engine_for()
    engine.submit(request("broken", random_prompt(9), LONG, mask=Broken(0)))
    engine.submit(request("fine", random_prompt(9, 1), LONG))
    steps = drain(engine)
    assert "the grammar is confused" in str(steps["broken"][-1].error)
    assert len(ids_of(steps["fine"])) == LONG.max_new_tokens
