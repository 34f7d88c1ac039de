"""What Anthropic clients send, as far as it means something here.

A field that is not declared is accepted and named in the header `x-llm-local-ignored`: `metadata`, `cache_control`,
`context_management` and the like. What would change the answer and cannot be done is declared and refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llm_local.api.bodies import DialectModel

__all__ = [
    "AnthropicMessage",
    "AnthropicTool",
    "AnthropicToolChoice",
    "ContentBlock",
    "CountTokensRequest",
    "DocumentSource",
    "MessagesRequest",
    "OutputConfig",
    "OutputFormat",
    "ThinkingConfig",
]


class DocumentSource(DialectModel):
    """Where a document's or picture's content is; only text that is right here can be read."""

    type: str
    data: str | None = None
    content: str | list[ContentBlock] | None = None
    media_type: str | None = None


class ContentBlock(DialectModel):
    """A part of a message. Which fields it needs, its type says.

    - `text`: `text`. `thinking`: `thinking`, and a `signature` that nobody checks.
    - `tool_use`: `id`, `name`, `input`. `tool_result`: `tool_use_id`, `content`, `is_error`.
    - `document` and `search_result`: `title`, `context`, and text as `source` or `content`.
    """

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[ContentBlock] | None = None
    is_error: bool | None = None
    source: DocumentSource | str | None = None
    title: str | None = None
    context: str | None = None


class AnthropicMessage(DialectModel):
    """One turn. Turns of one role that follow each other are one turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class AnthropicTool(DialectModel):
    """A tool of the client's own. Those of other types than `custom` run at Anthropic, and are refused."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class AnthropicToolChoice(DialectModel):
    """Which tools the model may or must call: by itself, any, the one of this `name`, or none."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(DialectModel):
    """Whether the model reasons. `display` "omitted" leaves the text of it out of the answer."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(DialectModel):
    """A schema that the answer is held to."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(DialectModel):
    """How much the model reasons, and what form the answer has."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(DialectModel):
    """`POST /v1/messages/count_tokens`: what decides how many tokens the model reads."""

    model: str
    messages: Annotated[list[AnthropicMessage], Field(min_length=1)]
    system: str | list[ContentBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[Any] | None = None
    container: Any = None


class MessagesRequest(CountTokensRequest):
    """`POST /v1/messages`. `seed`, `min_p` and `repetition_penalty` are extensions."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
