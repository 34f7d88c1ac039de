"""A chat goes on whatever happens to one of its answers, and what is kept is what was shown."""

from __future__ import annotations

import random
import subprocess
import sys
import weakref

import pytest

from chat.chatting import (
    FailingArchive,
    make_archive,
    make_config,
    make_model,
    make_session,
    run,
    said,
    stored,
)
from fakes import FakeClock
from llm_local.chat.session import ChatSession
from llm_local.conversations.records import StoredMessage
from llm_local.conversations.transcript import Transcript
from llm_local.errors import (
    ContextLengthExceeded,
    ConversationNotFound,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    ModelNotFound,
    StorageError,
)
from llm_local.events import ContextTrimmed, Delta, Finish
from llm_local.messages import Message

END = 256


def interrupt(reply, after):
    """Cancel an answer after so many pieces of text."""
    pieces = 0
    for event in reply:
        pieces += isinstance(event, Delta)
        if pieces == after:
            reply.cancel()
            pieces += 1
    return reply.completion


def test_a_session_needs_no_heavy_library():
    code = "import sys, llm_local.chat.command_table as t; sys.exit(bool({'torch','numpy','rich'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_second_question_is_asked_with_the_first_answer(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("Hi!", "Fine.", archive=archive)
    assert session.conversation is None
    assert run(session.ask("Hello")).text == "Hi!"
    run(session.ask("How are you?"))
    assert said(session) == [
        ("user", "Hello"),
        ("assistant", "Hi!"),
        ("user", "How are you?"),
        ("assistant", "Fine."),
    ]
    assert session.prepared.prompt_text.count("<|im_start|>") == 4
    assert "Hi!<|im_end|>" in session.prepared.prompt_text
    assert [one[:2] for one in stored(archive, session)] == said(session)
    facts = archive.messages(session.conversation.id)[-1].facts
    assert (facts.model, facts.finish_reason) == ("scripted", "stop")
    assert facts.seed is not None
    assert facts.usage.completion_tokens == len("Fine.") + 1


