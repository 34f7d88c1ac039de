"""The generator door: text and messages in, one stream of events out.

Inline: whoever iterates a stream drives the engine, so two streams opened side by side share each forward pass.
A generator and its streams belong to one thread.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from llm_local.engine.driver import Driver, InlineDriver
from llm_local.engine.protocol import Engine, PrefillStep, TokenRequest
from llm_local.errors import ContextLengthExceeded, InvalidRequest
from llm_local.events import Completion, ContextTrimmed, Event, TokenLogprob, fold
from llm_local.generation.batches import Batch
from llm_local.generation.streams import EventStream, StepReader
from llm_local.messages import Message, ToolDefinition, check_text
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.specs import EngineOptions
from llm_local.text.fit import ContextPolicy, fit, trim_oldest
from llm_local.text.pipeline import TextPipeline
from llm_local.text.templates import ChatTemplate, RenderedPrompt

if TYPE_CHECKING:
    from llm_local.constraints.compiler import ConstraintCompiler

__all__ = ["EventStream", "PreparedRequest", "StepReader", "TextGenerator"]

Job = TypeVar("Job")

# Enough ids before a continuation for a tokenizer to know that it is one.
CONTEXT_TOKENS = 6


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is known to fit: exactly what the model will see, and how it will be sampled.

    `stops` are the caller's stop strings and the template's own. `continues` says that the reply goes on in the middle
    of the prompt's text, rather than in a turn of its own.
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    options: GenerationOptions
    stops: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    continues: bool = False
    trimmed: ContextTrimmed | None = None


class TextGenerator:
    """Generates with one loaded model.

    `defaults` apply where a call brings no options of its own; `draft` is a smaller model of the same vocabulary that
    guesses ahead; `driver` decides which thread the engine runs in. `engine` replaces the real one in tests.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        defaults: GenerationOptions | None = None,
        engine_options: EngineOptions | None = None,
        draft: LoadedModel | None = None,
        engine: Engine | None = None,
        driver: Callable[[Engine], Driver] = InlineDriver,
    ) -> None:
        self._loaded = loaded
        self._defaults = GenerationOptions() if defaults is None else defaults
        self._driver = driver(
            _engine_for(loaded, engine_options or EngineOptions(), draft) if engine is None else engine
        )
        self._template = ChatTemplate(loaded.tokenizer)
        self._numbers = itertools.count(1)

    def prepare_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[ToolDefinition] = (),
        reserve_explicit: bool = False,
        policy: ContextPolicy = "refuse",
    ) -> PreparedRequest:
        """Render a conversation with the model's chat template.

        `reserve_explicit` says the caller chose `max_new_tokens`, so room for all of them must be there. `policy`
        says what happens to a conversation that does not fit: refuse it, or leave out its oldest turns, which
        `PreparedRequest.trimmed` and the stream's first event then tell.

        Raises:
            InvalidRequest: the template refuses the messages.
            ContextLengthExceeded: prompt and reserve do not fit the window.
        """
        whole = self._template.render(messages, tools)
        try:
            return self._prepare(whole, options, explicit=reserve_explicit)
        except ContextLengthExceeded:
            if policy == "refuse":
                raise
            kept = trim_oldest(messages, lambda part: self._fits(part, options, tools, reserve_explicit))
            if kept is None:
                raise
        rendered = self._template.render(kept, tools)
        trimmed = ContextTrimmed(len(messages) - len(kept), len(whole.token_ids) - len(rendered.token_ids))
        prepared = self._prepare(rendered, options, explicit=reserve_explicit)
        return dataclasses.replace(prepared, trimmed=trimmed)

    def prepare_text(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        *,
        reserve_explicit: bool = False,
    ) -> PreparedRequest:
        """Take text as it is: the ids are exactly `tokenizer(prompt)`.

        Raises:
            InvalidRequest: the prompt has no tokens.
            ContextLengthExceeded: prompt and reserve do not fit the window.
        """
        check_text(prompt, "prompt")
        rendered = RenderedPrompt(prompt, tuple(self._loaded.tokenizer(prompt).input_ids))
        prepared = self._prepare(rendered, options, explicit=reserve_explicit)
        return dataclasses.replace(prepared, continues=True)

    def stream(self, prepared: PreparedRequest) -> EventStream:
        """Submit a prepared request; iterate the result to generate.

        Raises:
            InvalidRequest: the constraint cannot be enforced on this model.
            InsufficientMemory: the sequence can never fit the memory for keys and values.
        """
        return EventStream(self._driver, *self.open(prepared))

    def open(
        self, prepared: PreparedRequest, *, owner: str | None = None, priority: int = 0
    ) -> tuple[TokenRequest, StepReader]:
        """A prepared request for whoever drives the engine itself: what goes in, and what reads its steps.

        Raises:
            InvalidRequest: the constraint cannot be enforced on this model.
        """
        constraint = prepared.options.constraint
        request = TokenRequest(
            sequence_id=str(next(self._numbers)),
            prompt_ids=prepared.prompt_ids,
            options=prepared.options,
            stop_token_ids=self._loaded.end_token_ids,
            mask=None if constraint is None else self._constraints.mask(constraint),
            owner=owner,
            priority=priority,
        )
        # a tokenizer may drop the space before a text's first word, which is wrong where a text goes on or must match
        exact = prepared.continues or constraint is not None
        context_ids = prepared.prompt_ids[-CONTEXT_TOKENS:] if exact else ()
        pipeline = TextPipeline(self._loaded.tokenizer, prepared.stops, context_ids)
        return request, StepReader(pipeline, () if prepared.trimmed is None else (prepared.trimmed,))

    def score(self, text: str, *, given: str = "", top_logprobs: int = 0) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens of `text` after `given`, one each, without generating.

        The very first token a model sees has none: with an empty `given` and a tokenizer that puts nothing before
        a text, the result starts at the second token.

        Raises:
            InvalidRequest: `text` has no tokens.
            ContextLengthExceeded: both together and one more token do not fit the window.
        """
        check_text(given, "given")
        check_text(text, "text")
        given_ids, text_ids = self._template.continuation_ids(given, text)
        if not text_ids:
            raise InvalidRequest("The text to score is empty.", param="text")
        prompt_ids = given_ids + text_ids
        fit(len(prompt_ids), 1, self._loaded.info.context_length, explicit=True)
        options = GenerationOptions(max_new_tokens=1, temperature=0, logprobs=True, top_logprobs=top_logprobs)
        sequence_id = str(next(self._numbers))
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

    def generate_text(self, prompt: str, options: GenerationOptions | None = None) -> Completion:
        """Continue a text, without a chat template. `Completion.text` is the continuation only."""
        return fold(self.stream(self.prepare_text(prompt, options, reserve_explicit=options is not None)))

    def generate_chat(
        self, messages: Sequence[Message], options: GenerationOptions | None = None
    ) -> Completion:
        """Answer a conversation."""
        return fold(self.generate_chat_stream(messages, options))

    def generate_chat_stream(
        self, messages: Sequence[Message], options: GenerationOptions | None = None
    ) -> EventStream:
        """Answer a conversation as it comes."""
        return self.stream(self.prepare_chat(messages, options, reserve_explicit=options is not None))

    def generate_batch(
        self,
        jobs: Iterable[Job],
        prepare: Callable[[Job], PreparedRequest],
        *,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Batch[Job]:
        """Answer many requests side by side: iterate the result for each job and its Completion or error, in order.

        `prepare` makes a request of a job when its turn comes: `generate_batch(prompts, generator.prepare_text)`.
        """
        return Batch(jobs, lambda job: self.stream(prepare(job)), on_event=on_event)

    @cached_property
    def _constraints(self) -> ConstraintCompiler:
        # Late: it loads libraries that only constrained requests need.
        from llm_local.constraints.compiler import ConstraintCompiler

        loaded = self._loaded
        return ConstraintCompiler(loaded.tokenizer, loaded.info.vocab_size, loaded.end_token_ids)

    def _fits(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None,
        tools: Sequence[ToolDefinition],
        explicit: bool,
    ) -> bool:
        try:
            self._prepare(self._template.render(messages, tools), options, explicit=explicit)
        except ContextLengthExceeded:
            return False
        return True

    def _prepare(
        self, rendered: RenderedPrompt, options: GenerationOptions | None, *, explicit: bool
    ) -> PreparedRequest:
        if not rendered.token_ids:
            raise InvalidRequest("The prompt is empty.", "Give at least one token.", param="prompt")
        options = self._defaults if options is None else options
        cap = fit(
            len(rendered.token_ids),
            options.max_new_tokens,
            self._loaded.info.context_length,
            explicit=explicit,
        )
        return PreparedRequest(
            prompt_text=rendered.text,
            prompt_ids=rendered.token_ids,
            options=options.replace(max_new_tokens=cap),
            # a constrained reply ends by itself, and may hold what ends others
            stops=options.stop + (rendered.stops if options.constraint is None else ()),
            notices=rendered.notices,
        )


def _engine_for(loaded: LoadedModel, options: EngineOptions, draft: LoadedModel | None) -> Engine:
    # Late: these import torch, and whoever brings an engine of its own does not need it.
    from llm_local.engine.factory import make_draft, make_engine
    from llm_local.engine.speculative import Drafter, NgramDrafter
    from llm_local.loaders.devices import available_bytes

    kv_limit_bytes = options.kv_cache_bytes
    if kv_limit_bytes is None:
        kv_limit_bytes = available_bytes(loaded.info.device) // 2
    drafter: Drafter | None = NgramDrafter() if options.speculation == "ngram" else None
    if draft is not None:
        if draft.tokenizer.get_vocab() != loaded.tokenizer.get_vocab():
            raise InvalidRequest(
                f"The draft model {draft.info.ref} has another vocabulary than {loaded.info.ref}.",
                "A draft model must be of the same family.",
                param="draft_model",
            )
        # the small model's keys and values are small too
        draft_bytes = kv_limit_bytes // 8
        kv_limit_bytes -= draft_bytes
        drafter = make_draft(
            draft.model,
            context_length=draft.info.context_length,
            kv_limit_bytes=draft_bytes,
            kernels=options.kernels,
        )
    return make_engine(
        loaded.model,
        context_length=loaded.info.context_length,
        kv_limit_bytes=kv_limit_bytes,
        prefix_cache_bytes=kv_limit_bytes // 2 if options.prefix_cache else 0,
        drafter=drafter,
        kernels=options.kernels,
    )
