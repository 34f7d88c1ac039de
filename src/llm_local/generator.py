"""The generator door: text and messages in, one stream of events out.

Inline: whoever iterates a stream drives the engine, so two streams opened side by side share each forward pass.
A generator and its streams belong to one thread.
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llm_local.engine.driver import Driver, InlineDriver
from llm_local.engine.protocol import Engine, EngineStep, PrefillStep, TokenRequest
from llm_local.errors import InvalidRequest
from llm_local.events import Completion, Event, Finish, Progress, TokenLogprob, fold
from llm_local.messages import Message, ToolDefinition
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.specs import EngineOptions
from llm_local.text.fit import fit
from llm_local.text.pipeline import TextPipeline
from llm_local.text.templates import ChatTemplate, RenderedPrompt

__all__ = ["EventStream", "PreparedRequest", "StepReader", "TextGenerator"]


# Enough ids before a continuation for a tokenizer to know that it is one.
CONTEXT_TOKENS = 6


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is known to fit: exactly what the model will see, and how it will be sampled.

    `continues` says that the reply goes on in the middle of the prompt's text, rather than in a turn of its own.
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    options: GenerationOptions
    notices: tuple[str, ...] = ()
    continues: bool = False


class TextGenerator:
    """Generates with one loaded model.

    `defaults` apply where a call brings no options of its own; `driver` decides which thread the engine
    runs in. `engine` replaces the real one in tests.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        defaults: GenerationOptions | None = None,
        engine_options: EngineOptions | None = None,
        engine: Engine | None = None,
        driver: Callable[[Engine], Driver] = InlineDriver,
    ) -> None:
        self._loaded = loaded
        self._defaults = GenerationOptions() if defaults is None else defaults
        self._driver = driver(
            _engine_for(loaded, engine_options or EngineOptions()) if engine is None else engine
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
    ) -> PreparedRequest:
        """Render a conversation with the model's chat template.

        `reserve_explicit` says the caller chose `max_new_tokens`, so room for all of them must be there.

        Raises:
            InvalidRequest: the template refuses the messages.
            ContextLengthExceeded: prompt and reserve do not fit the window.
        """
        return self._prepare(self._template.render(messages, tools), options, explicit=reserve_explicit)

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
        rendered = RenderedPrompt(prompt, tuple(self._loaded.tokenizer(prompt).input_ids))
        prepared = self._prepare(rendered, options, explicit=reserve_explicit)
        return dataclasses.replace(prepared, continues=True)

    def stream(self, prepared: PreparedRequest) -> EventStream:
        """Submit a prepared request; iterate the result to generate.

        Raises:
            InsufficientMemory: the sequence can never fit the memory for keys and values.
        """
        return EventStream(self._driver, *self.open(prepared))

    def open(
        self, prepared: PreparedRequest, *, owner: str | None = None, priority: int = 0
    ) -> tuple[TokenRequest, StepReader]:
        """A prepared request for whoever drives the engine itself: what goes in, and what reads its steps."""
        request = TokenRequest(
            sequence_id=str(next(self._numbers)),
            prompt_ids=prepared.prompt_ids,
            options=prepared.options,
            stop_token_ids=self._loaded.end_token_ids,
            owner=owner,
            priority=priority,
        )
        # a tokenizer may drop the space before a text's first word, which is wrong where a text goes on
        context_ids = prepared.prompt_ids[-CONTEXT_TOKENS:] if prepared.continues else ()
        pipeline = TextPipeline(self._loaded.tokenizer, prepared.options.stop, context_ids)
        return request, StepReader(pipeline)

    def score(self, text: str, *, given: str = "", top_logprobs: int = 0) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens of `text` after `given`, one each, without generating.

        The very first token a model sees has none: with an empty `given` and a tokenizer that puts nothing before
        a text, the result starts at the second token.

        Raises:
            InvalidRequest: `text` has no tokens.
            ContextLengthExceeded: both together do not fit the window.
        """
        tokenizer = self._loaded.tokenizer
        text_ids = tokenizer(text, add_special_tokens=False).input_ids
        if not text_ids:
            raise InvalidRequest("The text to score is empty.", param="text")
        prompt_ids = (*tokenizer(given).input_ids, *text_ids)
        fit(len(prompt_ids), 1, self._loaded.info.context_length, explicit=True)
        options = GenerationOptions(max_new_tokens=1, temperature=0, logprobs=True, top_logprobs=top_logprobs)
        sequence_id = str(next(self._numbers))
        self._driver.submit(TokenRequest(sequence_id, prompt_ids, options, prompt_logprobs=True))
        found: list[TokenLogprob] = []
        while True:
            step = self._driver.next_step(sequence_id)
            if isinstance(step, PrefillStep):
                found += step.logprobs
            elif step.error is not None:
                raise step.error
            elif step.last:
                return tuple(found[-len(text_ids) :])

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
        resolved = options.replace(max_new_tokens=cap, stop=options.stop + rendered.stops)
        return PreparedRequest(rendered.text, rendered.token_ids, resolved, rendered.notices)


class StepReader:
    """One request's steps to its events. Sans-I/O: inline, threaded and awaited streams all read through it."""

    def __init__(self, pipeline: TextPipeline) -> None:
        self._pipeline = pipeline
        self.finished = False

    @property
    def wants_cancel(self) -> bool:
        """True when a stop string was found and the engine does not know yet that the reply is over."""
        return self._pipeline.stopped and not self.finished

    def feed(self, step: EngineStep) -> list[Event]:
        """The events of one step; of the last one, held-back text and Finish.

        Raises:
            LocalLLMError: the sequence failed.
        """
        if isinstance(step, PrefillStep):
            return [Progress("prefill", step.done, step.total)]
        events: list[Event] = []
        if step.token_id is not None and not self._pipeline.stopped:
            events += self._pipeline.feed(step.token_id, step.logprob)
        if step.report is None:
            return events
        self.finished = True
        if step.error is not None:
            raise step.error
        events += self._pipeline.finish()
        reason = "stop" if self._pipeline.stopped else step.finish_reason or "cancelled"
        return [*events, Finish(reason, step.report.usage, step.report.timings)]


