"""A conversation as a file: JSON that can be read back as it was, and Markdown for people.

The JSON is one object, in UTF-8. `docs/conversations.md` describes it; a new field does not change `version`, a field
that means something else does.

    {"format": "llm-local conversation", "version": 1, "title": "...", "model": "...", "created": 1790000000.0,
     "messages": [{"role": "user", "content": "...", "created": 1790000000.0},
                  {"role": "assistant", "content": "...", "status": "interrupted", "facts": {"model": "..."}}]}
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from llm_local.conversations.fields import (
    checked_title,
    facts_fields,
    facts_from,
    message_fields,
    message_from,
    optional_number,
    optional_text,
)
from llm_local.conversations.records import Conversation, StoredMessage
from llm_local.errors import InvalidRequest
from llm_local.messages import Message

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "VERSION",
    "Transcript",
    "from_json",
    "to_json",
    "to_markdown",
    "transcript_of",
]

FORMAT: Final = "llm-local conversation"
VERSION: Final = 1
MAX_BYTES: Final = 256 << 20
_MAX_MESSAGES: Final = 100_000
_FENCE: Final = re.compile("`{3,}")


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation apart from any store. `created`: seconds since 1970, or None where nobody knows."""

    title: str = ""
    model: str | None = None
    created: float | None = None
    messages: tuple[StoredMessage, ...] = ()


def transcript_of(conversation: Conversation, messages: Sequence[StoredMessage]) -> Transcript:
    """A conversation of the store with its messages."""
    return Transcript(conversation.title, conversation.model, conversation.created, tuple(messages))


def to_json(transcript: Transcript) -> str:
    """The document, with a line end last.

    Raises:
        InvalidRequest: a message cannot be written as JSON.
    """
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "title": transcript.title}
    if transcript.model is not None:
        document["model"] = transcript.model
    if transcript.created is not None:
        document["created"] = transcript.created
    document["messages"] = [_fields(stored) for stored in transcript.messages]
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def from_json(data: bytes | str) -> Transcript:
    """Read a document that `to_json` wrote, or somebody by hand. Fields of later versions are passed over.

    Raises:
        InvalidRequest: it is no such document; the message names the field, or the byte that is no UTF-8.
    """
    document = _parse(_decoded(data))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidRequest(
            "This is not a conversation of llm-local.",
            f'It should be a JSON object with "format": "{FORMAT}".',
            param="format",
        )
    version = document.get("version")
    if version != VERSION or type(version) is not int:
        raise InvalidRequest(
            f"The conversation has version {version!r}, and this llm-local reads version {VERSION}.",
            "Use the llm-local that wrote it.",
            param="version",
        )
    messages = document.get("messages")
    if not isinstance(messages, list):
        raise InvalidRequest("messages must be a list.", param="messages")
    if len(messages) > _MAX_MESSAGES:
        raise InvalidRequest(
            f"{len(messages)} messages are too many: at most {_MAX_MESSAGES}.", param="messages"
        )
    return Transcript(
        checked_title(optional_text(document, "title", "conversation") or ""),
        optional_text(document, "model", "conversation"),
        optional_number(document, "created", "conversation"),
        tuple(_stored(position, one) for position, one in enumerate(messages)),
    )


def to_markdown(transcript: Transcript) -> str:
    """The conversation to read: a heading for each turn, what the model thought as a quotation, calls as JSON."""
    parts = [f"# {' '.join(transcript.title.split()) or 'Conversation'}"]
    if transcript.model:
        parts.append(f"Model: `{transcript.model}`")
    parts += [part for stored in transcript.messages for part in _turn(stored)]
    return "\n\n".join(parts) + "\n"


def _turn(stored: StoredMessage) -> list[str]:
    message = stored.message
    mark = " (interrupted)" if stored.status == "interrupted" else ""
    parts = [f"## {message.role.capitalize()}{mark}"]
    if message.reasoning:
        parts.append("\n".join(f"> {line}".rstrip() for line in message.reasoning.splitlines()))
    if message.role == "tool":
        parts.append(_fenced(message.content, ""))
    elif message.content:
        parts.append(_closed(message.content))
    for call in message.tool_calls:
        said = json.dumps(
            {"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False, indent=1
        )
        parts.append(_fenced(said, "json"))
    return parts


def _fenced(text: str, language: str) -> str:
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def _closed(text: str) -> str:
    """`text` with a code block that was cut off closed, so that it does not swallow the turns after it."""
    open_fence = ""
    for line in text.splitlines():
        found = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if found is None:
            continue
        if not open_fence:
            open_fence = found[1]
        elif line.strip().startswith(open_fence) and not line.strip().strip(open_fence[0]):
            open_fence = ""
    text = text.rstrip("\n")
    return f"{text}\n{open_fence}" if open_fence else text


def _fields(stored: StoredMessage) -> dict[str, Any]:
    found = message_fields(stored.message)
    if stored.status != "complete":
        found["status"] = stored.status
    if stored.facts is not None:
        found["facts"] = facts_fields(stored.facts)
    if stored.created:
        found["created"] = stored.created
    return found


def _stored(position: int, found: object) -> StoredMessage:
    where = f"messages[{position}]"
    message: Message = message_from(found, where)
    given: dict[str, Any] = found if isinstance(found, dict) else {}
    status = given.get("status", "complete")
    if status not in ("complete", "interrupted"):
        raise InvalidRequest(f"{where}.status must be complete or interrupted.", param=f"{where}.status")
    facts = given.get("facts")
    return StoredMessage(
        position,
        message,
        status,
        None if facts is None else facts_from(facts, f"{where}.facts"),
        optional_number(given, "created", where) or 0.0,
    )


def _decoded(data: bytes | str) -> str:
    size = len(data)
    if size > MAX_BYTES:
        raise InvalidRequest(f"The conversation is too large: at most {MAX_BYTES >> 20} MB.", param="file")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The conversation is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}.",
            "Save it as UTF-8.",
            param="file",
        ) from error


def _parse(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidRequest("The conversation is nested too deeply.", param="file") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The conversation is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            param="file",
        ) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise InvalidRequest(f"The conversation is not JSON: {error}.", param="file") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidRequest(
            f"The conversation has the field {twice[:80]!r} twice in one object.", param="file"
        )
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The conversation is not JSON: {name} is no number there.", param="file")
