"""Messages to the exact text and ids the model sees: its own chat template, or a plain fallback.

Text that people, documents or tools bring in must not act as control: a literal `<|im_end|>` in a message is
tokenized as the characters it is made of, never as the token that ends a turn.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolDefinition

__all__ = ["ChatTemplate", "RenderedPrompt"]

FALLBACK_NOTICE = "This model has no chat template; using a plain User/Assistant transcript."
FALLBACK_STOP = "\nUser:"


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What the model sees. `stops` are strings that end the reply because the template has no end token."""

    text: str
    token_ids: tuple[int, ...]
    stops: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class ChatTemplate:
    """Renders conversations for one tokenizer (a transformers tokenizer, fast or slow)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        source = tokenizer.chat_template
        self._source = source if isinstance(source, str) else " ".join(dict(source or {}).values())
        added = tokenizer.added_tokens_decoder.values()
        self._special = {str(token) for token in added if token.special}
        # `<tool_call>` and the like are ordinary tokens to the tokenizer, but control to the template
        self._control = self._special | {
            str(token) for token in added if str(token).strip() and str(token) in self._source
        }

    def render(self, messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> RenderedPrompt:
        """The prompt for the assistant's next turn.

        Raises:
            InvalidRequest: no messages, or the template refuses them (its own words are in the message).
        """
        if not messages:
            raise InvalidRequest("There is no message to answer.", param="messages")
        shield = _Shield()
        turns = [self._turn(message, shield) for message in messages]
        if not self._source:
            if tools:
                raise InvalidRequest(
                    "This model has no chat template, so it cannot use tools.", param="tools"
                )
            text = _transcript(turns)
            ids = self._encode(shield.pieces(text), start=True)
            return RenderedPrompt(shield.restore(text), ids, (FALLBACK_STOP,), (FALLBACK_NOTICE,))
        try:
            text = self._tokenizer.apply_chat_template(
                turns,
                tools=[_tool(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except Exception as error:  # a template is a program of the model's author and may raise anything
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return RenderedPrompt(shield.restore(text), self._encode(shield.pieces(text), start=False))

    def _turn(self, message: Message, shield: _Shield) -> dict[str, Any]:
        # What the model itself or the operator wrote may hold `<think>` and mean it; special tokens never.
        trusted = message.role in ("assistant", "system")
        control = self._special if trusted else self._control
        turn: dict[str, Any] = {"role": message.role, "content": shield.cover(message.content, control)}
        if message.name is not None:
            turn["name"] = shield.cover(message.name, self._control)
        if message.reasoning is not None:
            turn["reasoning_content"] = shield.cover(message.reasoning, control)
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": shield.cover(dict(call.arguments), self._control),
                    },
                }
                for call in message.tool_calls
            ]
        return turn

    def _encode(self, pieces: Sequence[str], *, start: bool) -> tuple[int, ...]:
        """Token ids of the pieces one after the other; `start` adds what the tokenizer puts before a text."""
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            ids += self._tokenizer(piece, add_special_tokens=start and index == 0).input_ids
        return tuple(ids)


class _Shield:
    """Hides control strings of foreign text behind placeholders while the template runs.

    Afterwards the text is cut inside each of them, so that no piece the tokenizer sees holds a whole one.
    """

    def __init__(self) -> None:
        # private-use characters and a nonce: no message can contain a placeholder of ours
        self._mark = f"\uf8f0{secrets.token_hex(4)}:"
        self._literals: dict[str, str] = {}

    def cover(self, value: Any, control: set[str]) -> Any:
        """`value` (text, or JSON-like data holding text) with every control string replaced."""
        if isinstance(value, Mapping):
            return {key: self.cover(item, control) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.cover(item, control) for item in value]
        if not isinstance(value, str):
            return value
        # longest first, so that a control string inside another one does not break it up
        for literal in sorted(control, key=len, reverse=True):
            if literal in value:
                placeholder = f"{self._mark}{len(self._literals)}\uf8f1"
                self._literals[placeholder] = literal
                value = value.replace(literal, placeholder)
        return value

    def restore(self, text: str) -> str:
        """The text as a person reads it."""
        for placeholder, literal in self._literals.items():
            text = text.replace(placeholder, literal)
        return text

    def pieces(self, text: str) -> list[str]:
        """The text in pieces to be tokenized one by one."""
        cut = f"{self._mark}cut\uf8f1"
        for placeholder, literal in self._literals.items():
            text = text.replace(placeholder, literal[:1] + cut + literal[1:])
        return text.split(cut)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def _transcript(turns: Sequence[Mapping[str, Any]]) -> str:
    """The fallback: what a base model has seen in countless forum pages."""
    names = {"user": "User: ", "assistant": "Assistant: ", "tool": "Result: ", "system": ""}
    lines = [
        names[turn["role"]] + turn["content"] + ("\n" if turn["role"] == "system" else "") for turn in turns
    ]
    return "\n".join([*lines, "Assistant:"])
