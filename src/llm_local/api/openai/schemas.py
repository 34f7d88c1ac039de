"""What OpenAI clients send, as far as it means something here.

A field that is not declared is accepted and named in the header `x-llm-local-ignored`: `user`, `metadata`, `store` and
the like change nothing about what a model says. What would change it and cannot be done is declared and refused.
Numbers have OpenAI's bounds where those are narrower than ours. The extensions are those of vLLM and llama.cpp.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from llm_local.api.bodies import DialectModel

__all__ = [
    "ChatMessage",
    "ChatRequest",
    "CompletionRequest",
    "ContentPart",
    "EmbeddingRequest",
    "FunctionCall",
    "FunctionDefinition",
    "GenerationRequest",
    "JsonSchemaFormat",
    "NumTokens",
    "ReplyCall",
    "ResponseFormat",
    "SamplingFields",
    "StreamOptions",
    "StructuredOutputs",
    "Tool",
]

MAX_CHOICES: Final = 8
"""The bound of `n` and `best_of`: each choice takes a place in the line."""
MAX_MESSAGES: Final = 4096
MAX_TOOLS: Final = 128
MAX_CALLS: Final = 128
"""Tool calls in one earlier message."""

Penalty = Annotated[float, Field(ge=-2, le=2)]
NumTokens = Annotated[int, Field(ge=1)]


class StreamOptions(DialectModel):
    """`include_usage` asks for one more chunk, with the token counts and without choices."""

    include_usage: bool | None = None


class StructuredOutputs(DialectModel):
    """vLLM's way to ask for a constraint; exactly one of them."""

    json_: str | dict[str, Any] | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class SamplingFields(DialectModel):
    """How tokens are drawn, and what the text must be: in all requests that generate."""

    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    # extensions
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None


class GenerationRequest(SamplingFields):
    """What chat and completion requests have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None


class ContentPart(DialectModel):
    """A part of a message's content. Text and refusals have their text; all other kinds are refused."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(DialectModel):
    """`arguments` is JSON text; an object is taken as well, and nothing means no arguments."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ReplyCall(DialectModel):
    """A call in an earlier assistant message."""

    id: str | None = None
    type: str | None = None
    function: FunctionCall


class ChatMessage(DialectModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ReplyCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: Any = None
    audio: Any = None


class FunctionDefinition(DialectModel):
    """What the model may call."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(DialectModel):
    """A tool of the type `function`; others are refused."""

    type: str = "function"
    function: FunctionDefinition | None = None


class JsonSchemaFormat(DialectModel):
    """A schema for the answer. Whatever `strict` says, it is enforced."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(DialectModel):
    """What the answer must be. `schema` beside the type `json_object` is llama.cpp's."""

    type: str
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: NumTokens | None = None
    max_completion_tokens: NumTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    reasoning: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_thinking_tokens: int | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    modalities: list[str] | None = None
    # refused
    functions: Any = None
    function_call: Any = None
    chat_template: Any = None
    chat_parser: Any = None


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = "<|endoftext|>"
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None


class EmbeddingRequest(DialectModel):
    """`POST /v1/embeddings`. Token ids are those of the model that is asked."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
