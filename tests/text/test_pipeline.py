"""From ids to deltas: no id lost, no text shown twice, nothing after the stop."""

from __future__ import annotations

import random

import pytest

from fakes import ByteTokenizer
from llm_local.events import TokenLogprob
from llm_local.text.detokenizer import Detokenizer
from llm_local.text.pipeline import TextPipeline
from text.small_tokenizers import TOKENIZERS
from text.test_detokenizer import ATOMS, decode, encode
from text.test_stops import naive

END = ByteTokenizer.end_token


def run(tokenizer, ids, stops=(), logprobs=False):
    """All deltas, and how many of them came before the stop string was found."""
    pipeline, deltas, before = TextPipeline(Detokenizer(tokenizer), stops), [], None
    for place, token_id in enumerate(ids):
        deltas += pipeline.feed(token_id, TokenLogprob(token_id, -float(place)) if logprobs else None)
        if pipeline.stopped and before is None:
            before = len(deltas)
    deltas += pipeline.finish()
    return deltas, before


def text_of(deltas):
    return "".join(delta.text for delta in deltas)


def ids_of(deltas):
    return [token_id for delta in deltas for token_id in delta.token_ids]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_and_ids_are_conserved(name):
    """Random texts and stops on every tokenizer: the text is the reference's, the ids are all ids in order."""
    tokenizer, rng = TOKENIZERS[name](), random.Random(name)
    stopped = 0
    for _ in range(300):
        text = "".join(rng.choices(ATOMS, k=rng.randint(0, 10)))
        ids = encode(tokenizer, text)
        whole = decode(tokenizer, ids)
        stops = (
            [whole[i : i + rng.randint(1, 3)] for i in rng.choices(range(len(whole)), k=2)] if whole else []
        )
        stops.append("".join(rng.choices(ATOMS, k=2)))
        expected, stop = naive(whole, stops)
        deltas, before = run(tokenizer, ids, stops)
        assert text_of(deltas) == expected
        assert ids_of(deltas) == ids
        # a stop that only the end completes (of half a character) is found by finish
        assert before is None or stop is not None
        stopped += before is not None
    assert stopped > 50


def test_no_delta_is_empty_but_the_last():
    """A delta comes when there is text; ids that made none come with the next, or at the very end."""
    ids = [*"a🙂b".encode(), END]
    deltas, _ = run(ByteTokenizer(), ids)
    assert [(delta.text, delta.token_ids) for delta in deltas] == [
        ("a", (97,)),
        ("🙂", tuple("🙂".encode())),
        ("b", (98,)),
        ("", (END,)),
    ]
    assert {delta.channel for delta in deltas} == {"content"}


def test_held_back_text_comes_with_the_ids_that_made_it():
    """Text held for a stop string that did not come keeps its ids, in one delta."""
    deltas, _ = run(ByteTokenizer(), list(b"a<ez"), ["<end>"])
    assert [(delta.text, delta.token_ids) for delta in deltas] == [("a", (97,)), ("<ez", tuple(b"<ez"))]


def test_log_probabilities_stay_with_their_ids():
    """In every delta one log-probability for each id, in order; none when none was given."""
    rng = random.Random(11)
    for _ in range(100):
        ids = [*"".join(rng.choices(ATOMS, k=6)).encode(), END]
        for stops in ((), ("a",), ("🙂", "\n")):
            deltas, _ = run(ByteTokenizer(), ids, stops, logprobs=True)
            for delta in deltas:
                assert [logprob.token_id for logprob in delta.logprobs] == list(delta.token_ids)
            assert [logprob.logprob for delta in deltas for logprob in delta.logprobs] == [
                -float(place) for place in range(len(ids))
            ]
    assert not any(delta.logprobs for delta in run(ByteTokenizer(), ids)[0])


@pytest.mark.parametrize("stop", ["。", "好。", "👩‍👩‍👧", "é"])
def test_a_stop_string_of_many_bytes_is_found_at_its_last_byte(stop):
    """Held-back bytes and held-back beginnings work together: found at once, and not a byte of it shown."""
    pipeline, shown = TextPipeline(Detokenizer(ByteTokenizer()), [stop]), ""
    data = f"ok 你{stop}".encode()
    for byte in data:
        assert not pipeline.stopped
        shown += text_of(pipeline.feed(byte))
        assert "ok 你".startswith(shown)
    assert pipeline.stopped
    assert shown + text_of(pipeline.finish()) == "ok 你"


@pytest.mark.parametrize("text", ["#", "#abc", "ab#", "ab#cd#ef🙂"])
def test_nothing_comes_after_the_stop(text):
    """Tokens sampled before the engine heard of the stop keep their ids but show no text."""
    deltas, before = run(ByteTokenizer(), [*text.encode(), 0xE4, END], ["#"])
    assert text_of(deltas) == text_of(deltas[:before] + deltas[-1:]) == text.split("#")[0]
    assert ids_of(deltas) == [*text.encode(), 0xE4, END]


def test_finish_flushes_both_stages():
    """Half a character and half a stop string are text once the reply is over, in their order."""
    assert text_of(run(ByteTokenizer(), [*b"a<e", 0xF0, 0x9F], ["<end>"])[0]) == "a<e\ufffd"
    assert text_of(run(ByteTokenizer(), list(b"a<e"), ["<end>"])[0]) == "a<e"


def test_a_stop_string_that_the_end_completes_is_still_a_stop():
    """Bytes that become a replacement character at the end may complete a stop string; then it is not shown."""
    pipeline = TextPipeline(Detokenizer(ByteTokenizer()), ["x\ufffd"])
    assert text_of([delta for byte in (*b"ax", 0xF0) for delta in pipeline.feed(byte)]) == "a"
    assert not pipeline.stopped
    assert text_of(pipeline.finish()) == ""
    assert pipeline.stopped


def test_an_empty_reply_has_no_delta():
    """Nothing fed, nothing returned; a second finish returns nothing either."""
    pipeline = TextPipeline(Detokenizer(ByteTokenizer()), ["#"])
    assert pipeline.finish() == []
    pipeline.feed(0xE4)
    assert [delta.token_ids for delta in pipeline.finish()] == [(0xE4,)]
    assert pipeline.finish() == []


def test_it_tells_which_stop_was_found():
    pipeline = TextPipeline(Detokenizer(ByteTokenizer()), ["ab", "c"])
    assert pipeline.stop is None
    pipeline.feed(ord("a"))
    assert pipeline.stop is None
    pipeline.feed(ord("b"))
    assert pipeline.stop == "ab"
