"""Whatever is done in whatever order, session and archive agree, and the prompt is what the session shows."""

from __future__ import annotations

import contextlib
import random

import pytest

from chat.chatting import FailingArchive, make_archive, make_model, make_session, run, said, stored
from llm_local.errors import EngineError, InvalidRequest, StorageError
from llm_local.events import Delta


def replies(rng, count):
    """Texts, some of which fail in the middle."""
    for number in range(count):
        text = [*f"answer {number} of the model".encode()]
        yield (
            [*text[: rng.randrange(1, 20)], EngineError("It broke.")] if rng.random() < 0.15 else [*text, 256]
        )


def read(reply, rng):
    """To the end, or to some point where it is cancelled, or left."""
    how = rng.choice(["whole", "whole", "cancel", "leave", "at once"])
    if how == "at once":
        reply.cancel()
    stop = rng.randrange(1, 15)
    try:
        for event in reply:
            stop -= isinstance(event, Delta)
            if how == "cancel" and stop == 0:
                reply.cancel()
            if how == "leave" and stop == 0:
                return
    except EngineError:
        pass


def act(session, rng, number):
    """One thing that people do; what is refused is refused as a whole."""
    ended = session._reply is None or session._reply.is_over
    before = session.entries
    choice = rng.choice(
        ["ask", "ask", "ask", "regen", "edit", "undo", "continue", "system", "fork", "open", "new"]
    )
    try:
        if choice == "ask":
            read(session.ask(f"question {number}"), rng)
        elif choice == "regen":
            read(session.regenerate(), rng)
        elif choice == "edit":
            read(session.edit_last(f"edited {number}"), rng)
        elif choice == "continue":
            read(session.continue_reply(), rng)
        elif choice == "undo":
            session.undo()
        elif choice == "system":
            session.set_system(rng.choice([None, f"System {number}."]))
        elif choice == "fork":
            session.fork()
        elif choice == "open" and session.conversation is not None:
            session.open(session.conversation.id)
        elif choice == "new" and rng.random() < 0.2:
            session.new()
    except InvalidRequest:
        # the part of an answer that nobody read to its end is kept then, whatever comes
        assert session.entries == before or not ended


@pytest.mark.parametrize("seed", range(15))
def test_session_and_archive_agree(tmp_path, seed):
    rng = random.Random(seed)
    archive = make_archive(tmp_path)
    session = make_session(model=make_model(*replies(rng, 200), context_length=100_000), archive=archive)
    for number in range(25):
        act(session, rng, number)
        roles = [one.role for one in session.messages if one.role != "system"]
        assert all(one != two for one, two in zip(roles, roles[1:], strict=False))
        # of an answer that nobody reads any more the end comes with the next question
        if session.conversation is not None and (session._reply is None or session._reply.is_over):
            shown = [
                (*pair, entry.status) for pair, entry in zip(said(session), session.entries, strict=True)
            ]
            assert stored(archive, session) == shown
    with contextlib.suppress(EngineError):
        run(session.ask("last question"))
    assert session.prepared.prompt_text.count("last question") == 1
    assert not session.model.engine.has_work()


@pytest.mark.parametrize("seed", range(10))
def test_a_disk_that_fails_now_and_then_loses_nothing(tmp_path, seed):
    rng = random.Random(seed)
    archive = FailingArchive(make_archive(tmp_path))
    session = make_session(model=make_model(*replies(rng, 200), context_length=100_000), archive=archive)
    for number in range(25):
        archive.full = rng.random() < 0.3
        with contextlib.suppress(StorageError):  # what somebody asks of the archive itself
            act(session, rng, number)
    archive.full = False
    with contextlib.suppress(EngineError):
        run(session.ask("last question"))
    shown = [(*pair, entry.status) for pair, entry in zip(said(session), session.entries, strict=True)]
    assert stored(archive, session) == shown
    assert session.is_stored
