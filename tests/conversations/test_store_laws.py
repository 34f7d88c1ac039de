"""Whatever two owners do in whatever order, the store answers as a few dictionaries would."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from llm_local.conversations.drafts import ReplyDraft
from llm_local.conversations.records import ReplyFacts
from llm_local.conversations.store import ConversationStore
from llm_local.errors import ConversationNotFound, InvalidRequest
from llm_local.events import Usage
from llm_local.messages import Message, ToolCall

OWNERS = ("ada", "bob")
# Words that meet each other, the syntax of queries, and texts that break programs.
WORDS = (
    "tea",
    "Teapot",
    "世界",
    "x",
    "😀",
    "a\0b",
    '"',
    "AND",
    "NOT*",
    "col:tea",
    "(",
    "don't",
    "99% of_it",
    "Ä",
)
texts = st.lists(st.sampled_from(WORDS), min_size=0, max_size=5).map(" ".join)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    reasoning=st.none() | texts,
    tool_calls=st.just(()) | st.just((ToolCall("c1", "look", {"at": ["世界", 1.5, None]}),)),
)
facts = st.none() | st.builds(
    ReplyFacts,
    st.just("tiny"),
    st.sampled_from([None, "stop", "length"]),
    st.just(Usage(3, 1, 2)),
    seed=st.just(7),
)


@dataclass
class Said:
    """What a message should read as."""

    message: Message
    status: str = "complete"
    facts: ReplyFacts | None = None


@dataclass
class Talk:
    """What a conversation should be."""

    id: str
    owner: str
    title: str = ""
    model: str | None = None
    forked_from: str | None = None
    said: list[Said] = field(default_factory=list)

    def add(self, said: Said) -> None:
        """Append, and name the conversation by its first question."""
        self.said.append(said)
        line = " ".join(said.message.content.split())
        if said.message.role == "user" and not self.title:
            self.title = line if len(line) <= 60 else line[:59].rstrip() + "…"


@dataclass
class Writing:
    """A reply that is not settled yet."""

    draft: ReplyDraft
    talk: Talk
    at: int | None
    replaced: list[Said]
    said: Said | None = None


class StoreLaws(RuleBasedStateMachine):
    """The store beside a model of it."""

    talks = Bundle("talks")
    drafts = Bundle("drafts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = ConversationStore.open(self.folder / "talk.db")
        self.known: list[Talk] = []  # the one used last is last

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def used(self, talk: Talk) -> None:
        self.known.remove(talk)
        self.known.append(talk)

    def alive(self, talk: Talk) -> bool:
        if any(talk is one for one in self.known):
            return True
        with pytest.raises(ConversationNotFound):
            self.store.get(talk.owner, talk.id)
        return False

    @initialize(target=talks)
    def begin(self) -> object:
        return multiple(*(self.create(owner, []) for owner in OWNERS))

    @rule(target=talks, owner=st.sampled_from(OWNERS), first=st.lists(messages, max_size=3))
    def create(self, owner: str, first: list[Message]) -> Talk:
        made = self.store.create(owner, messages=first)
        talk = Talk(made.id, owner)
        for message in first:
            talk.add(Said(message))
        self.known.append(talk)
        return talk

    @rule(talk=talks, message=messages, facts=facts)
    def append(self, talk: Talk, message: Message, facts: ReplyFacts | None) -> None:
        if self.alive(talk):
            stored = self.store.append(talk.owner, talk.id, message, facts=facts)
            assert (stored.position, stored.message) == (len(talk.said), message)
            talk.add(Said(message, facts=facts))
            talk.model = facts.model if facts else talk.model
            self.used(talk)

    @rule(target=drafts, talk=talks, back=st.none() | st.integers(0, 3))
    def begin_reply(self, talk: Talk, back: int | None) -> object:
        if not self.alive(talk):
            return multiple()
        at = None if back is None else max(0, len(talk.said) - back)
        draft = self.store.begin_reply(talk.owner, talk.id, model="m", at=at)
        return Writing(draft, talk, at, [] if at is None else talk.said[at:])

    @rule(writing=drafts, message=messages)
    def update(self, writing: Writing, message: Message) -> None:
        if self.alive(writing.talk):
            writing.draft.update(message)
            if writing.at is None:
                self.keep(writing, Said(message, "interrupted"))

    @rule(writing=consumes(drafts), message=messages, facts=facts, whole=st.booleans())
    def settle(self, writing: Writing, message: Message, facts: ReplyFacts | None, whole: bool) -> None:
        end = writing.draft.finish if whole else writing.draft.interrupt
        if not self.alive(writing.talk):
            with pytest.raises(ConversationNotFound):
                end(message, facts)
            return
        stored = end(message, facts)
        if writing.at is not None:
            old = {id(one) for one in writing.replaced}
            kept = writing.talk.said[writing.at :]
            writing.talk.said[writing.at :] = [one for one in kept if id(one) not in old]
        self.keep(writing, Said(message, "complete" if whole else "interrupted", facts))
        assert stored.status == ("complete" if whole else "interrupted")
        assert writing.talk.said[stored.position] is writing.said
        with pytest.raises(RuntimeError):
            writing.draft.discard()

    @rule(writing=consumes(drafts))
    def discard(self, writing: Writing) -> None:
        writing.draft.discard()
        writing.talk.said = [one for one in writing.talk.said if one is not writing.said]

    def keep(self, writing: Writing, said: Said) -> None:
        talk = writing.talk
        places = [place for place, one in enumerate(talk.said) if one is writing.said]
        if places:
            talk.said[places[0]] = said
        else:
            talk.said.append(said)
        writing.said = said
        talk.model = said.facts.model if said.facts else "m"
        self.used(talk)

    @rule(talk=talks, back=st.integers(0, 3), new=st.lists(messages, max_size=2))
    def replace_from(self, talk: Talk, back: int, new: list[Message]) -> None:
        if self.alive(talk):
            position = max(0, len(talk.said) - back)
            if new:
                found = self.store.replace_from(talk.owner, talk.id, position, new)
                assert [one.message for one in found] == new
            else:
                self.store.cut(talk.owner, talk.id, position)
            del talk.said[position:]
            for message in new:
                talk.add(Said(message))
            self.used(talk)

    @rule(talk=talks, beyond=st.integers(1, 3))
    def cut_where_nothing_is(self, talk: Talk, beyond: int) -> None:
        if self.alive(talk):
            with pytest.raises(InvalidRequest):
                self.store.cut(talk.owner, talk.id, len(talk.said) + beyond)

    @rule(target=talks, talk=talks, up_to=st.none() | st.integers(0, 3))
    def fork(self, talk: Talk, up_to: int | None) -> object:
        if not self.alive(talk):
            return multiple()
        up_to = None if up_to is None else min(up_to, len(talk.said))
        made = self.store.fork(talk.owner, talk.id, up_to=up_to)
        copied = [dataclasses.replace(one) for one in talk.said[:up_to]]
        fork = Talk(made.id, talk.owner, talk.title, talk.model, talk.id, copied)
        self.known.append(fork)
        return fork

    @rule(talk=talks, title=texts.filter(str.split), model=st.sampled_from(["m1", "m2"]))
    def rename(self, talk: Talk, title: str, model: str) -> None:
        if self.alive(talk):
            self.store.rename(talk.owner, talk.id, title)
            self.store.set_model(talk.owner, talk.id, model)
            talk.title, talk.model = " ".join(title.split()), model

    @precondition(lambda self: len(self.known) > 1)
    @rule(talk=talks)
    def delete(self, talk: Talk) -> None:
        if self.alive(talk):
            self.store.delete(talk.owner, talk.id)
            self.known.remove(talk)

    @rule(talk=talks)
    def another_owner_sees_nothing(self, talk: Talk) -> None:
        other = OWNERS[1 - OWNERS.index(talk.owner)]
        for attempt in (
            lambda: self.store.get(other, talk.id),
            lambda: self.store.messages(other, talk.id),
            lambda: self.store.append(other, talk.id, Message("user", "x")),
            lambda: self.store.begin_reply(other, talk.id, model="m"),
            lambda: self.store.cut(other, talk.id, 0),
            lambda: self.store.rename(other, talk.id, "x"),
            lambda: self.store.set_model(other, talk.id, "x"),
            lambda: self.store.fork(other, talk.id),
            lambda: self.store.delete(other, talk.id),
            lambda: self.store.list(other, before=talk.id),
        ):
            with pytest.raises(ConversationNotFound) as caught:
                attempt()
            with pytest.raises(ConversationNotFound) as nowhere:
                self.store.get(other, "0" * 32)
            assert str(caught.value) == str(nowhere.value).replace("0" * 32, talk.id)

    @rule(owner=st.sampled_from(OWNERS), text=texts.filter(lambda text: text.replace("\0", " ").split()))
    def search(self, owner: str, text: str) -> None:
        words = text.replace("\0", " ").split()

        def has(content: str) -> bool:
            return all(word.casefold() in content.replace("\0", " ").casefold() for word in words)

        wanted = {
            (talk.id, position, said.message.role)
            for talk in self.known
            for position, said in enumerate(talk.said)
            if talk.owner == owner and has(said.message.content)
        }
        told = {one[0] for one in wanted}
        wanted |= {
            (talk.id, 0, "title")
            for talk in self.known
            if talk.owner == owner and talk.id not in told and has(talk.title)
        }
        hits = self.store.search(owner, text, limit=1000)
        assert {(hit.conversation.id, hit.position, hit.role) for hit in hits} == wanted
        assert len(hits) == len(wanted)

    @rule()
    def open_again(self) -> None:
        other = ConversationStore.open(self.folder / "talk.db")
        assert other.list("ada") == self.store.list("ada")
        other.close()

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for owner in OWNERS:
            wanted = [talk for talk in reversed(self.known) if talk.owner == owner]
            found = self.store.list(owner, limit=1000)
            assert [one.id for one in found] == [talk.id for talk in wanted]
            latest = self.store.latest(owner)
            assert latest == (found[0] if found else None)
            for one, talk in zip(found, wanted, strict=True):
                assert (one.title, one.model, one.forked_from, one.num_messages) == (
                    talk.title,
                    talk.model,
                    talk.forked_from,
                    len(talk.said),
                )
                stored = self.store.messages(owner, one.id)
                assert [(m.message, m.status, m.facts) for m in stored] == [
                    (s.message, s.status, s.facts) for s in talk.said
                ]
                assert [m.position for m in stored] == list(range(len(stored)))
        assert self.store.notices == ()


StoreLaws.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreLaws = StoreLaws.TestCase
