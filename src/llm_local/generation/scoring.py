"""How likely a given text is, token by token, without generating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_local.engine.driver import Driver
from llm_local.engine.protocol import PrefillStep, TokenRequest
from llm_local.errors import InvalidRequest
from llm_local.events import TokenLogprob
from llm_local.generation.tokens import TokenView
from llm_local.messages import check_text
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.text.fit import fit
from llm_local.text.templates import ChatTemplate

__all__ = ["PreparedScore", "Scorer"]


@dataclass(frozen=True, slots=True)
class PreparedScore:
    """A text that is known to fit, as tokens, with those that come before it."""

    given_ids: tuple[int, ...]
    text_ids: tuple[int, ...]
    top_logprobs: int

    def request(self, sequence_id: str, *, owner: str | None = None, priority: int = 0) -> TokenRequest:
        """What goes into the engine; its prefill steps have the log-probabilities of everything but the first token."""
        options = GenerationOptions(
            max_new_tokens=1, temperature=0, logprobs=True, top_logprobs=self.top_logprobs
        )
        return TokenRequest(
            sequence_id,
            self.given_ids + self.text_ids,
            options,
            owner=owner,
            priority=priority,
            prompt_logprobs=True,
        )

    def logprobs(self, found: Sequence[TokenLogprob]) -> tuple[TokenLogprob, ...]:
        """Of all that the engine gave those of the text; one fewer than it has tokens where nothing is before it."""
        return tuple(found[-len(self.text_ids) :])


class Scorer:
    """Scores texts with one loaded model. `new_id` names the engine's sequences."""

    def __init__(
        self, loaded: LoadedModel, template: ChatTemplate, driver: Driver, new_id: Callable[[], str]
    ) -> None:
        self._loaded = loaded
        self._template = template
        self._driver = driver
        self._new_id = new_id
        self._tokens = TokenView(loaded.tokenizer, loaded.info)

    def prepare(self, text: str | Sequence[int], given: str, top_logprobs: int) -> PreparedScore:
        """A text, or its token ids, after `given`.

        Raises:
            InvalidRequest: it has no tokens, or an id that the model does not have.
            ContextLengthExceeded: both together and one more token do not fit the window.
        """
        check_text(given, "given")
        if isinstance(text, str):
            check_text(text, "text")
            given_ids, text_ids = self._template.continuation_ids(given, text)
        else:
            given_ids = tuple(self._tokens.encode(given)) if given else ()
            text_ids = self._tokens.decoded(text).token_ids
        if not text_ids:
            raise InvalidRequest("The text to score is empty.", param="text")
        fit(len(given_ids) + len(text_ids), 1, self._loaded.info.context_length, explicit=True)
        return PreparedScore(tuple(given_ids), tuple(text_ids), top_logprobs)

    def score(self, text: str, given: str, top_logprobs: int) -> tuple[TokenLogprob, ...]:
        """See `TextGenerator.score`."""
        prepared = self.prepare(text, given, top_logprobs)
        sequence_id = self._new_id()
        self._driver.submit(prepared.request(sequence_id))
        found: list[TokenLogprob] = []
        try:
            while True:
                step = self._driver.next_step(sequence_id)
                if isinstance(step, PrefillStep):
                    found += step.logprobs
                elif step.error is not None:
                    raise step.error
                elif step.last:
                    return prepared.logprobs(found)
        finally:
            self._driver.abandon(sequence_id)
