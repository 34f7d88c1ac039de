"""The one stream every front-end folds over.

Law of the stream: `ContextTrimmed? Progress* (Delta | ToolCallDelta | ToolCallEvent)* Finish`, with exactly one
`Finish`, last. (`Progress` may also come between deltas of other requests, never after the first delta of its own.)
A call is one or more `ToolCallDelta` of the same index, whose pieces join to its arguments as JSON, then its
`ToolCallEvent`. A call that is begun and turns out to be none, or is cut, has no `ToolCallEvent`: its text follows as
content. So a reader may ignore either of the two, and who ignores the deltas never sees a broken call.
Failures are raised from the iterator; a cancelled stream ends in `Finish("cancelled")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from llm_local.errors import EngineError
from llm_local.messages import ToolCall

__all__ = [
    "Channel",
    "Completion",
    "ContextTrimmed",
    "Delta",
    "Event",
    "Finish",
    "FinishReason",
    "Progress",
    "Stage",
    "Timings",
    "TokenLogprob",
    "ToolCallDelta",
    "ToolCallEvent",
    "ToolEvent",
    "ToolOutcome",
    "ToolResult",
    "ToolStarted",
    "Usage",
    "fold",
]

Channel = Literal["content", "reasoning"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
Stage = Literal["queued", "downloading", "verifying", "loading", "prefill", "embedding"]
ToolOutcome = Literal["ok", "failed", "timed_out", "denied", "invalid", "unknown", "over_limit", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of one token under the model's own distribution, before any sampling option.

    `top` holds the most likely alternatives as (token id, log-probability), best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ContextTrimmed:
    """The conversation did not fit the window, and its oldest turns were left out as the caller's policy says."""

    num_messages: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. Units: places (queued), bytes (downloading, verifying, loading), tokens (the others).

    `label` names what is in progress (a file name), for people.
    """

    stage: Stage
    done: int
    total: int | None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text. `token_ids` are the sampled tokens that made it; held-back text comes with a later delta."""

    channel: Channel
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a call that is being written, whose `arguments` join to JSON text.

    It is no call before the `ToolCallEvent` with its `id` has come. One that is broken off, or turns out to be none,
    never gets that event: all its text comes as content instead, and its `index` is not used again. Who cannot take
    back what has been passed on should pass deltas on when the event has come. `index` counts from 0.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """The model asked for a tool."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts: what the model really saw and sampled (the end token is a sampled token).

    With speculative decoding, `accepted_tokens` of `drafted_tokens` guesses came true; they are counted in
    `completion_tokens` like any other. Of a reply that was kept from an equal request, all tokens are cached and
    replayed ones: nothing was computed.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    replayed_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in monotonic seconds. `first_token_s` counts from submission."""

    queued_s: float = 0.0
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    first_token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event of a stream. `stop` is the stop string that ended the reply, where one did."""

    reason: FinishReason
    usage: Usage
    timings: Timings
    stop: str | None = None


Event = ContextTrimmed | Progress | Delta | ToolCallDelta | ToolCallEvent | Finish


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A call is allowed and runs now. `source` says for people where the tool comes from."""

    call: ToolCall
    source: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What became of a call, once for each. `text` is what the model reads, whatever the outcome.

    - `ok`, `failed`: the tool ran, and gave a result or said why it has none.
    - `timed_out`: it was not waited for any longer; it may still run.
    - `denied`: nobody allowed it. `invalid`: the arguments are not what the tool takes. `unknown`: no such tool.
    - `over_limit`: it came after the last call or round that was allowed. `cancelled`: before or while it ran.

    `omitted_chars` of a too long result were left out, which the text says. `run_s`: seconds it was waited for.
    """

    call: ToolCall
    source: str
    outcome: ToolOutcome
    text: str
    omitted_chars: int = 0
    run_s: float = 0.0


# Between the streams of a conversation with tools; no stream of one reply has them.
ToolEvent = ToolStarted | ToolResult


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: the fold of one stream."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    trimmed: ContextTrimmed | None = None
    stop: str | None = None


def fold(events: Iterable[Event]) -> Completion:
    """Read a stream to its end and return the whole answer.

    Raises:
        EngineError: the stream ended without a Finish, which is a bug in whoever made it.
    """
    content: list[str] = []
    reasoning: list[str] = []
    tool_calls: list[ToolCall] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    trimmed: ContextTrimmed | None = None
    for event in events:
        if isinstance(event, ContextTrimmed):
            trimmed = event
        elif isinstance(event, Delta):
            (content if event.channel == "content" else reasoning).append(event.text)
            token_ids.extend(event.token_ids)
            logprobs.extend(event.logprobs)
        elif isinstance(event, ToolCallEvent):
            tool_calls.append(event.call)
        elif isinstance(event, Finish):
            return Completion(
                text="".join(content),
                reasoning="".join(reasoning),
                tool_calls=tuple(tool_calls),
                token_ids=tuple(token_ids),
                logprobs=tuple(logprobs),
                finish_reason=event.reason,
                usage=event.usage,
                timings=event.timings,
                trimmed=trimmed,
                stop=event.stop,
            )
    raise EngineError("The event stream ended without a Finish event.")
