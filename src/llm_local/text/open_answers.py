"""An answer that was broken off, rendered so that the model goes on in the middle of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.events import Channel
from llm_local.messages import Message
from llm_local.text.channels import ReasoningTags
from llm_local.text.template_language import REASONING_NAMES

__all__ = ["check_open", "open_answer"]

_HINT: Final = "Ask for the whole answer again."


def check_open(message: Message) -> Message:
    """The message, if it can be the first part of an answer.

    Raises:
        InvalidRequest: it is not the assistant's, empty, or has calls.
    """
    if message.role != "assistant":
        raise InvalidRequest(
            f"Only an answer can be continued, not a message of the role {message.role}.", param="messages"
        )
    if message.tool_calls:
        raise InvalidRequest("An answer that calls tools cannot be continued.", _HINT, param="messages")
    if not (message.content or message.reasoning):
        raise InvalidRequest("There is nothing of the answer to continue.", _HINT, param="messages")
    return message


def open_answer(
    prompt: str,
    turns: Sequence[Mapping[str, Any]],
    render: Callable[[Sequence[Mapping[str, Any]]], str],
    tags: ReasoningTags | None,
    *,
    reasoning: str,
    opened: bool,
) -> tuple[str, Channel]:
    """The prompt up to the end of the last of `turns`, and the channel that goes on there.

    `prompt` is what the model was given before the answer, and `opened` says that it ends in an open reasoning tag;
    `reasoning` is what the model thought; `render` gives the turns when they are all over. The template's own way to
    write the answer is taken when it begins with that prompt and has the reasoning in it. Else the reasoning is put
    there as models write it.

    Raises:
        InvalidRequest: the template writes an answer in another way than it asks for one.
    """
    last = turns[-1]
    content = last["content"]
    channel: Channel = "content" if content else "reasoning"
    # a nonce, and made so that no filter of a template changes it
    mark = f"~{secrets.randbits(64)}.end~"
    marked = (
        {"content": content + mark}
        if content
        else {name: reasoning + mark for name in REASONING_NAMES if name in last}
    )
    before, *after = render([*turns[:-1], {**last, **marked}]).split(mark)
    if len(after) == 1 and before.startswith(prompt) and reasoning.strip() in before[len(prompt) :]:
        return before, channel
    if tags is None or tags.anywhere or not (opened or reasoning):
        raise InvalidRequest(
            "This model's chat template cannot leave an answer open: it writes one in another way than it asks for it.",
            _HINT,
            param="messages",
        )
    thought = prompt + ("" if opened else f"{tags.opens}\n") + reasoning
    return (f"{thought}\n{tags.closes}\n\n{content}" if content else thought), channel
