"""From a question and its choices to one engine request, and from its scores to a decision. See `choices`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from llm_local.engine.driver import Driver
from llm_local.engine.protocol import PrefillStep, TokenRequest, TokenStep
from llm_local.errors import EngineError, InvalidRequest
from llm_local.events import Progress
from llm_local.generation.choices import ChoiceScore, Decision, DecisionOptions, check_choices, share
from llm_local.messages import Message, check_text
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.text.fit import fit
from llm_local.text.templates import ChatTemplate, RenderedPrompt

__all__ = ["Decider", "PreparedDecision"]

WITHOUT_REASONING: Final = "these are the probabilities of an answer without reasoning."
# How likely it must be that the model would rather reason for people to be told.
NOTABLE_REASONING: Final = 0.01


@dataclass(frozen=True, slots=True)
class PreparedDecision:
    """A decision that is known to fit: what the model will see, and the choices as tokens."""

    prompt_ids: tuple[int, ...]
    choices: tuple[str, ...]
    choice_ids: tuple[tuple[int, ...], ...]
    options: DecisionOptions
    whole: bool
    end_token_ids: frozenset[int]
    notices: tuple[str, ...] = ()
    reasoning_ids: tuple[int, ...] = ()
    """What opens the model's reasoning, where nothing keeps it from that; scored beside the choices."""

    def request(self, sequence_id: str, *, owner: str | None = None, priority: int = 0) -> TokenRequest:
        """What goes into the engine."""
        return TokenRequest(
            sequence_id=sequence_id,
            prompt_ids=self.prompt_ids,
            options=GenerationOptions(max_new_tokens=1, temperature=0),
            stop_token_ids=self.end_token_ids if self.whole else frozenset(),
            owner=owner,
            priority=priority,
            continuations=self.choice_ids + ((self.reasoning_ids,) if self.reasoning_ids else ()),
        )

    def decision(self, step: TokenStep) -> Decision:
        """What the last step of the request means.

        Raises:
            LocalLLMError: it failed.
            EngineError: it was cancelled.
        """
        if step.error is not None:
            raise step.error
        if step.scores is None or step.report is None:
            raise EngineError("The decision was cancelled.")
        scores, count = step.scores, len(self.choices)
        logprobs = scores.logprobs[:count]
        ends = scores.end_logprobs[:count] or (None,) * count
        joint = [
            math.fsum((*tokens, 0.0 if end is None else end))
            for tokens, end in zip(logprobs, ends, strict=True)
        ]
        reasoning = math.exp(math.fsum(scores.logprobs[count])) if self.reasoning_ids else None
        shares = share([one / length for one, length in zip(joint, self._lengths(), strict=True)])
        return Decision(
            choices=tuple(map(ChoiceScore, self.choices, self.choice_ids, logprobs, ends, joint, shares)),
            coverage=math.fsum(map(math.exp, joint)),
            whole=self.whole,
            normalize=self.options.normalize,
            usage=step.report.usage,
            choice_tokens=scores.num_tokens,
            num_passes=scores.num_passes,
            timings=step.report.timings,
            notices=(*self.notices, *_reasons(reasoning)),
            reasoning=reasoning,
        )

    def _lengths(self) -> Iterator[int]:
        for text, token_ids in zip(self.choices, self.choice_ids, strict=True):
            if self.options.normalize == "tokens":
                yield len(token_ids) + self.whole
            else:
                yield len(text) if self.options.normalize == "characters" else 1


