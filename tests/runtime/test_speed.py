"""The speed of a request: sums that hold, rates that are the field's, and a sentence that names what took the time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_local.events import Timings, Usage
from llm_local.runtime.speed import speed_breakdown

SECONDS = st.floats(0, 1e6)


@given(st.tuples(SECONDS, SECONDS, SECONDS, SECONDS), st.one_of(st.none(), SECONDS), st.integers(0, 10**6))
def test_the_stages_add_up_to_the_whole(stages, total_s, tokens) -> None:
    speed = speed_breakdown(Usage(tokens, tokens // 2, tokens), Timings(*stages), total_s)
    parts = speed.queued_s + speed.load_s + speed.prefill_s + speed.decode_s + speed.other_s
    assert parts == pytest.approx(speed.total_s)
    assert speed.other_s >= 0
    assert speed.sentence.endswith(".")
    assert speed.sentence.count(". ") == 0, "one sentence"


def test_rates_count_what_was_computed() -> None:
    speed = speed_breakdown(Usage(100, 40, 11), Timings(prefill_s=0.5, decode_s=2.0))
    assert (speed.prefill_tokens_per_s, speed.decode_tokens_per_s) == (120.0, 5.0)
    nothing = speed_breakdown(Usage(100, 100, 1), Timings())
    assert (nothing.prefill_tokens_per_s, nothing.decode_tokens_per_s) == (None, None)


@pytest.mark.parametrize(
    ("usage", "timings", "total_s", "sentence"),
    [
        (
            Usage(30, 0, 421),
            Timings(prefill_s=0.2, decode_s=11.1),
            12.0,
            "Most of the 12.0 s went into writing 421 tokens at 37.8 tokens/s: 11.1 s.",
        ),
        (
            Usage(3900, 0, 1),
            Timings(prefill_s=8.0),
            8.2,
            "Most of the 8.2 s went into reading 3,900 tokens of prompt at 487.5 tokens/s: 8.0 s.",
        ),
        (
            Usage(9, 0, 9),
            Timings(queued_s=20.0, prefill_s=0.1, decode_s=0.4),
            None,
            "Most of the 20.5 s went into waiting for other requests: 20.0 s.",
        ),
        (
            Usage(9, 0, 9),
            Timings(load_s=6.0, prefill_s=0.1, decode_s=0.4),
            None,
            "Most of the 6.5 s went into loading the model, which the next request will find in memory: 6.0 s.",
        ),
        (
            Usage(2100, 2000, 41),
            Timings(prefill_s=0.5, decode_s=0.4),
            0.9,
            "Of the 900 ms, 500 ms went into reading 100 tokens of prompt at 200.0 tokens/s and 400 ms into writing "
            "41 tokens at 100.0 tokens/s; 2,000 of 2,100 tokens of prompt were known and not read again.",
        ),
        (
            Usage(1, 0, 1),
            Timings(prefill_s=0.1, decode_s=0.1),
            3.0,
            "Most of the 3.0 s went into making the request ready and sending the answer: 2.8 s.",
        ),
        (Usage(9, 0, 3), Timings(prefill_s=0.02, decode_s=0.03), None, "The whole request took 50 ms."),
        (
            Usage(9, 9, 3, replayed_tokens=3),
            Timings(),
            0.001,
            "Nothing was computed: an equal request was answered before, and its 3 tokens were kept.",
        ),
    ],
)
def test_the_sentence_names_what_took_the_time(usage, timings, total_s, sentence) -> None:
    assert speed_breakdown(usage, timings, total_s).sentence == sentence


def test_the_object_is_all_of_it() -> None:
    found = speed_breakdown(Usage(10, 0, 5), Timings(0.1, 0.2, 0.3, 0.4), 1.5).to_object()
    assert found["other_s"] == 0.5
    assert list(found)[-1] == "sentence"


def test_the_examples_of_the_page_are_real() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    (parameters,) = (mark for mark in test_the_sentence_names_what_took_the_time.pytestmark)
    sentences = [sentence for *_, sentence in parameters.args[1]]
    told = [line.split(" | ")[1].removesuffix(" |") for line in page.splitlines() if line.startswith("| a ")]
    assert len(told) == 5
    assert set(told) <= set(sentences)
