"""Tool calls found in the text of an answer. What is no call comes back as the text it is."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Sequence
from typing import Final

from llm_local.events import ToolCallDelta, ToolCallEvent
from llm_local.messages import ToolCall, ToolDefinition
from llm_local.text.markers import MarkerFinder
from llm_local.text.tool_formats.arguments import valid_arguments
from llm_local.text.tool_formats.format import ArgumentsPart, Body, CallMade, CallNamed, Part, ToolFormat

__all__ = ["Piece", "ToolReader", "make_call_id"]

Piece = str | ToolCallDelta | ToolCallEvent

_LETTERS: Final = string.ascii_letters + string.digits


def make_call_id() -> str:
    """A new id: nine letters and digits, because that is what Mistral's templates insist on."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


class ToolReader:
    """Feeds on an answer's text, returns text, deltas of calls, and calls. White space around calls is layout.

    A call is malformed when it is not of the format, names a tool that is not offered, or, where the tool is `strict`,
    brings arguments that its schema does not allow.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        tools: Sequence[ToolDefinition],
        make_id: Callable[[], str] = make_call_id,
    ) -> None:
        self._format = tool_format
        self._tools = tuple(tools)
        self._make_id = make_id
        self._finder = MarkerFinder((*tool_format.starts, *tool_format.ends, *tool_format.bare_starts))
        self._fresh = True  # nothing but calls and layout so far
        self._after_call = False  # nothing but layout since a call
        self._space: list[str] = []  # white space that may be layout around a call
        self._body: Body | None = None
        self._raw: list[str] = []  # the text of what is read as a call
        self._name: str | None = None
        self._id = ""
        self._has_arguments = False
        self._index = -1
        self.num_calls = 0

    def feed(self, text: str) -> list[Piece]:
        """Add text; return what is certain."""
        pieces: list[Piece] = []
        while text:
            text = (
                self._read_text(text, pieces)
                if self._body is None
                else self._read_body(self._body, text, pieces)
            )
        return pieces

    def finish(self) -> list[Piece]:
        """The reply is over: return what is held back."""
        pieces: list[Piece] = []
        if self._body is None:
            self._add(self._finder.finish(), pieces)
        else:
            self._say(self._body.finish(), pieces)
            if self._body is not None and self._body.state == "failed":
                self._give_up(pieces)
        if not self._after_call:
            self._flush(pieces)
        return pieces

    def _read_text(self, text: str, pieces: list[Piece]) -> str:
        before, marker, rest = self._finder.feed(text)
        self._add(before, pieces)
        if marker is None:
            return rest
        bare = marker in self._format.bare_starts
        if marker in self._format.starts or (bare and self._fresh):
            self._body = self._format.make_body(self._tools)
            if not bare:
                self._raw.append(marker)
                return rest
            return marker + rest
        if not (marker in self._format.ends and self._after_call):
            self._add(marker, pieces)
        return rest

    def _read_body(self, body: Body, text: str, pieces: list[Piece]) -> str:
        taken, parts = body.feed(text)
        self._raw.append(text[:taken])
        self._say(parts, pieces)
        if self._body is not None and body.state == "done":
            self._body = None
            self._raw.clear()  # what closes a list of calls
        elif self._body is not None and body.state == "failed":
            self._give_up(pieces)
        return text[taken:]

    def _say(self, parts: Sequence[Part], pieces: list[Piece]) -> None:
        for part in parts:
            if isinstance(part, CallNamed):
                self._index += 1
                self._name, self._id, self._has_arguments = part.name, self._make_id(), False
                pieces.append(ToolCallDelta(self._index, self._id, part.name, ""))
            elif isinstance(part, ArgumentsPart):
                self._has_arguments = True
                pieces.append(ToolCallDelta(self._index, self._id, self._name or "", part.text))
            else:
                self._make(part, pieces)

    def _make(self, call: CallMade, pieces: list[Piece]) -> None:
        tool = next(tool for tool in self._tools if tool.name == call.name)
        if tool.strict and not valid_arguments(call.arguments, tool.parameters):
            self._give_up(pieces)
            return
        if not self._has_arguments:
            whole = json.dumps(call.arguments, ensure_ascii=False)
            pieces.append(ToolCallDelta(self._index, self._id, call.name, whole))
        pieces.append(ToolCallEvent(ToolCall(self._id, call.name, call.arguments)))
        self.num_calls += 1
        self._raw.clear()
        self._space.clear()
        self._after_call = True

    def _give_up(self, pieces: list[Piece]) -> None:
        """It was no call: its text is text."""
        raw = "".join(self._raw)
        self._raw.clear()
        self._body = None
        self._add(raw, pieces)

    def _add(self, text: str, pieces: list[Piece]) -> None:
        bare = text.rstrip()
        if bare:
            self._flush(pieces)
            pieces.append(bare.lstrip() if self._after_call else bare)
            self._fresh = self._after_call = False
        if len(bare) < len(text):
            self._space.append(text[len(bare) :])

    def _flush(self, pieces: list[Piece]) -> None:
        space = "".join(self._space)
        self._space.clear()
        if space and not self._after_call:
            pieces.append(space)
