"""What the native dialect's bodies hold. The bounds of numbers are those of `llm_local.options`, checked there."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from llm_local.api.bodies import DialectModel
from llm_local.options import BOUNDS

__all__ = [
    "BatchBody",
    "ChatBody",
    "ConstraintBody",
    "DetokenizeBody",
    "EmbeddingsBody",
    "GenerateBody",
    "LoadBody",
    "MessageBody",
    "OptionsBody",
    "RerankBody",
    "RunBody",
    "ToolBody",
    "ToolCallBody",
    "TokenizeBody",
    "UnloadBody",
]

MAX_MESSAGES: Final = 4096
MAX_TOOLS: Final = 128
MAX_BATCH: Final = 256
MAX_TEXTS: Final = 2048
MAX_TOOL_CALLS: Final = 128
MAX_KEEP_ALIVE_S: Final = 30 * 86_400.0


def _option(name: str, description: str) -> Any:
    """An optional number whose bounds are shown here and enforced by the options themselves, with their words."""
    bound = BOUNDS[name]
    low = "exclusiveMinimum" if bound.open_low else "minimum"
    return Field(
        default=None, description=description, json_schema_extra={low: bound.low, "maximum": bound.high}
    )


class ConstraintBody(DialectModel):
    """What the answer must be. `value` is the schema, pattern, list of choices or grammar; `json` has none."""

    kind: Literal["json", "json_schema", "regex", "choice", "grammar", "gbnf", "lark"]
    value: str | list[str] | dict[str, Any] = ""


class OptionsBody(DialectModel):
    """How to generate. What is absent or null comes from the model's makers and the server's settings."""

    max_new_tokens: int | None = _option("max_new_tokens", "Longest reply, in tokens.")
    temperature: float | None = _option("temperature", "0 always takes the most likely token.")
    top_k: int | None = _option("top_k", "Draw from this many most likely tokens; 0 is off.")
    top_p: float | None = _option("top_p", "Draw from the tokens that make up this probability; 1 is off.")
    min_p: float | None = _option("min_p", "Drop tokens below this share of the most likely one; 0 is off.")
    typical_p: float | None = _option("typical_p", "Draw from the most typical tokens; 1 is off.")
    repetition_penalty: float | None = _option("repetition_penalty", "Above 1 makes used tokens less likely.")
    presence_penalty: float | None = _option("presence_penalty", "Lowers tokens that are in the reply, once.")
    frequency_penalty: float | None = _option(
        "frequency_penalty", "Lowers tokens by how often they are there."
    )
    logit_bias: dict[str, float] | None = Field(
        default=None, description="Token id to what is added to its logit."
    )
    stop: str | list[str] | None = Field(
        default=None, description="Texts that end the reply and are not in it."
    )
    seed: int | None = _option("seed", "Makes the reply repeatable; the answer says which one was used.")
    logprobs: bool | None = Field(default=None, description="Tell the log-probability of each token.")
    top_logprobs: int | None = _option("top_logprobs", "Alternatives of each token; needs logprobs.")
    constraint: ConstraintBody | None = None
    think: bool | Literal["default", "on", "off", "low", "medium", "high"] | None = Field(
        default=None,
        description="Whether the model reasons, or how much. Models without such a switch refuse.",
    )
    max_thinking_tokens: int | None = _option(
        "max_thinking_tokens", "Ends the reasoning after so many tokens."
    )


class RunBody(OptionsBody):
    """What every request for a reply may hold."""

    model: str | None = Field(
        default=None, description="Absent is the server's default model.", max_length=512
    )
    keep_alive_s: float | None = Field(
        default=None, ge=-1, le=MAX_KEEP_ALIVE_S, description="How long the model stays after this; -1 stays."
    )
    deadline_s: float | None = Field(
        default=None, ge=1, le=86_400, description="Seconds after which nobody wants the reply any more."
    )
    priority: int = Field(
        default=0, ge=-10, le=10, description="Higher is served first; above 0 is for admins."
    )


class GenerateBody(RunBody):
    """A text to continue as it is, without chat template: a prompt, or its token ids."""

    prompt: str | None = None
    prompt_ids: list[int] | None = Field(default=None, min_length=1)


class BatchBody(RunBody):
    """Several texts to continue, each by itself and all with the same options."""

    prompts: list[str] = Field(min_length=1, max_length=MAX_BATCH)


class ToolCallBody(DialectModel):
    """A call that an assistant's message asks for."""

    id: str = Field(max_length=256)
    name: str = Field(max_length=256)
    arguments: dict[str, Any] = Field(default_factory=dict)


class MessageBody(DialectModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    name: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallBody] = Field(default_factory=list, max_length=MAX_TOOL_CALLS)
    tool_call_id: str | None = None


class ToolBody(DialectModel):
    """A tool that the model may call; `parameters` is a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False


class ChatBody(RunBody):
    """A conversation to answer. With `conversation_id` the messages go on from what is stored under it."""

    messages: list[MessageBody] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[ToolBody] = Field(default_factory=list, max_length=MAX_TOOLS)
    tool_choice: str | None = Field(
        default=None, description="auto, none, required, or the name of a tool.", max_length=256
    )
    context_policy: Literal["refuse", "trim-oldest"] = Field(
        default="refuse", description="What happens to a conversation that does not fit the window."
    )
    default_system: bool = Field(
        default=True, description="Begin with the server's system prompt, if it has one."
    )
    conversation_id: str | None = Field(
        default=None, description="A stored conversation to go on with.", max_length=64
    )
    store: bool = Field(default=False, description="Keep this as a new conversation; the answer has its id.")


class EmbeddingsBody(DialectModel):
    """Texts to turn into vectors."""

    model: str | None = Field(default=None, max_length=512)
    texts: str | list[str]
    dimensions: int | None = Field(default=None, ge=1, le=1_000_000)


class RerankBody(DialectModel):
    """Documents to put in the order of how well they answer a query."""

    model: str | None = Field(default=None, max_length=512)
    query: str
    documents: list[str] = Field(min_length=1, max_length=MAX_TEXTS)
    top_n: int | None = Field(default=None, ge=1, le=MAX_TEXTS)


class TokenizeBody(DialectModel):
    """A text to turn into token ids. With `special`, what the tokenizer puts around every text comes too."""

    model: str | None = Field(default=None, max_length=512)
    text: str
    special: bool = False


class DetokenizeBody(DialectModel):
    """Token ids to turn into text. Without `special`, control tokens are left out."""

    model: str | None = Field(default=None, max_length=512)
    ids: list[int]
    special: bool = True


class LoadBody(DialectModel):
    """A model to bring into memory."""

    model: str = Field(min_length=1, max_length=512)
    keep_alive_s: float | None = Field(default=None, ge=-1, le=MAX_KEEP_ALIVE_S)


class UnloadBody(DialectModel):
    """A model to take out of memory."""

    model: str = Field(min_length=1, max_length=512)
