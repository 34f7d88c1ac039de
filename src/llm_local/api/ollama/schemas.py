"""What the bodies of Ollama's dialect hold. Whatever else comes is reported in a header, not refused.

Fields that this dialect checks in its own words are `Any` here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from llm_local.api.bodies import DialectModel

__all__ = [
    "OllamaCall",
    "OllamaChat",
    "OllamaCopy",
    "OllamaEmbed",
    "OllamaEmbeddings",
    "OllamaFunction",
    "OllamaGenerate",
    "OllamaMessage",
    "OllamaNamed",
    "OllamaOptions",
    "OllamaPull",
    "OllamaReply",
    "OllamaShow",
    "OllamaTool",
    "OllamaToolFunction",
]

MAX_MESSAGES: Final = 10_000
MAX_TOOLS: Final = 1024

ModelText = Annotated[str, Field(max_length=512)]
KeepAlive = Annotated[
    int | float | str | None,
    Field(description='Seconds, or a duration such as "5m"; negative stays, 0 goes at once.'),
]


class OllamaOptions(DialectModel):
    """Ollama's `options`. The second block has no effect here, which the answer's header says."""

    seed: Any = Field(default=None, description="Makes the reply repeatable; -1 draws one.")
    num_predict: Any = Field(default=None, description="Longest reply in tokens, at most the room there is.")
    temperature: Any = Field(default=None, description="0 always takes the most likely token.")
    top_k: Any = Field(default=None, description="Draw from this many most likely tokens; 0 is off.")
    top_p: Any = Field(default=None, description="Draw from the tokens that make up this probability.")
    min_p: Any = Field(default=None, description="Drop tokens below this share of the most likely one.")
    typical_p: Any = Field(default=None, description="Draw from the most typical tokens; 1 is off.")
    repeat_penalty: Any = Field(default=None, description="Above 1 makes used tokens less likely.")
    repeat_last_n: Any = Field(
        default=None, description="-1 (penalties look at all tokens) or 0 (no penalties)."
    )
    presence_penalty: Any = Field(default=None, description="Lowers tokens that are in the reply, once.")
    frequency_penalty: Any = Field(default=None, description="Lowers tokens by how often they are there.")
    stop: Any = Field(default=None, description="Texts that end the reply and are not in it.")

    num_ctx: Any = Field(default=None, description="No effect: the window is always the model's whole one.")
    num_keep: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    main_gpu: Any = None
    num_thread: Any = None
    use_mmap: Any = None
    draft_num_predict: Any = None


class OllamaReply(DialectModel):
    """What every request for a reply may hold."""

    model: ModelText = ""
    stream: bool | None = Field(default=None, description="Absent is true.")
    format: Any = Field(default=None, description='"json", or a JSON schema.')
    options: OllamaOptions | None = None
    keep_alive: KeepAlive = None
    think: bool | str | None = Field(default=None, description="true, false, low, medium, high or max.")
    truncate: bool | None = Field(default=None, description="false refuses what is too long. Absent is true.")
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class OllamaGenerate(OllamaReply):
    """`POST /api/generate`."""

    prompt: str | None = Field(default=None, description="Empty only loads the model.")
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = Field(default=None, description="The `context` of an earlier answer.")
    raw: bool | None = Field(default=None, description="true takes the prompt as it is.")
    images: list[Any] | None = None


class OllamaFunction(DialectModel):
    """A function that is called; `arguments` is an object."""

    name: str
    arguments: dict[str, Any] | None = None
    index: int | None = None


class OllamaCall(DialectModel):
    """A call in an earlier assistant's message. Many clients drop the id."""

    id: str | None = None
    function: OllamaFunction


class OllamaMessage(DialectModel):
    """One message of a conversation."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: Annotated[list[OllamaCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaToolFunction(DialectModel):
    """What the model may call."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OllamaTool(DialectModel):
    """A tool of the type function."""

    type: str | None = None
    function: OllamaToolFunction


class OllamaChat(OllamaReply):
    """`POST /api/chat`."""

    messages: Annotated[list[OllamaMessage], Field(max_length=MAX_MESSAGES)] | None = Field(
        default=None, description="None only loads the model."
    )
    tools: Annotated[list[OllamaTool], Field(max_length=MAX_TOOLS)] | None = None


class OllamaEmbed(DialectModel):
    """`POST /api/embed`."""

    model: ModelText = ""
    input: Any = Field(default=None, description="A text, or a list of texts.")
    truncate: bool | None = Field(default=None, description="false refuses what is too long. Absent is true.")
    dimensions: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class OllamaEmbeddings(DialectModel):
    """`POST /api/embeddings`, the older one of the two."""

    model: ModelText = ""
    prompt: str | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class OllamaNamed(DialectModel):
    """A request about one model; old clients call it `name`."""

    model: ModelText | None = None
    name: ModelText | None = None


class OllamaShow(OllamaNamed):
    """`POST /api/show`."""

    verbose: bool | None = None


class OllamaPull(OllamaNamed):
    """`POST /api/pull`."""

    stream: bool | None = Field(default=None, description="Absent is true.")
    insecure: bool | None = None


class OllamaCopy(DialectModel):
    """`POST /api/copy`."""

    source: ModelText | None = None
    destination: ModelText | None = None
