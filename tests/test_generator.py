"""From messages to events: one path for all, and the stream's laws."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from fakes import ByteTokenizer, ScriptedEngine
from llm_local.errors import ContextLengthExceeded, InvalidRequest, NumericalError
from llm_local.events import ContextTrimmed, Delta, Finish, Progress, fold
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.options import GenerationOptions

END = ByteTokenizer.end_token
HELLO = [Message("user", "Hello")]


def byte_ids(text):
    return list(text.encode())


def make_generator(*replies, context_length=256, defaults=None, tokenizer=None):
    engine = ScriptedEngine()
    for reply in replies:
        engine.enqueue(reply)
    loaded = SimpleNamespace(
        tokenizer=tokenizer or ByteTokenizer(),
        info=SimpleNamespace(context_length=context_length),
        end_token_ids=frozenset({END}),
    )
    return TextGenerator(loaded, defaults=defaults, engine=engine), engine


def test_the_stream_has_its_shape_and_folds_to_the_whole():
    """Progress* Delta* Finish; joined deltas are the text, joined ids are all sampled ids."""
    ids = [*byte_ids("héllo ✓"), END]
    generator, _ = make_generator(ids, ids)
    events = list(generator.generate_chat_stream(HELLO))
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Progress, Delta, Finish].index)
    assert kinds.count(Finish) == 1
    completion = generator.generate_chat(HELLO)
    assert completion.text == "héllo ✓" == fold(events).text
    assert completion.token_ids == tuple(ids)
    assert completion.finish_reason == "stop"
    assert completion.usage.completion_tokens == len(ids)


def test_text_goes_to_the_model_as_it_is():
    generator, engine = make_generator(byte_ids("x"))
    completion = generator.generate_text("a <b>\n")
    assert engine.requests[0].prompt_ids == tuple(byte_ids("a <b>\n"))
    assert completion.text == "x"


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it():
    """Also when tokens split it; what was sampled is counted, what comes after is not generated."""
    generator, engine = make_generator(byte_ids("one STOP two"))
    completion = generator.generate_chat(HELLO, GenerationOptions(stop=("STOP",)))
    assert completion.text == "one "
    assert (completion.finish_reason, completion.stop) == ("stop", "STOP")
    assert completion.usage.completion_tokens == len("one STOP") == len(completion.token_ids)
    assert not engine.has_work()


def test_the_fallback_transcript_brings_its_own_stop():
    generator, engine = make_generator(byte_ids(" Hi!\nUser: and so on"))
    prepared = generator.prepare_chat(HELLO)
    assert prepared.prompt_text == "User: Hello\nAssistant:"
    assert prepared.notices
    assert fold(generator.stream(prepared)).text == " Hi!"


def test_cancel_ends_in_cancelled_and_keeps_what_was_said():
    generator, engine = make_generator(byte_ids("abcdefgh"))
    stream = generator.generate_chat_stream(HELLO)
    events = []
    for event in stream:
        events.append(event)
        if isinstance(event, Delta) and event.text == "c":
            stream.cancel()
    assert fold(events).text == "abc"
    assert events[-1].reason == "cancelled"
    assert not engine.has_work()


@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_stream_nobody_reads_frees_its_sequence(read):
    """Closed, left by its context manager, or forgotten: the engine has no work left."""
    for leave in ("close", "context", "forget"):
        generator, engine = make_generator(byte_ids("abcdefgh"))
        stream = generator.generate_chat_stream(HELLO)
        for _ in range(read):
            next(stream)
        if leave == "close":
            stream.close()
            stream.close()
        elif leave == "context":
            with stream:
                pass
        else:
            del stream
            gc.collect()
            engine.step()
        assert not engine.has_work(), leave


def test_two_streams_read_in_turns_each_get_their_own():
    generator, engine = make_generator(byte_ids("first"), byte_ids("second"))
    one, two = generator.generate_chat_stream(HELLO), generator.generate_chat_stream(HELLO)
    assert engine.stats()["running"] == 2
    assert fold(two).text == "second"
    assert fold(one).text == "first"


def test_a_failure_is_raised_from_the_iterator_after_what_came_before():
    generator, engine = make_generator([*byte_ids("ab"), NumericalError("not a number")])
    seen = []
    with pytest.raises(NumericalError):
        for event in generator.generate_chat_stream(HELLO):
            seen.append(event)
    assert [event.text for event in seen if isinstance(event, Delta)] == ["a", "b"]
    assert not engine.has_work()


def test_logprobs_come_with_the_deltas():
    generator, _ = make_generator(byte_ids("hé"))
    completion = generator.generate_chat(HELLO, GenerationOptions(logprobs=True))
    assert [entry.token_id for entry in completion.logprobs] == byte_ids("hé")


def test_defaults_apply_only_without_options():
    generator, engine = make_generator(
        byte_ids("abcdef"), byte_ids("abcdef"), defaults=GenerationOptions(max_new_tokens=2)
    )
    assert generator.generate_chat(HELLO).text == "ab"
    assert generator.generate_chat(HELLO, GenerationOptions(max_new_tokens=4)).text == "abcd"


def test_a_prompt_that_does_not_fit_is_refused_with_the_three_numbers():
    generator, engine = make_generator(context_length=100)
    with pytest.raises(ContextLengthExceeded) as caught:
        generator.prepare_text("x" * 90, GenerationOptions(max_new_tokens=11), reserve_explicit=True)
    error = caught.value
    assert (error.prompt_tokens, error.reserve, error.context_length) == (90, 11, 100)
    for number in ("90", "11", "100"):
        assert number in str(error)
    assert not engine.requests


def test_a_default_cap_shrinks_to_the_window_and_an_explicit_one_does_not():
    generator, _ = make_generator(context_length=100)
    options = GenerationOptions(max_new_tokens=50)
    assert generator.prepare_text("x" * 70, options).options.max_new_tokens == 30
    with pytest.raises(ContextLengthExceeded):
        generator.prepare_text("x" * 70, options, reserve_explicit=True)


def test_the_oldest_turns_are_left_out_only_by_policy_and_never_silently():
    """Whole turns go, oldest first; the system prompt and the last turn stay; the stream says so first."""
    history = [Message("system", "S" * 10)]
    for n in range(6):
        history += [Message("user", f"question {n}"), Message("assistant", f"answer {n}")]
    history += [Message("user", "the last question")]
    generator, engine = make_generator(byte_ids("fine"), context_length=150)
    with pytest.raises(ContextLengthExceeded):
        generator.prepare_chat(history)
    prepared = generator.prepare_chat(history, policy="trim-oldest")
    text = prepared.prompt_text
    assert "S" * 10 in text
    assert "the last question" in text
    kept = [n for n in range(6) if f"question {n}" in text]
    assert kept == list(range(6 - len(kept), 6))
    assert kept == [n for n in range(6) if f"answer {n}" in text]
    assert 0 < len(kept) < 6
    assert prepared.trimmed == ContextTrimmed(
        2 * (6 - len(kept)), len(generator._template.render(history).token_ids) - len(prepared.prompt_ids)
    )
    one_more = [history[0], *history[1 + 2 * (5 - len(kept)) :]]
    room = 150 - 32  # for a reply, at the least
    assert len(generator._template.render(one_more).token_ids) > room - 150 // 4
    events = list(generator.stream(prepared))
    assert events[0] == prepared.trimmed
    assert fold(events).trimmed == prepared.trimmed
    assert len(engine.requests) == 1


def test_what_fits_is_not_trimmed_and_what_cannot_is_refused():
    generator, _ = make_generator(context_length=150)
    assert generator.prepare_chat(HELLO, policy="trim-oldest").trimmed is None
    with pytest.raises(ContextLengthExceeded) as caught:
        generator.prepare_chat([*HELLO, Message("user", "x" * 200)], policy="trim-oldest")
    assert caught.value.prompt_tokens > 200, "the message tells of the whole prompt"


def test_old_turns_go_before_a_reply_is_cut_short():
    generator, _ = make_generator(context_length=800)
    history = [Message("user", "x" * 300), Message("assistant", "y" * 380), *HELLO]
    refusing = generator.prepare_chat(history)
    assert 32 <= refusing.options.max_new_tokens < 100, "it fits, but for a short reply only"
    trimming = generator.prepare_chat(history, policy="trim-oldest")
    assert trimming.trimmed is not None
    assert trimming.options.max_new_tokens >= 100
    alone = generator.prepare_chat([Message("user", "x" * 700)], policy="trim-oldest")
    assert alone.trimmed is None, "where no old turn is left, a short reply is better than none"
    assert 32 <= alone.options.max_new_tokens < 100


@pytest.mark.parametrize("prepare", ["text", "chat"])
def test_nothing_to_answer_is_an_invalid_request(prepare):
    generator, _ = make_generator()
    with pytest.raises(InvalidRequest):
        generator.prepare_text("") if prepare == "text" else generator.prepare_chat([])


def test_a_continuation_keeps_the_space_its_tokenizer_drops_at_the_start_of_a_text():
    """Raw text goes on in mid-sentence; a chat's reply begins its own text."""

    class SpaceDropping(ByteTokenizer):
        def decode(self, token_ids, **options):
            return super().decode(token_ids, **options).removeprefix(" ")

    generator, _ = make_generator(byte_ids(" a time"), byte_ids(" Hello"), tokenizer=SpaceDropping())
    assert generator.generate_text("Once upon").text == " a time"
    assert generator.generate_chat(HELLO).text == "Hello"


def test_sixteen_stop_strings_are_allowed_beside_the_templates_own():
    generator, _ = make_generator(byte_ids("yes\nUser: no"))
    options = GenerationOptions(stop=tuple(f"stop {n}" for n in range(16)))
    assert generator.generate_chat(HELLO, options).text == "yes"


@pytest.mark.parametrize("where", ["text", "chat", "score"])
def test_half_a_surrogate_pair_is_an_invalid_request(where):
    generator, _ = make_generator()
    with pytest.raises(InvalidRequest, match="surrogate"):
        if where == "text":
            generator.prepare_text("a\ud800")
        elif where == "chat":
            generator.prepare_chat([Message("user", "a\ud800")])
        else:
            generator.score("a\ud800")
