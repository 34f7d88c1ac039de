"""FunctionGemma and Gemma 4: `call:NAME{key:value,...}`, texts between a quote of their own, names without any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.delimited_body import delimited_body
from llm_local.text.tool_formats.format import MAX_DEPTH, Envelope, ToolFormat
from llm_local.text.tool_formats.gemma_grammar import QuotedArguments
from llm_local.text.tool_formats.json_body import load_json

__all__ = ["FUNCTION_GEMMA", "GEMMA4"]

_HEAD: Final = re.compile(r"\s*call:\s*([^\s{}]{1,64})\s*(?=\{)")
_WORD: Final = re.compile(r"[^\s,:{}\[\]]+")


class _Malformed(Exception):
    pass


class _Reader:
    """A recursive reader of one body; every character is looked at once."""

    def __init__(self, text: str, place: int, quote: str) -> None:
        self._text, self._place, self._quote = text, place, quote

    def whole(self) -> dict[str, Any]:
        """The object that is all the rest."""
        value = self._object(0)
        if self._text[self._place :].strip():
            raise _Malformed
        return value

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _Malformed
        match self._peek():
            case "{":
                return self._object(depth)
            case "[":
                return self._list(depth)
        if self._at_quote():
            return self._quoted()
        word = self._word()
        value = load_json(word)
        return word if value is None and word != "null" else value

    def _object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._expect("{")
        while self._peek() != "}":
            name = self._quoted() if self._at_quote() else self._word()
            self._expect(":")
            if name in members:
                raise _Malformed
            members[name] = self._value(depth + 1)
            if self._peek() != "}":
                self._expect(",")
        self._expect("}")
        return members

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self._expect("[")
        while self._peek() != "]":
            items.append(self._value(depth + 1))
            if self._peek() != "]":
                self._expect(",")
        self._expect("]")
        return items

    def _peek(self) -> str:
        while self._place < len(self._text) and self._text[self._place].isspace():
            self._place += 1
        return self._text[self._place : self._place + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise _Malformed
        self._place += 1

    def _at_quote(self) -> bool:
        self._peek()
        return self._text.startswith(self._quote, self._place) or self._text.startswith('"', self._place)

    def _quoted(self) -> str:
        quote = self._quote if self._text.startswith(self._quote, self._place) else '"'
        start = self._place + len(quote)
        end = self._text.find(quote, start)
        if end < 0:
            raise _Malformed
        self._place = end + len(quote)
        return self._text[start:end]

    def _word(self) -> str:
        self._peek()
        found = _WORD.match(self._text, self._place)
        if found is None:
            raise _Malformed
        self._place = found.end()
        return found[0]


def _gemma(name: str, starts: str, ends: str, quote: str) -> ToolFormat:
    def parse(body: str, tools: Sequence[ToolDefinition]) -> tuple[str, Mapping[str, Any]] | None:
        head = _HEAD.match(body)
        if head is None:
            return None
        try:
            return head[1], _Reader(body, head.end(), quote).whole()
        except _Malformed:
            return None

    return ToolFormat(
        name=name,
        fits=lambda source: starts in source,
        make_body=delimited_body(ends, parse),
        starts=(starts,),
        ends=(ends,),
        inside=(quote,),
        envelope=Envelope(
            f"{starts}call:",
            before="",
            between="",
            after=ends,
            separator=f"{starts}call:",
            controls=(starts, ends, quote),
            names=r"[^\s{}]{1,64}",
            arguments=QuotedArguments(quote, ends),
        ),
    )


FUNCTION_GEMMA = _gemma("function-gemma", "<start_function_call>", "<end_function_call>", "<escape>")
GEMMA4 = _gemma("gemma4", "<|tool_call>", "<tool_call|>", '<|"|>')
