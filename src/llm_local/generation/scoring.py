"""How likely a given text is, token by token, without generating."""

from __future__ import annotations

from collections.abc import Callable

from llm_local.engine.driver import Driver
from llm_local.engine.protocol import PrefillStep, TokenRequest
from llm_local.errors import InvalidRequest
from llm_local.events import TokenLogprob
from llm_local.messages import check_text
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.text.fit import fit
from llm_local.text.templates import ChatTemplate

__all__ = ["Scorer"]


class Scorer:
    """Scores texts with one loaded model. `new_id` names the engine's sequences."""

    def __init__(
        self, loaded: LoadedModel, template: ChatTemplate, driver: Driver, new_id: Callable[[], str]
    ) -> None:
        self._loaded = loaded
        self._template = template
        self._driver = driver
        self._new_id = new_id

    def score(self, text: str, given: str, top_logprobs: int) -> tuple[TokenLogprob, ...]:
        """See `TextGenerator.score`."""
        check_text(given, "given")
        check_text(text, "text")
        given_ids, text_ids = self._template.continuation_ids(given, text)
        if not text_ids:
            raise InvalidRequest("The text to score is empty.", param="text")
        prompt_ids = given_ids + text_ids
        fit(len(prompt_ids), 1, self._loaded.info.context_length, explicit=True)
        options = GenerationOptions(max_new_tokens=1, temperature=0, logprobs=True, top_logprobs=top_logprobs)
        sequence_id = self._new_id()
        self._driver.submit(TokenRequest(sequence_id, prompt_ids, options, prompt_logprobs=True))
        found: list[TokenLogprob] = []
        try:
            while True:
                step = self._driver.next_step(sequence_id)
                if isinstance(step, PrefillStep):
                    found += step.logprobs
                elif step.error is not None:
                    raise step.error
                elif step.last:
                    return tuple(found[-len(text_ids) :])
        finally:
            self._driver.abandon(sequence_id)
