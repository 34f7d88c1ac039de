"""Conversations as files: JSON comes back as it was, what is wrong is named, Markdown reads well."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_local.conversations import transcript
from llm_local.conversations.records import LOCAL_OWNER, ReplyFacts, StoredMessage
from llm_local.conversations.store import ConversationStore
from llm_local.conversations.transcript import Transcript, from_json, to_json, to_markdown, transcript_of
from llm_local.errors import InvalidRequest
from llm_local.events import Timings, Usage
from llm_local.messages import Message, ToolCall

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(ToolCall, texts, texts, st.dictionaries(texts, json_values, max_size=2))
counts = st.integers(0, 2**40)
seconds = st.floats(0, 1e6)
facts = st.builds(
    ReplyFacts,
    texts,
    st.sampled_from([None, "stop", "length", "tool_calls", "cancelled"]),
    st.none() | st.builds(Usage, counts, counts, counts, counts, counts),
    st.none() | st.builds(Timings, seconds, seconds, seconds, seconds, seconds),
    st.none() | st.integers(-(2**63), 2**64 - 1),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    name=st.none() | texts,
    reasoning=st.none() | texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
)
stored = st.builds(
    StoredMessage,
    st.just(0),
    messages,
    st.sampled_from(["complete", "interrupted"]),
    st.none() | facts,
    st.floats(0, 4e9),
)
transcripts = st.builds(
    Transcript,
    texts.map(lambda text: " ".join(text.split())[:200].strip()),
    st.none() | texts,
    st.none() | st.floats(0, 4e9),
    st.lists(stored, max_size=3).map(
        lambda all_: tuple(
            StoredMessage(place, one.message, one.status, one.facts, one.created)
            for place, one in enumerate(all_)
        )
    ),
)


@settings(max_examples=60, deadline=None, database=None)
@given(transcripts)
def test_json_comes_back_as_it_was(one: Transcript) -> None:
    text = to_json(one)
    assert from_json(text) == one
    assert from_json(text.encode()) == one
    assert from_json(b"\xef\xbb\xbf" + text.encode()) == one, "some editors begin UTF-8 with a mark"
    assert to_markdown(one).startswith("# ")


def test_the_store_gives_and_takes_transcripts(tmp_path: Any) -> None:
    store = ConversationStore.open(tmp_path / "talk.db")
    first = store.create(LOCAL_OWNER, title="t", model="m", messages=[Message("user", "a\0b 😀")])
    usage = Usage(3, 1, 2)
    store.begin_reply(LOCAL_OWNER, first.id, model="m").interrupt(
        Message("assistant", "ha", reasoning="hm"),
        ReplyFacts("m", "cancelled", usage, Timings(prefill_s=0.25), 7),
    )
    said = store.messages(LOCAL_OWNER, first.id)
    read = from_json(to_json(transcript_of(store.get(LOCAL_OWNER, first.id), said)))
    again = store.create(LOCAL_OWNER, title=read.title, model=read.model, messages=read.messages)
    assert store.messages(LOCAL_OWNER, again.id) == said
    assert said[1].facts is not None
    assert said[1].facts.usage == usage
    store.close()


def document(**changes: Any) -> dict[str, Any]:
    """A small conversation, with changes."""
    whole = {
        "format": "llm-local conversation",
        "version": 1,
        "title": "t",
        "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
    }
    return {**whole, **changes}


def with_message(**changes: Any) -> dict[str, Any]:
    """A conversation of one message, with changes to it."""
    return document(messages=[{"role": "assistant", "content": "hi", **changes}])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "not a conversation"),
        ({}, "not a conversation"),
        (document(format="chat"), "not a conversation"),
        (document(version=2), "has version 2, and this llm-local reads version 1"),
        (document(version=True), "has version True"),
        (document(version="1"), "has version '1'"),
        (document(messages=None), "messages must be a list"),
        (document(messages=["x"]), r"messages\[0\] must be an object, and is 'x'"),
        (document(title=3), "conversation.title must be text, and is 3"),
        (document(title="x" * 201), "title of 201 characters is too long"),
        (document(title="\ud800"), "conversation.title is not valid Unicode"),
        (document(created=-1), "conversation.created must be a number from 0 on"),
        (document(created="today"), "conversation.created must be a number"),
        (with_message(role="robot"), r"messages\[0\]: Unknown message role 'robot'"),
        (with_message(role=None), r"messages\[0\].role must be text, and is nothing"),
        (with_message(content=None), r"messages\[0\].content must be text"),
        (with_message(content="\ud800"), r"messages\[0\]: The content is not valid Unicode"),
        (with_message(reasoning=["x"]), r"messages\[0\].reasoning must be text, and is a list"),
        (with_message(name="\ud800"), r"messages\[0\].name is not valid Unicode"),
        (with_message(status="done"), r"messages\[0\].status must be complete or interrupted"),
        (with_message(status={}), r"messages\[0\].status"),
        (with_message(tool_calls={}), None),
        (with_message(tool_calls={"a": 1}), r"messages\[0\].tool_calls must be a list"),
        (
            with_message(tool_calls=[{"id": "1", "name": 2, "arguments": {}}]),
            r"tool_calls\[0\].name must be text",
        ),
        (with_message(tool_calls=[{"id": "1", "name": "f"}]), r"tool_calls\[0\].arguments must be an object"),
        (with_message(facts=[]), r"messages\[0\].facts must be an object"),
        (with_message(facts={}), r"messages\[0\].facts.model must be text"),
        (with_message(facts={"model": "m", "finish_reason": "bored"}), "finish_reason must be one of stop"),
        (with_message(facts={"model": "m", "finish_reason": []}), "finish_reason must be one of stop"),
        (with_message(facts={"model": "m", "seed": 1.5}), "seed must be a whole number"),
        (
            with_message(facts={"model": "m", "usage": {"prompt_tokens": 1.5}}),
            "prompt_tokens must be a whole number",
        ),
        (
            with_message(facts={"model": "m", "usage": {"prompt_tokens": -1}}),
            "prompt_tokens must be a number from 0",
        ),
        (
            with_message(facts={"model": "m", "timings": {"decode_s": True}}),
            "decode_s must be a number from 0 on",
        ),
    ],
)
def test_wrong_shapes_are_refused_by_name(wrong: Any, said: str | None) -> None:
    text = json.dumps(wrong)
    if said is None:
        assert from_json(text).messages[0].message.tool_calls == ()
        return
    with pytest.raises(InvalidRequest, match=said):
        from_json(text)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON: Expecting value in line 1"),
        (b"{", "not JSON"),
        (b'{"format": \xff}', "not UTF-8 text: byte 11 is 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 50_000, "nested too deeply"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"created": -Infinity}', "Infinity is no number"),
        (b'{"version": 1, "version": 2}', "'version' twice"),
        # found at once, also among many
        (json.dumps({str(n): 0 for n in range(10**5)})[:-1].encode() + b', "99999": 1}', "'99999' twice"),
        (b'{"created": ' + b"9" * 5000 + b"}", "not JSON"),
        (json.dumps(document()).encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_no_json_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        from_json(data)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="100001 messages are too many"):
        from_json(json.dumps(document(messages=[0] * 100_001)))
    monkeypatch.setattr(transcript, "MAX_BYTES", 1 << 20)
    with pytest.raises(InvalidRequest, match="too large: at most 1 MB"):
        from_json(b" " * ((1 << 20) + 1))


def test_fields_of_later_versions_are_passed_over() -> None:
    read = from_json(
        json.dumps({**with_message(mood="good", facts={"model": "m", "price": 3}), "pinned": True})
    )
    assert read.messages[0].message == Message("assistant", "hi")
    assert read.messages[0].facts == ReplyFacts("m")


def test_markdown_is_for_people() -> None:
    call = ToolCall("1", "look", {"at": "世界"})
    text = to_markdown(
        Transcript(
            "A\ntitle",
            "tiny",
            None,
            (
                StoredMessage(0, Message("user", "Show me.")),
                StoredMessage(1, Message("assistant", "", reasoning="Hm.\n\nLook?", tool_calls=(call,))),
                StoredMessage(2, Message("tool", "a ```` b\n")),
                StoredMessage(3, Message("assistant", "Here:\n```py\nx = 1"), "interrupted"),
                StoredMessage(4, Message("user", "Thanks.\n")),
            ),
        )
    )
    assert text == (
        "# A title\n\nModel: `tiny`\n\n## User\n\nShow me.\n\n## Assistant\n\n> Hm.\n>\n> Look?\n\n"
        '```json\n{\n "name": "look",\n "arguments": {\n  "at": "世界"\n }\n}\n```\n\n'
        "## Tool\n\n`````\na ```` b\n`````\n\n## Assistant (interrupted)\n\nHere:\n```py\nx = 1\n```\n\n"
        "## User\n\nThanks.\n"
    )
