"""Reasoning and answer told apart. A family of models is a row of data: the tags that stand around its reasoning."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_local.text.markers import MarkerFinder

if TYPE_CHECKING:
    from llm_local.events import Channel

__all__ = ["FAMILIES", "ChannelSplitter", "ReasoningTags", "find_tags"]


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """What opens and closes reasoning.

    `silent` are strings that only say that an answer comes, and are no part of it. Reasoning opens where a reply
    begins, so that an answer may speak of a tag; `anywhere` says that the tags are control tokens and always mean it.
    `answers` must come between reasoning and answer; such a model always reasons.
    """

    opens: str
    closes: str
    silent: tuple[str, ...] = ()
    anywhere: bool = False
    answers: str = ""

    @property
    def strings(self) -> tuple[str, ...]:
        """All that must reach the splitter as text, special tokens too."""
        return (self.opens, self.closes, *self.silent)


FAMILIES: Final = (
    # gpt-oss (https://github.com/openai/harmony): every message has a channel
    ReasoningTags(
        "<|channel|>analysis<|message|>",
        "<|end|>",
        (
            "<|start|>assistant",
            "<|channel|>final",
            "<|channel|>commentary",
            "<|channel|>analysis ",  # a call in the channel of reasoning
            " <|constrain|>json",
            "<|constrain|>json",
            "<|message|>",
            "<|end|>",
            "<|call|>",
            "<|return|>",
        ),
        anywhere=True,
        answers="<|start|>assistant<|channel|>final<|message|>",
    ),
    # Cohere Command A Reasoning
    ReasoningTags(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        anywhere=True,
    ),
    ReasoningTags("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    ReasoningTags("<|channel>thought", "<channel|>"),  # Gemma 4
    ReasoningTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ReasoningTags("<think>", "</think>"),  # DeepSeek R1, Qwen3, SmolLM3, GLM, Nemotron and most others
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
    ReasoningTags("<thought>", "</thought>"),
    ReasoningTags("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)


def find_tags(source: str, tokens: Collection[str]) -> ReasoningTags | None:
    """The tags of the family a chat template's `source` belongs to; else of the one whose tags are both `tokens`.

    A template that opens or strips reasoning names its closing tag; of a model whose template is silent, tags that
    are tokens of their own are sign enough.
    """
    for tags in FAMILIES:
        if tags.closes in source and (tags.opens in source or tags.opens in tokens):
            return tags
    return next((tags for tags in FAMILIES if tags.opens in tokens and tags.closes in tokens), None)


class ChannelSplitter:
    """Feeds on text, returns it in pieces, each with its channel. Reasoning that is never closed stays reasoning.

    White space next to a tag is layout and left out, but never any of an answer that must be kept `exact`.
    """

    def __init__(
        self, tags: ReasoningTags, *, opened: bool = False, exact: bool = False, begun: bool = False
    ) -> None:
        """`opened`: the text begins in reasoning. `begun`: it goes on in the middle of what it begins in."""
        self._tags = tags
        self._exact = exact
        self._answer = MarkerFinder((tags.opens, *tags.silent))
        self._thought = MarkerFinder((tags.closes, tags.opens))
        self._thinking = opened
        self._fresh = not begun  # nothing but layout since the beginning, or since the last tag
        self._closed = False  # an answer that follows reasoning
        self._space: list[str] = []  # white space that may turn out to be layout

    def feed(self, text: str) -> list[tuple[Channel, str]]:
        """Add text; return what is certain."""
        pieces: list[tuple[Channel, str]] = []
        rest: str = text
        while rest:
            before, marker, rest = (self._thought if self._thinking else self._answer).feed(rest)
            self._add(pieces, before)
            if marker is not None:
                self._meet(pieces, marker)
        return pieces

    def finish(self) -> list[tuple[Channel, str]]:
        """The reply is over: return what is held back."""
        pieces: list[tuple[Channel, str]] = []
        self._add(pieces, (self._thought if self._thinking else self._answer).finish())
        self._flush(pieces)
        return pieces

    def _meet(self, pieces: list[tuple[Channel, str]], marker: str) -> None:
        if self._thinking:
            if marker == self._tags.closes:
                self._switch(thinking=False)
            elif not self._fresh:  # a model may repeat the tag the prompt ends in, or speak of it
                self._add(pieces, marker)
        elif marker == self._tags.opens and (self._tags.anywhere or self._fresh):
            self._switch(thinking=True)
        elif marker == self._tags.opens:
            self._add(pieces, marker)

    def _switch(self, *, thinking: bool) -> None:
        self._thinking, self._closed = thinking, not thinking
        self._space.clear()
        self._fresh = True

    def _add(self, pieces: list[tuple[Channel, str]], text: str) -> None:
        """Pass text on, but hold white space back where a tag may follow or came before."""
        if not self._thinking and (not self._fresh or (self._exact and self._closed)):
            if text:
                self._fresh = False
                pieces.append(("content", text))
            return
        bare = text.rstrip()
        if not bare:
            self._space.append(text)
            return
        self._flush(pieces)
        pieces.append((self._channel, bare.lstrip() if self._after_tag else bare))
        self._fresh = False
        space = text[len(bare) :]
        if self._thinking:
            self._space.append(space)
        elif space:
            pieces.append(("content", space))

    def _flush(self, pieces: list[tuple[Channel, str]]) -> None:
        """White space that was held back is text after all, unless it only follows a tag."""
        space = "".join(self._space)
        self._space.clear()
        if space and not self._after_tag:
            pieces.append((self._channel, space))

    @property
    def _after_tag(self) -> bool:
        return self._fresh and (self._thinking or self._closed)

    @property
    def _channel(self) -> Channel:
        return "reasoning" if self._thinking else "content"
