"""What people and models say to each other: the values a conversation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llm_local.errors import InvalidRequest

__all__ = ["Message", "Role", "ToolCall", "ToolDefinition", "check_text"]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model asks for. `arguments` is the decoded JSON object."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool the model may call. `parameters` is a JSON schema of type object.

    A call whose arguments the schema does not allow is no call of a `strict` tool: it comes back as text.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    `reasoning` is what the model thought before `content`; `tool_call_id` ties a tool's result to its call.

    Raises:
        InvalidRequest: unknown role, or content that is not text.
    """

    role: Role
    content: str
    name: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InvalidRequest(
                f"Unknown message role {self.role!r}.",
                f"Use one of {', '.join(get_args(Role))}.",
                param="role",
            )
        if not isinstance(self.content, str):
            raise InvalidRequest(
                f"Message content must be text, not {type(self.content).__name__}.", param="content"
            )
        check_text(self.content, "content")


def check_text(text: str, param: str) -> None:
    """Raise InvalidRequest, naming `param`, when a text holds half of a surrogate pair: no encoding has it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The {param} is not valid Unicode: a lone surrogate at character {error.start}.", param=param
        ) from None
