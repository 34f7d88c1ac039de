"""How one model writes its replies: found once, from its chat template and its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_local.events import Channel
from llm_local.messages import ToolDefinition
from llm_local.text.channels import ChannelSplitter
from llm_local.text.detokenizer import Detokenizer
from llm_local.text.pipeline import TextPipeline
from llm_local.text.templates import ChatTemplate
from llm_local.text.tool_formats.registry import find_format
from llm_local.text.tool_reader import ToolReader

__all__ = ["ReplyFormat"]


class ReplyFormat:
    """`tools` is the model's way to write tool calls."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.tools = find_format(template.source)
        added = tokenizer.added_tokens_decoder
        self._special = {token_id: str(token) for token_id, token in added.items() if token.special}

    def chat_pipeline(
        self,
        prompt: str,
        stops: Sequence[str],
        *,
        tools: Sequence[ToolDefinition] = (),
        exact: bool = False,
        context_ids: Sequence[int] = (),
        goes_on: Channel | None = None,
    ) -> TextPipeline:
        """What reads the reply to a rendered `prompt`. `exact` keeps all white space of the answer.

        `goes_on` is the channel that the prompt ends in the middle of.
        """
        tags = self._template.tags
        channels = None
        if tags is not None:
            opened = goes_on == "reasoning" if goes_on else self._template.opens_reasoning(prompt)
            channels = ChannelSplitter(tags, opened=opened, exact=exact, begun=goes_on is not None)
        return TextPipeline(
            Detokenizer(self._tokenizer, context_ids, self.shown(tools=bool(tools))),
            stops,
            channels=channels,
            tools=ToolReader(self.tools, tools) if tools else None,
        )

    def text_pipeline(self, stops: Sequence[str], context_ids: Sequence[int]) -> TextPipeline:
        """What reads the continuation of a raw text: all of it is text."""
        return TextPipeline(Detokenizer(self._tokenizer, context_ids), stops)

    def shown(self, *, tools: bool) -> dict[int, str]:
        """The special tokens that say where reasoning, or a call, begins or ends."""
        strings = [] if self._template.tags is None else [*self._template.tags.strings]
        if tools:
            strings += self.tools.strings
        return {
            token_id: text for token_id, text in self._special.items() if any(text in one for one in strings)
        }
