"""Conversations as people and programs see them: tables, lines with tabs between, JSON, and a whole one to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from llm_local.conversations.records import Conversation, SearchHit, StoredMessage
from llm_local.terminal.streams import AnswerWriter
from llm_local.terminal.tables import write_rows

__all__ = ["as_object", "hit_object", "write_conversation", "write_hits", "write_list"]

_SHORT_ID: Final = 8


def as_object(conversation: Conversation) -> dict[str, Any]:
    """For programs. Times are UTC."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "model": conversation.model,
        "num_messages": conversation.num_messages,
        "created": _iso(conversation.created),
        "modified": _iso(conversation.modified),
        "forked_from": conversation.forked_from,
    }


def hit_object(hit: SearchHit) -> dict[str, Any]:
    """The same for what a search found."""
    return {
        "id": hit.conversation.id,
        "title": hit.conversation.title,
        "position": hit.position,
        "role": hit.role,
        "snippet": hit.snippet,
    }


def write_list(answer: AnswerWriter, conversations: Sequence[Conversation]) -> None:
    """Write a table to a terminal, and whole ids and UTC times into a pipe.

    Raises:
        StorageError: stdout refused.
    """
    shown = [
        (one.id[:_SHORT_ID], _local(one.modified), str(one.num_messages), one.model or "-", one.title or "-")
        for one in conversations
    ]
    plain = [
        (one.id, _iso(one.modified), str(one.num_messages), one.model or "", one.title)
        for one in conversations
    ]
    write_rows(answer, ("ID", "USED", "MESSAGES", "MODEL", "TITLE"), shown, plain, right=(2,))


def write_hits(answer: AnswerWriter, hits: Sequence[SearchHit]) -> None:
    """The same for what a search found.

    Raises:
        StorageError: stdout refused.
    """
    shown = [
        (hit.conversation.id[:_SHORT_ID], _local(hit.conversation.modified), hit.role, hit.snippet)
        for hit in hits
    ]
    plain = [
        (hit.conversation.id, str(hit.position), hit.role, hit.conversation.title, hit.snippet)
        for hit in hits
    ]
    write_rows(answer, ("ID", "USED", "WHO", "TEXT"), shown, plain)


def write_conversation(
    answer: AnswerWriter, conversation: Conversation, messages: Sequence[StoredMessage]
) -> None:
    """Write a conversation to be read from top to bottom.

    Raises:
        StorageError: stdout refused.
    """
    about = [conversation.id, _local(conversation.created), conversation.model or ""]
    answer.write(f"{conversation.title or 'Without a title'}\n{', '.join(filter(None, about))}\n")
    for stored in messages:
        mark = " (interrupted)" if stored.status == "interrupted" else ""
        by = f" {stored.facts.model}" if stored.facts and stored.facts.model != conversation.model else ""
        answer.write(f"\n{stored.message.role}{by}{mark}:\n")
        if stored.message.reasoning:
            answer.write("".join(f"| {line}\n" for line in stored.message.reasoning.splitlines()))
        if stored.message.content:
            answer.write(stored.message.content.rstrip("\n") + "\n")
        for call in stored.message.tool_calls:
            answer.write(f"-> {call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}\n")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
