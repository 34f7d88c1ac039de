"""One request's way from sampled ids to events. Sans-I/O: feed it, read what it returns.

The stages: detokenizer, channels, stop strings (in the answer only), tool calls. What each says depends on the whole
text only and not on its pieces, so a streamed reply is the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_local.events import Channel, Delta, TokenLogprob, ToolCallDelta, ToolCallEvent
from llm_local.text.channels import ChannelSplitter
from llm_local.text.detokenizer import Detokenizer
from llm_local.text.stops import StopMatcher
from llm_local.text.tool_reader import Piece, ToolReader

__all__ = ["ReplyEvent", "TextPipeline"]

ReplyEvent = Delta | ToolCallDelta | ToolCallEvent

# Longer text goes on in pieces: a stage copies what follows a marker, which must not add up to the square.
MAX_PIECE: Final = 1024


class TextPipeline:
    """Makes events of ids, and keeps ids together with the text they became.

    `num_tokens` counts the tokens fed.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stops: Sequence[str] = (),
        *,
        channels: ChannelSplitter | None = None,
        tools: ToolReader | None = None,
    ) -> None:
        """Without `channels` all text is the answer; without `tools` an answer has no calls."""
        self._detokenizer = detokenizer
        self._channels = channels
        self._stops = StopMatcher(stops)
        self._tools = tools
        self.num_tokens = 0
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def stopped(self) -> bool:
        """True once a stop string was found: the reply is over."""
        return self.stop is not None

    @property
    def stop(self) -> str | None:
        """The stop string that was found; None before."""
        return self._stops.matched

    @property
    def num_calls(self) -> int:
        """Complete tool calls so far."""
        return 0 if self._tools is None else self._tools.num_calls

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> list[ReplyEvent]:
        """Add one sampled token; return the events it completes, none while text is held back."""
        self.num_tokens += 1
        self._token_ids.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        return self._read(self._detokenizer.feed(token_id))

    def finish(self) -> list[ReplyEvent]:
        """The reply is over: return held-back text, and ids that made none (such as the end token)."""
        events = self._read(self._detokenizer.finish())
        if self._channels is not None:
            events += self._sort(self._channels.finish())
        rest = self._stops.finish()
        if self._tools is None:
            events += self._say([rest])
        else:
            events += self._say(self._tools.feed(rest)) + self._say(self._tools.finish())
        return [*events, self._delta("content", "")] if self._token_ids else events

    def _read(self, text: str) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for start in range(0, len(text), MAX_PIECE):
            piece = text[start : start + MAX_PIECE]
            events += self._sort(
                [("content", piece)] if self._channels is None else self._channels.feed(piece)
            )
        return events

    def _sort(self, pieces: Sequence[tuple[Channel, str]]) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for channel, text in pieces:
            if self.stopped:
                break
            if channel == "reasoning":
                events.append(self._delta(channel, text))
                continue
            text = self._stops.feed(text)
            events += self._say([text] if self._tools is None else self._tools.feed(text))
        return events

    def _say(self, pieces: Sequence[Piece]) -> list[ReplyEvent]:
        return [
            self._delta("content", piece) if isinstance(piece, str) else piece for piece in pieces if piece
        ]

    def _delta(self, channel: Channel, text: str) -> Delta:
        delta = Delta(channel, text, tuple(self._token_ids), tuple(self._logprobs))
        self._token_ids.clear()
        self._logprobs.clear()
        return delta