def test_a_question_is_stored_before_it_is_answered(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("Hi!", archive=archive)
    session.ask("Hello")
    assert stored(archive, session) == [("user", "Hello", "complete")]


def test_drafts_are_stored_once_a_second_at_most(tmp_path):
    archive, clock = make_archive(tmp_path), FakeClock()
    session = make_session("abcdef", archive=archive, clock=clock)
    seen_at = []
    for event in session.ask("Go"):
        if isinstance(event, Delta):
            seen_at.append(stored(archive, session)[1:])
            clock.advance(0.6)
    assert seen_at[0] == seen_at[1] == []
    assert seen_at[2:5] == [
        [("assistant", "abc", "interrupted")],
        [("assistant", "abc", "interrupted")],
        [("assistant", "abcde", "interrupted")],
    ]
    assert stored(archive, session)[1:] == [("assistant", "abcdef", "complete")]


def test_what_is_refused_changes_nothing(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("Hi!", archive=archive, model=make_model("Hi!", context_length=200))
    run(session.ask("Hello"))
    before = session.entries, stored(archive, session)
    for text, error in (
        ("", InvalidRequest),
        ("  ", InvalidRequest),
        ("\ud800", InvalidRequest),
        ("x" * 500, ContextLengthExceeded),
    ):
        with pytest.raises(error):
            session.ask(text)
        with pytest.raises(error):
            session.edit_last(text)
    assert (session.entries, stored(archive, session)) == before


@pytest.mark.parametrize("seed", range(12))
def test_a_cancelled_answer_keeps_its_part_and_the_next_turn_works(tmp_path, seed):
    text, after = "The quick brown fox", random.Random(seed).randrange(1, 19)
    archive = make_archive(tmp_path)
    session = make_session(text, "Yes.", archive=archive)
    completion = interrupt(session.ask("Go"), after)
    assert completion.finish_reason == "cancelled"
    assert completion.text == text[:after]
    assert stored(archive, session)[1] == ("assistant", text[:after], "interrupted")
    run(session.ask("And now?"))
    assert said(session)[1:] == [("assistant", text[:after]), ("user", "And now?"), ("assistant", "Yes.")]
    assert f"{text[:after]}<|im_end|>" in session.prepared.prompt_text


@pytest.mark.parametrize("how", ["close", "next question", "leave the block", "KeyboardInterrupt"])
def test_an_answer_that_nobody_reads_on_keeps_its_part(tmp_path, how):
    archive = make_archive(tmp_path)
    session = make_session("abcdef", "Yes.", archive=archive)
    reply = session.ask("Go")
    while not isinstance(next(reply), Delta):
        pass
    if how == "close":
        reply.close()
        reply.close()
    elif how == "leave the block":
        with reply:
            pass
    elif how == "KeyboardInterrupt":
        engine = session.model.engine
        step, engine.step = engine.step, lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            next(reply)
        engine.step = step
    run(session.ask("And now?"))
    assert said(session) == [("user", "Go"), ("assistant", "a"), ("user", "And now?"), ("assistant", "Yes.")]
    assert stored(archive, session)[1] == ("assistant", "a", "interrupted")
    assert not session.model.engine.has_work()


def test_an_answer_stopped_at_once_is_told_and_not_shown_to_the_model(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("never", "Yes.", "Again.", archive=archive)
    reply = session.ask("First")
    reply.cancel()
    assert run(reply).finish_reason == "cancelled"
    assert any("/retry" in notice for notice in reply.notices)
    assert stored(archive, session)[1] == ("assistant", "", "interrupted")
    run(session.ask("Second"))
    assert "First" not in session.prepared.prompt_text
    session.undo()
    run(session.regenerate())
    assert said(session) == [("user", "First"), ("assistant", "Again.")]
    assert stored(archive, session)[1] == ("assistant", "Again.", "complete")


def test_a_failure_in_the_middle_keeps_the_part(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session([*b"ab", EngineError("It broke.")], "Yes.", archive=archive)
    reply = session.ask("Go")
    with pytest.raises(EngineError):
        run(reply)
    assert reply.completion is None
    assert reply.is_over
    assert stored(archive, session)[1] == ("assistant", "ab", "interrupted")
    run(session.ask("And now?"))
    assert said(session)[-1] == ("assistant", "Yes.")


def test_the_stream_has_one_finish_and_it_is_the_last():
    events = list(make_session("Hi!").ask("Hello"))
    assert [isinstance(event, Finish) for event in events].count(True) == 1
    assert isinstance(events[-1], Finish)


def test_another_answer_takes_the_place_of_the_first_when_it_is_there(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", "Three.", archive=archive)
    run(session.ask("Go"))
    reply = session.regenerate()
    while not isinstance(next(reply), Delta):
        pass
    assert said(session)[1] == ("assistant", "One.")
    assert stored(archive, session)[1] == ("assistant", "One.", "complete")
    run(reply)
    assert said(session)[1:] == [("assistant", "Two.")]
    assert stored(archive, session)[1:] == [("assistant", "Two.", "complete")]
    reply = session.regenerate()
    reply.cancel()
    run(reply)
    assert any("stays" in notice for notice in reply.notices)
    assert stored(archive, session)[1:] == [("assistant", "Two.", "complete")]


def test_regenerating_without_chance_says_so():
    session = make_session("One.", "One.", flags={"temperature": 0.0})
    run(session.ask("Go"))
    assert any("chance" in notice for notice in session.regenerate().notices)


def test_an_edited_question_takes_the_place_of_the_last(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", "Three.", archive=archive)
    run(session.ask("a"))
    run(session.ask("b"))
    run(session.edit_last("c"))
    assert said(session) == [("user", "a"), ("assistant", "One."), ("user", "c"), ("assistant", "Three.")]
    assert [one[:2] for one in stored(archive, session)] == said(session)


def test_undo_drops_a_question_with_its_answer(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", archive=archive)
    run(session.ask("a"))
    run(session.ask("b"))
    assert session.undo() == Message("user", "b")
    assert said(session) == [("user", "a"), ("assistant", "One.")]
    session.undo()
    assert stored(archive, session) == []
    for again in (session.undo, session.regenerate, lambda: session.edit_last("x")):
        with pytest.raises(InvalidRequest, match="no question"):
            again()


def test_an_interrupted_answer_goes_on_where_it_was(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("The quick brown fox", " fox jumps.", "more", archive=archive)
    interrupt(session.ask("Go"), 15)
    run(session.continue_reply())
    assert session.prepared.prompt_text.endswith("<|im_start|>assistant\nThe quick brown")
    assert said(session)[1:] == [("assistant", "The quick brown fox jumps.")]
    assert stored(archive, session)[1:] == [("assistant", "The quick brown fox jumps.", "complete")]
    with pytest.raises(InvalidRequest, match="complete"):
        session.continue_reply()


def test_an_answer_that_was_cut_at_its_limit_goes_on():
    session = make_session("abcdef", "defgh", flags={"max_new_tokens": 3})
    assert run(session.ask("Go")).finish_reason == "length"
    session.set_option("max_new_tokens", "100")
    run(session.continue_reply())
    assert said(session)[1] == ("assistant", "abcdefgh")


def test_a_continuation_that_is_stopped_keeps_both_parts(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("abcdef", "cdef", "x", archive=archive)
    interrupt(session.ask("Go"), 2)
    interrupt(session.continue_reply(), 1)
    assert stored(archive, session)[1] == ("assistant", "abc", "interrupted")
    reply = session.continue_reply()
    reply.cancel()
    run(reply)
    assert stored(archive, session)[1:] == [("assistant", "abc", "interrupted")]


def test_nothing_and_a_constrained_answer_cannot_go_on():
    session = make_session("abcdef", flags={"max_new_tokens": 3})
    with pytest.raises(InvalidRequest, match="no answer"):
        session.continue_reply()
    run(session.ask("Go"))
    session._choices = session._choices.changed("format", "json")
    with pytest.raises(InvalidRequest, match="constraint"):
        session.continue_reply()
    assert said(session)[1] == ("assistant", "abc")


def test_the_system_prompt_stands_first_and_can_change(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", "Three.", archive=archive, flags={"system_prompt": "Be brief."})
    assert session.conversation is None
    run(session.ask("a"))
    assert said(session)[0] == ("system", "Be brief.")
    facts = session.entries[-1].facts
    session.set_system("Be long.")
    run(session.ask("b"))
    assert session.prepared.prompt_text.startswith("<|im_start|>system\nBe long.")
    session.set_system(None)
    assert session.system_prompt is None
    assert [one[:2] for one in stored(archive, session)] == said(session)
    assert archive.messages(session.conversation.id)[1].facts == facts
    session.set_system("Third.")
    session.new()
    assert said(session) == [("system", "Third.")]
    with pytest.raises(InvalidRequest):
        session.set_system("\ud800")
    assert session.system_prompt == "Third."


def test_the_model_sees_fifty_turns_and_the_archive_keeps_all(tmp_path):
    archive = make_archive(tmp_path)
    model = make_model(*["ok"] * 53, context_length=100_000)
    session = make_session(archive=archive, model=model, flags={"system_prompt": "S"})
    notices = []
    for number in range(53):
        reply = session.ask(f"question {number:02d}")
        run(reply)
        notices.append(reply.notices)
    assert [bool(one) for one in notices] == [False] * 50 + [True, False, False]
    assert "50 turns" in notices[50][0]
    prompt = session.prepared.prompt_text
    assert prompt.startswith("<|im_start|>system\nS")
    assert prompt.count("<|im_start|>user") == 43
    assert "question 09" not in prompt
    assert "question 10" in prompt
    assert session.num_turns == 53
    assert len(archive.messages(session.conversation.id)) == 107


def test_what_does_not_fit_the_window_is_left_out_and_announced():
    session = make_session(model=make_model(*["a" * 40] * 5, context_length=400))
    events = [list(session.ask("q" * 60)) for _ in range(5)]
    trimmed = [one for one in events[-1] if isinstance(one, ContextTrimmed)]
    assert not any(isinstance(one, ContextTrimmed) for one in events[0])
    assert trimmed[0].num_messages >= 2
    assert events[-1][0] == trimmed[0]
    assert session.num_turns == 5


def test_options_are_read_checked_and_used():
    session = make_session("abcdef", "abcdef")
    assert session.set_option("max_tokens", "2") == "2"
    assert session.set_option("temperature", "0") == "0.0"
    completion = run(session.ask("Go"))
    assert (completion.text, completion.finish_reason) == ("ab", "length")
    assert session.options.greedy
    assert session.chosen == {"max_new_tokens", "temperature"}
    session.set_option("max-new-tokens", "default")
    assert run(session.ask("Go")).text == "abcdef"
    session.set_option("stop", '["x", "y"]')
    assert session.options.stop == ("x", "y")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "11"),
        ("temperature", "warm"),
        ("temperature", "nan"),
        ("top_k", "1.5"),
        ("max_new_tokens", "0"),
        ("seed", "9" * 30),
        ("seed", "9" * 5000),
        ("stop", "[1]"),
        ("stop", "[" * 100_000),
        ("think", "perhaps"),
        ("format", "yaml"),
        ("format", '{"type": '),
        ("nothing", "1"),
        ("top_logprobs", "3"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_and_nothing_changes(name, text):
    session = make_session()
    before = session.options
    with pytest.raises(InvalidRequest):
        session.set_option(name, text)
    assert session.options == before


def test_thinking_is_refused_at_once_by_a_model_that_has_no_switch():
    session = make_session("Hi!")
    with pytest.raises(InvalidRequest, match="cannot be switched"):
        session.set_option("think", "on")
    assert run(session.ask("Hello")).text == "Hi!"


def test_a_switch_keeps_the_conversation_and_the_choices(tmp_path):
    archive = make_archive(tmp_path)
    other = make_model("Two.", ref="other", defaults={"temperature": 0.1})
    session = make_session("One.", archive=archive, open_model={"other": other}.__getitem__)
    session.set_option("top_k", "7")
    run(session.ask("a"))
    assert session.context_used is not None
    assert session.switch("other") == ()
    assert session.context_used is None
    assert (session.options.temperature, session.options.top_k) == (0.1, 7)
    run(session.ask("b"))
    assert "One.<|im_end|>" in session.prepared.prompt_text
    assert archive.get(session.conversation.id).model == "other"
    assert [one.facts.model for one in session.entries if one.facts] == ["scripted", "other"]


def test_an_unknown_model_leaves_the_old_one():
    def open_model(ref):
        raise ModelNotFound(f"No {ref}.")

    session = make_session("Hi!", open_model=open_model)
    with pytest.raises(ModelNotFound):
        session.switch("nothing")
    assert run(session.ask("Hello")).text == "Hi!"
    with pytest.raises(InvalidRequest, match="cannot switch"):
        make_session("Hi!").switch("other")


def too_large(need, have):
    return InsufficientMemory(f"Needs {need}, has {have}.", need_bytes=need, have_bytes=have)


def test_the_old_model_is_closed_first_only_where_both_do_not_fit():
    opened, alive = [], []

    def open_model(ref):
        opened.append(ref)
        alive.append(old() is not None)
        if len(opened) == 1:
            raise too_large(150, 60)
        return make_model("Two.", ref=ref)

    session = make_session("One.", open_model=open_model)
    run(session.ask("a"))
    old = weakref.ref(session.model.engine)
    notices = session.switch("other")
    assert opened == ["other", "other"]
    assert alive == [True, False]
    assert "closed first" in notices[0]
    assert run(session.ask("a")).text == "Two."


def test_a_model_that_can_never_fit_closes_nothing():
    session = make_session("One.", open_model=lambda ref: (_ for _ in ()).throw(too_large(1000, 60)))
    model = session.model
    with pytest.raises(InsufficientMemory):
        session.switch("other")
    assert session.model is model


@pytest.mark.parametrize("failure", [too_large(150, 120), KeyboardInterrupt()])
def test_the_old_model_is_opened_again_when_closing_it_did_not_help(failure):
    opened = []

    def open_model(ref):
        opened.append(ref)
        if ref == "other":
            raise too_large(150, 60) if len(opened) == 1 else failure
        return make_model("Back.", ref=ref)

    session = make_session("One.", open_model=open_model)
    with pytest.raises(type(failure)):
        session.switch("other")
    assert opened == ["other", "other", "scripted"]
    assert run(session.ask("a")).text == "Back."


def test_without_any_model_the_chat_says_so_and_can_open_one():
    def open_model(ref):
        if ref == "third":
            return make_model("Third.", ref=ref)
        if ref == "scripted":
            raise ModelNotFound("It is gone.")
        raise too_large(150, 60)

    session = make_session("One.", open_model=open_model)
    with pytest.raises(Exception, match=r"neither can scripted again"):
        session.switch("other")
    with pytest.raises(InvalidRequest, match="No model is open"):
        session.ask("a")
    with pytest.raises(InsufficientMemory):
        session.switch("other")
    assert "no model is open" in session.model.generator.runs_as
    assert said(session) == []
    session.switch("third")
    assert run(session.ask("a")).text == "Third."


def test_a_choice_the_other_model_cannot_keep_is_dropped_and_told():
    session = make_session("One.", open_model=lambda ref: make_model("Two.", ref=ref))
    session._choices = session._choices.changed("think", "on")
    notices = session.switch("other")
    assert "think is back at its default" in notices[0]
    assert session.options.think == "default"


def test_a_stored_conversation_goes_on(tmp_path):
    archive = make_archive(tmp_path)
    first = make_session("One.", "Two.", archive=archive, flags={"system_prompt": "S"})
    run(first.ask("a"))
    interrupt(first.ask("b"), 2)
    model = make_model("Three.", ref="other")
    second = ChatSession(model, make_config(system_prompt="not this one"), archive=archive)
    notices = second.open(first.conversation.id[:8])
    assert "scripted" in notices[0]
    assert second.entries == first.entries
    run(second.ask("c"))
    assert second.conversation.id == first.conversation.id
    assert [one[:2] for one in stored(archive, second)] == said(second)
    assert "Tw<|im_end|>" in second.prepared.prompt_text
    with pytest.raises(ConversationNotFound):
        second.open("ffffffff")
    assert second.num_turns == 3


def test_a_fork_goes_its_own_way(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", archive=archive)
    with pytest.raises(InvalidRequest, match="nothing to fork"):
        session.fork()
    run(session.ask("a"))
    old = session.conversation.id
    copy = session.fork()
    run(session.ask("b"))
    assert copy.id == session.conversation.id != old
    assert copy.forked_from == old
    assert len(archive.messages(old)) == 2
    assert len(archive.messages(copy.id)) == 4


def test_without_an_archive_everything_but_the_stored_works():
    session = make_session("One.", "Two.")
    run(session.ask("a"))
    run(session.ask("b"))
    assert session.undo().content == "b"
    assert session.conversation is None
    assert not session.is_stored
    for act in (session.fork, lambda: session.rename("x"), lambda: session.open("abcd")):
        with pytest.raises(InvalidRequest, match="--no-history"):
            act()


@pytest.mark.parametrize("when", ["from the start", "while it answers", "before the second turn"])
def test_a_full_disk_never_stops_the_chat_and_is_made_up_for(tmp_path, when):
    archive = FailingArchive(make_archive(tmp_path))
    session = make_session("One.", "Two.", "Three.", archive=archive)
    archive.full = when == "from the start"
    reply = session.ask("a")
    for _ in reply:
        archive.full = archive.full or when == "while it answers"
    notices = list(reply.notices)
    archive.full = True
    reply = session.ask("b")
    assert run(reply).text == "Two."
    notices += reply.notices
    assert len([one for one in notices if "not saved: The disk is full." in one]) == 1
    assert not session.is_stored
    archive.full = False
    reply = session.ask("c")
    run(reply)
    assert "This conversation is saved again." in reply.notices
    assert session.is_stored
    assert [one[:2] for one in stored(archive, session)] == said(session)
    assert archive.messages(session.conversation.id)[1].facts is not None


def test_a_conversation_that_somebody_deletes_is_stored_anew(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", archive=archive)
    run(session.ask("a"))
    old = session.conversation.id
    archive.store.delete(archive.owner, old)
    reply = session.ask("b")
    run(reply)
    assert reply.notices == ()
    assert session.conversation.id != old
    assert [one[:2] for one in stored(archive, session)] == said(session)


def test_what_another_program_appends_is_not_lost(tmp_path):
    archive = make_archive(tmp_path)
    session = make_session("One.", "Two.", archive=archive)
    run(session.ask("a"))
    archive.append(session.conversation.id, Message("user", "from elsewhere"))
    run(session.ask("b"))
    assert [one[1] for one in stored(archive, session)] == ["a", "One.", "from elsewhere", "b", "Two."]


def test_what_is_not_stored_is_not_left_unasked(tmp_path):
    archive = FailingArchive(make_archive(tmp_path))
    session = make_session("One.", "Two.", "Three.", archive=archive)
    run(session.ask("a"))
    first = session.conversation.id
    archive.full = True
    run(session.ask("b"))
    for leave in (session.new, lambda: session.open(first)):
        session._insists = False
        with pytest.raises(StorageError, match="not saved"):
            leave()
        assert session.num_turns == 2
    session.load(Transcript(messages=(StoredMessage(0, Message("user", "c")),)))
    assert said(session) == [("user", "c")]
    archive.full = False
    run(session.regenerate())
    assert session.conversation.id != first
    assert len(archive.messages(first)) == 2


def test_leaving_tries_a_last_time_and_says_what_is_lost(tmp_path):
    archive = FailingArchive(make_archive(tmp_path))
    session = make_session("One.", "Two.", archive=archive)
    assert session.leave() == ()
    run(session.ask("a"))
    archive.full = True
    run(session.ask("b"))
    assert "not saved" in session.leave()[0]
    archive.full = False
    assert session.leave() == ("This conversation is saved again.",)
    assert [one[:2] for one in stored(archive, session)] == said(session)
    assert session.leave() == ()
    assert make_session().leave() == ()


def test_a_fork_of_what_is_stored_in_part_has_all_of_it(tmp_path):
    archive = FailingArchive(make_archive(tmp_path))
    session = make_session("One.", "Two.", archive=archive)
    run(session.ask("a"))
    archive.full = True
    run(session.ask("b"))
    archive.full = False
    session.fork()
    assert [one[:2] for one in stored(archive, session)] == said(session)
