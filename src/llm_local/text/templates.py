"""Messages to the exact text and ids the model sees: its own chat template, or a plain fallback.

Text that people, documents or tools bring in must not act as control: a literal `<|im_end|>` in a message is
tokenized as the characters it is made of, never as the token that ends a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2

from llm_local.errors import InvalidRequest, ModelCorrupt
from llm_local.events import Channel
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.text.channels import ReasoningTags, find_tags
from llm_local.text.open_answers import check_open, open_answer
from llm_local.text.shield import Shield, any_of
from llm_local.text.template_language import REASONING_NAMES, render_template
from llm_local.text.thinking import not_switched, template_variables, thinking_variables
from llm_local.text.tool_formats.generic import without_tools
from llm_local.text.tool_formats.registry import find_format

__all__ = ["ChatTemplate", "RenderedPrompt"]

FALLBACK_NOTICE = "This model has no chat template; using a plain User/Assistant transcript."
FALLBACK_STOP = "\nUser:"
TOOLS_NOTICE = "This model's chat template knows no tools; they are described to it in the conversation."
# What looks like a tag in the text of a template: `</tool_response>`, `[/TOOL_RESULTS]`.
_WRITTEN_TAG = re.compile(r"</?[A-Za-z_][\w-]*>|\[/?[A-Z_]{2,}\]")


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What the model sees. `stops` are strings that end the reply because the template has no end token.

    `goes_on` is the channel of an answer that the prompt ends in the middle of.
    """

    text: str
    token_ids: tuple[int, ...]
    stops: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    goes_on: Channel | None = None


