"""What clients of the Responses API send, as far as it means something here. See `schemas` for what is not declared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llm_local.api.bodies import DialectModel
from llm_local.api.openai.schemas import MAX_MESSAGES, MAX_TOOLS, ContentPart, NumTokens, SamplingFields

__all__ = [
    "FlatFormat",
    "FlatTool",
    "InputItem",
    "Reasoning",
    "ReasoningPart",
    "ResponsesRequest",
    "TextOptions",
]


class ReasoningPart(DialectModel):
    """A piece of reasoning that comes back."""

    text: str | None = None


class InputItem(DialectModel):
    """One item of the input: a message (the type may be left out), a call, its result, or earlier reasoning."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    output: str | list[ContentPart] | None = None
    summary: list[ReasoningPart] | None = None
    # what earlier answers have, and what means nothing here
    id: str | None = None
    status: str | None = None
    encrypted_content: str | None = None


class FlatTool(DialectModel):
    """A tool. Chat requests have the same under `function`."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatFormat(DialectModel):
    """What the answer must be. Chat requests have the schema under `json_schema`."""

    type: str = "text"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(DialectModel):
    """How the text of the answer is made."""

    format: FlatFormat | None = None


class Reasoning(DialectModel):
    """How much the model reasons. `summary` is always what it really thought."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(SamplingFields):
    """`POST /v1/responses`."""

    model: str
    input: str | Annotated[list[InputItem], Field(max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: NumTokens | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    store: bool | None = None
    # refused, since answers are not kept
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None
    # refused, since templates are programs
    chat_template: Any = None