class Decider:
    """Decides with one loaded model. `new_id` names the engine's sequences."""

    def __init__(
        self, loaded: LoadedModel, template: ChatTemplate, driver: Driver, new_id: Callable[[], str]
    ) -> None:
        self._loaded = loaded
        self._template = template
        self._driver = driver
        self._new_id = new_id
        added = loaded.tokenizer.added_tokens_decoder
        self._control_ids = loaded.end_token_ids | {id for id, token in added.items() if token.special}

    def prepare_chat(
        self, messages: Sequence[Message], choices: Sequence[str], options: DecisionOptions
    ) -> PreparedDecision:
        """The choices as the answer to a conversation, without reasoning.

        Raises:
            InvalidRequest: the choices or the messages cannot be used, or the model cannot but reason first.
            ContextLengthExceeded: the prompt and the longest choice do not fit the window.
        """
        choices = check_choices(choices)
        rendered, may_reason = self._rendered(messages)
        if self._template.opens_reasoning(rendered.text):
            raise InvalidRequest(
                "This model cannot but reason before it answers, so none of the choices can come first.",
                "Take a model that does not reason, or whose reasoning can be switched off.",
                param="messages",
            )
        tags, prompt_ids, notices = self._template.tags, rendered.token_ids, rendered.notices
        reasoning_ids: tuple[int, ...] = ()
        if tags is not None and tags.answers:
            prompt_ids += self._template.spell(_rest(tags.answers, rendered.text))
            notices += (f"This model always reasons before it answers; {WITHOUT_REASONING}",)
        elif tags is not None and may_reason:
            reasoning_ids = self._template.spell(tags.opens)
        # the plain transcript of a model without template has a space before each reply
        lead = " " if rendered.stops else ""
        return self._checked(
            PreparedDecision(
                prompt_ids,
                choices,
                tuple(self._template.spell(lead + choice) for choice in choices),
                options,
                whole=bool(options.whole),
                end_token_ids=frozenset() if rendered.stops else self._loaded.end_token_ids,
                notices=notices,
                reasoning_ids=reasoning_ids,
            )
        )

    def prepare_text(self, prompt: str, choices: Sequence[str], options: DecisionOptions) -> PreparedDecision:
        """The choices as what comes next in a raw text.

        Raises:
            InvalidRequest: the choices or the prompt cannot be used.
            ContextLengthExceeded: the prompt and the longest choice do not fit the window.
        """
        check_text(prompt, "prompt")
        choices = check_choices(choices)
        both = [self._template.continuation_ids(prompt, choice) for choice in choices]
        return self._checked(
            PreparedDecision(
                both[0][0],
                choices,
                tuple(ids for _, ids in both),
                options,
                bool(options.whole),
                self._loaded.end_token_ids,
            )
        )

    def decide(
        self, prepared: PreparedDecision, on_progress: Callable[[Progress], None] = lambda progress: None
    ) -> Decision:
        """Run a prepared decision to its end.

        Raises:
            InsufficientMemory: it can never fit the memory for keys and values.
            LocalLLMError: it failed.
        """
        request = prepared.request(self._new_id())
        self._driver.submit(request)
        try:
            while True:
                step = self._driver.next_step(request.sequence_id)
                if isinstance(step, PrefillStep):
                    on_progress(Progress("prefill", step.done, step.total))
                elif step.last:
                    return prepared.decision(step)
        finally:
            self._driver.abandon(request.sequence_id)

    def _rendered(self, messages: Sequence[Message]) -> tuple[RenderedPrompt, bool]:
        """The prompt, with reasoning switched off where there is a switch, and whether the model may reason anyway."""
        if self._template.tags is not None:
            try:
                return self._template.render(messages, think="off"), False
            except InvalidRequest as error:
                if error.param != "think":
                    raise
        return self._template.render(messages), True

    def _checked(self, prepared: PreparedDecision) -> PreparedDecision:
        """The same, if its choices can be told apart and fit; `whole` is settled."""
        if not prepared.prompt_ids:
            raise InvalidRequest("The prompt is empty.", "Give at least one token.", param="prompt")
        by_ids: dict[tuple[int, ...], str] = {}
        for choice, ids in zip(prepared.choices, prepared.choice_ids, strict=True):
            if not ids or not self._control_ids.isdisjoint(ids):
                what = "holds a control token, or a character unknown to it" if ids else "has no tokens"
                raise InvalidRequest(
                    f"To this model the choice {choice!r} {what}.", "Reword it.", param="choices"
                )
            if ids in by_ids:
                raise InvalidRequest(
                    f"The choices {by_ids[ids]!r} and {choice!r} are the same to the model's tokenizer.",
                    "Drop one of the two.",
                    param="choices",
                )
            by_ids[ids] = choice
        whole, notices = _whole(prepared.options, by_ids)
        if whole and not prepared.end_token_ids:
            raise InvalidRequest(
                "No token ends a reply of this model, so a choice cannot be told from what begins with it.",
                "Give choices of which none is the beginning of another.",
                param="choices",
            )
        fit(
            len(prepared.prompt_ids),
            max(*map(len, by_ids), len(prepared.reasoning_ids)) + whole,
            self._loaded.info.context_length,
            explicit=True,
        )
        return dataclasses.replace(prepared, whole=whole, notices=prepared.notices + notices)


def _reasons(probability: float | None) -> tuple[str, ...]:
    """What people should be told of a model that would rather reason first."""
    if probability is None or probability < NOTABLE_REASONING:
        return ()
    how = f"With a probability of {probability:.0%} this model would reason before it answers"
    return (f"{how}; {WITHOUT_REASONING}",)


def _whole(options: DecisionOptions, by_ids: dict[tuple[int, ...], str]) -> tuple[bool, tuple[str, ...]]:
    """Whether the choices are whole replies, and what people should be told about it."""
    if options.whole:
        return True, ()
    for ids, choice in by_ids.items():
        for length in range(1, len(ids)):
            beginning = by_ids.get(ids[:length])
            if beginning is None:
                continue
            what = f"The choice {beginning!r} is the beginning of {choice!r}"
            if options.whole is None:
                return True, (f"{what}: the choices are scored as whole replies, with their end.",)
            raise InvalidRequest(
                f"{what}, so a reply that begins with one may be the other.",
                "Score whole replies.",
                param="choices",
            )
    return False, ()


def _rest(text: str, before: str) -> str:
    """What is left of `text` where `before` already ends in its beginning."""
    for length in range(len(text), 0, -1):
        if before.endswith(text[:length]):
            return text[length:]
    return text