class EventStream:
    """Events of one request. Iterate it to the end, or `cancel()`, or `close()`; a context manager closes it.

    A stream that is forgotten half-way is cancelled when it is collected.
    """

    def __init__(self, driver: Driver, request: TokenRequest, reader: StepReader) -> None:
        driver.submit(request)
        self._driver = driver
        self._sequence_id = request.sequence_id
        self._reader = reader
        self._events: deque[Event] = deque()
        self._closed = False
        weakref.finalize(self, driver.forget, request.sequence_id)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._events:
            if self._closed or self._reader.finished:
                raise StopIteration
            self._events.extend(self._reader.feed(self._driver.next_step(self._sequence_id)))
            if self._reader.wants_cancel:
                self.cancel()
        return self._events.popleft()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Ask for the end: the stream goes on to `Finish("cancelled")` within one step. Safe from a signal handler."""
        self._driver.cancel(self._sequence_id)

    def close(self) -> None:
        """Stop without reading on, and free the request's memory. Harmless when repeated."""
        self._closed = True
        self._events.clear()
        self._driver.abandon(self._sequence_id)


def _engine_for(loaded: LoadedModel, options: EngineOptions) -> Engine:
    # Late: these import torch, and whoever brings an engine of its own does not need it.
    from llm_local.engine.factory import make_engine
    from llm_local.engine.speculative import NgramDrafter
    from llm_local.loaders.devices import available_bytes

    kv_limit_bytes = options.kv_cache_bytes
    if kv_limit_bytes is None:
        kv_limit_bytes = available_bytes(loaded.info.device) // 2
    return make_engine(
        loaded.model,
        context_length=loaded.info.context_length,
        kv_limit_bytes=kv_limit_bytes,
        prefix_cache_bytes=kv_limit_bytes // 2 if options.prefix_cache else 0,
        drafter=NgramDrafter() if options.speculation == "ngram" else None,
    )