class ChatTemplate:
    """Renders conversations for one tokenizer (a transformers tokenizer, fast or slow)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        source = self._templates = tokenizer.chat_template
        self._tokens = dict(tokenizer.special_tokens_map)
        self._source = source if isinstance(source, str) else " ".join(dict(source or {}).values())
        self._variables = template_variables(self._source)
        by_name = isinstance(source, Mapping) and "tool_use" in source
        self._reads_tools = by_name or "tools" in self._variables
        self._reads_calls = self._reads_tools or "tool_calls" in self._source
        self._reasoning_names = [name for name in REASONING_NAMES if name in self._source]
        added = tokenizer.added_tokens_decoder.values()
        self.tags: ReasoningTags | None = find_tags(self._source, {str(token) for token in added})
        """What stands around the model's reasoning; None where it has none."""
        named = getattr(tokenizer, "chat_control_tokens", None) or ()
        special = {str(token) for token in added if token.special}
        # `<tool_call>` and the like are ordinary tokens to the tokenizer, but control to the template or to who reads
        # the reply
        read = (*find_format(self._source).strings, *(self.tags.strings if self.tags else ()))
        ordinary = {str(token) for token in added if str(token).strip()} - special
        control = {token for token in ordinary if token in named or token in self._source or token in read}
        self._special, self._control = any_of(special), any_of(special | control)
        # Where a template closes a result with plain text, a result that holds the same text must not close itself.
        written = set(_WRITTEN_TAG.findall(self._source))
        self._result_control = any_of(special | control | written)
        # Taking a special token apart switches a mode of the tokenizer that all threads share, so it is done for
        # none but those of a single character, and now.
        added_texts = {str(token) for token in added}
        self._spelling = {
            character: self._next_ids(
                character, **({"split_special_tokens": True} if character in added_texts else {})
            )
            for character in sorted(set("".join(special | control | written)))
        }
        self._ids("")  # and back, before there are other threads

    @property
    def source(self) -> str:
        """The template itself, or all of several one after the other; empty where the model has none."""
        return self._source

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition] = (),
        *,
        think: str = "default",
        goes_on: bool = False,
    ) -> RenderedPrompt:
        """The prompt for the assistant's next turn. `think` is as in `GenerationOptions`.

        Earlier reasoning goes to templates that read it, and is left out by all others. To a template that knows no
        tools they are described in the conversation, which a notice tells. `goes_on`: the last message is the first
        part of the assistant's turn, which stays open.

        Raises:
            InvalidRequest: no messages, or the template refuses them (its own words are in the message), or the model's
                reasoning cannot be switched as `think` says, or the template cannot leave a turn open.
            ModelCorrupt: the template is not one.
        """
        if not messages:
            raise InvalidRequest("There is no message to answer.", param="messages")
        last = check_open(messages[-1]) if goes_on else None
        shield = Shield()
        turns = [self._turn(message, shield) for message in messages]
        switches = thinking_variables(think, self._variables, self._source)
        if not self._source:
            if switches is None:
                raise not_switched(think)
            if tools:
                raise InvalidRequest(
                    "This model has no chat template, so it cannot use tools.", param="tools"
                )
            text = _transcript(turns, is_open=goes_on)
            ids = self._start_ids() + self._encode(shield.pieces(text))
            channel: Channel | None = "content" if goes_on else None
            return RenderedPrompt(shield.restore(text), ids, (FALLBACK_STOP,), (FALLBACK_NOTICE,), channel)
        described = shield.cover([_tool(tool) for tool in tools], self._control)
        if not self._reads_tools and (tools or not self._reads_calls):
            turns = without_tools(turns, described)

        def rendered(turns: Sequence[Mapping[str, Any]], **variables: bool) -> str:
            return self._render(turns, described, shield, (switches or {}) | variables)

        text = rendered(turns if last is None else turns[:-1])
        opened = self.opens_reasoning(shield.restore(text))
        if switches is None and not opened:
            raise not_switched(think)
        channel = None
        if last is not None:
            whole = partial(rendered, add_generation_prompt=False)
            reasoning = shield.cover(last.reasoning or "", self._special)
            text, channel = open_answer(text, turns, whole, self.tags, reasoning=reasoning, opened=opened)
        notices = (TOOLS_NOTICE,) if tools and not self._reads_tools else ()
        ids = self._encode(shield.pieces(text))
        return RenderedPrompt(shield.restore(text), ids, notices=notices, goes_on=channel)

    def _render(
        self,
        turns: Sequence[Mapping[str, Any]],
        described: Sequence[Any],
        shield: Shield,
        variables: Mapping[str, Any],
    ) -> str:
        """What the template makes of the turns, control strings still hidden."""
        try:
            return render_template(
                self._chosen(described), turns, described or None, **self._tokens | dict(variables)
            )
        except jinja2.TemplateSyntaxError as error:
            raise ModelCorrupt(
                f"The model's chat template is damaged (line {error.lineno}: {error.message}).",
                "Fetch the model again, or mend chat_template.jinja.",
                file="chat_template.jinja",
            ) from error
        except Exception as error:  # a template is a program of the model's author and may raise anything
            reason = shield.restore(str(error))
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {reason}", param="messages"
            ) from error

    def _chosen(self, tools: Sequence[Any]) -> str:
        """The one template, or of several the one that is for tools or for all."""
        if isinstance(self._templates, str):
            return self._templates
        named: dict[str, str] = dict(self._templates)
        for name in ("tool_use", "default") if tools else ("default",):
            if name in named:
                return named[name]
        raise jinja2.TemplateError(f"it has several, {', '.join(sorted(named))}, and none is the default")

    def opens_reasoning(self, prompt: str) -> bool:
        """True when a prompt ends in an open reasoning tag."""
        return self.tags is not None and prompt.rstrip().endswith(self.tags.opens)

    def spell(self, text: str) -> tuple[int, ...]:
        """Ids of a text in the middle of a reply, its control strings as the tokens they are."""
        return tuple(self._next_ids(text))

    def continuation_ids(self, given: str, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a raw text in two parts: of `given` as a text begins, and of `text` as it goes on.

        What a tokenizer puts where a text begins (a begin token, a space) comes once, and what it puts where one ends
        never.
        """
        given_ids = (*self._start_ids(), *self._ids(given))
        return given_ids, tuple(self._next_ids(text) if given else self._ids(text))

    def _turn(self, message: Message, shield: Shield) -> dict[str, Any]:
        # What the model itself or the operator wrote may hold `<think>` and mean it; special tokens never.
        trusted = message.role in ("assistant", "system")
        control = self._special if trusted else self._control
        control = self._result_control if message.role == "tool" else control
        turn: dict[str, Any] = {"role": message.role, "content": shield.cover(message.content, control)}
        if message.name is not None:
            turn["name"] = shield.cover(message.name, self._control)
        if message.reasoning is not None:
            turn |= dict.fromkeys(self._reasoning_names, shield.cover(message.reasoning, control))
        if message.tool_call_id is not None:
            turn["tool_call_id"] = shield.cover(message.tool_call_id, self._control)
        if message.tool_calls:
            turn["tool_calls"] = [self._tool_call(call, shield) for call in message.tool_calls]
        return turn

    def _tool_call(self, call: ToolCall, shield: Shield) -> dict[str, Any]:
        name, arguments = shield.cover([call.name, call.arguments], self._control)
        return {
            "id": shield.cover(call.id, self._control),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _start_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text, such as a begin token. What it puts after one is not for us."""
        ids = self._tokenizer("a").input_ids
        return tuple(ids[: ids.index(self._ids("a")[0])])

    def _encode(self, pieces: Iterable[tuple[str, bool]]) -> tuple[int, ...]:
        """Token ids of the pieces one after the other."""
        ids: list[int] = []
        for piece, hidden in pieces:
            if hidden:
                # character by character; even one character may be a special token
                ids += (token_id for character in piece for token_id in self._spelling[character])
            else:
                ids += self._next_ids(piece) if ids else self._ids(piece)
        return tuple(ids)

    def _next_ids(self, text: str, **options: bool) -> list[int]:
        """Ids of a text that continues another, without the space some tokenizers put where a text begins."""
        before, both = self._ids("\n", **options), self._ids("\n" + text, **options)
        return both[len(before) :] if both[: len(before)] == before else self._ids(text, **options)

    def _ids(self, text: str, **options: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, **options).input_ids)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def _transcript(turns: Sequence[Mapping[str, Any]], *, is_open: bool) -> str:
    """The fallback: what a base model has seen in countless forum pages. `is_open`: the last turn goes on."""
    names = {"user": "User: ", "assistant": "Assistant: ", "tool": "Result: ", "system": ""}
    lines = [
        names[turn["role"]] + turn["content"] + ("\n" if turn["role"] == "system" else "") for turn in turns
    ]
    return "\n".join(lines if is_open else [*lines, "Assistant:"])
