"""One request's way from sampled ids to events. Sans-I/O: feed it, read what it returns.

Further stages (reasoning channels, tool-call formats) come between the stop matcher and the delta.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_local.events import Delta, TokenLogprob
from llm_local.text.detokenizer import Detokenizer, Tokenizer
from llm_local.text.stops import StopMatcher

__all__ = ["TextPipeline"]


class TextPipeline:
    """Detokenizes, looks for stop strings, and keeps ids together with the text they became.

    `num_tokens` counts the tokens fed.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), context_ids: Sequence[int] = ()
    ) -> None:
        """`context_ids` are the last ids of a prompt that the reply continues in mid-text, else none."""
        self._detokenizer = Detokenizer(tokenizer, context_ids)
        self._stops = StopMatcher(stops)
        self.num_tokens = 0
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def stopped(self) -> bool:
        """True once a stop string was found: the reply is over."""
        return self._stops.matched is not None

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> list[Delta]:
        """Add one sampled token; return the deltas it completes, none while text is held back."""
        self.num_tokens += 1
        self._token_ids.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._stops.feed(self._detokenizer.feed(token_id))
        return [self._delta(text)] if text else []

    def finish(self) -> list[Delta]:
        """The reply is over: return held-back text, and ids that made none (such as the end token)."""
        text = self._stops.feed(self._detokenizer.finish()) + self._stops.finish()
        return [self._delta(text)] if text or self._token_ids else []

    def _delta(self, text: str) -> Delta:
        delta = Delta("content", text, tuple(self._token_ids), tuple(self._logprobs))
        self._token_ids.clear()
        self._logprobs.clear()
        return delta
