"""The generator door: text and messages in, one stream of events out.

Inline: whoever iterates a stream drives the engine, so two streams opened side by side share each forward pass.
A stream belongs to one thread, and so does a generator that is driven inline. Requests may be prepared and opened in
several threads at once, which a server does.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from llm_local.engine.driver import Driver, InlineDriver
from llm_local.engine.protocol import Engine, TokenMask, TokenRequest
from llm_local.errors import ContextLengthExceeded
from llm_local.events import Completion, ContextTrimmed, Event, Progress, TokenLogprob, fold
from llm_local.generation.batches import Batch
from llm_local.generation.choices import Decision, DecisionOptions
from llm_local.generation.decisions import Decider
from llm_local.generation.engines import engine_for
from llm_local.generation.masks import RequestMasks
from llm_local.generation.offers import check_goes_on, check_raw, offered_tools
from llm_local.generation.requests import PreparedRequest, make_ready
from llm_local.generation.scoring import Scorer
from llm_local.generation.streams import EventStream, StepReader
from llm_local.generation.tokens import TokenView
from llm_local.messages import Message, ToolDefinition, check_text
from llm_local.model_loader import LoadedModel
from llm_local.options import GenerationOptions
from llm_local.specs import EngineOptions
from llm_local.text.fit import MIN_REPLY_TOKENS, ContextPolicy, fair_reply_tokens, trim_in_steps
from llm_local.text.reply_format import ReplyFormat
from llm_local.text.templates import ChatTemplate, RenderedPrompt

__all__ = ["EventStream", "PreparedRequest", "StepReader", "TextGenerator"]

Job = TypeVar("Job")

# Enough ids before a continuation for a tokenizer to know that it is one.
CONTEXT_TOKENS = 6

DEFAULT_DECISION: Final = DecisionOptions()


class TextGenerator:
    """Generates with one loaded model.

    `defaults` apply where a call brings no options of its own; `draft` is a smaller model of the same vocabulary that
    guesses ahead; `driver` decides which thread the engine runs in. `engine` replaces the real one in tests.
    `runs_as` says for people what computes the forward passes; `decisions` and `scoring` are for whoever drives the
    engine itself, and `tokens` shows what the tokenizer makes of texts.
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
        engine = engine_for(loaded, engine_options or EngineOptions(), draft) if engine is None else engine
        self.runs_as = engine.description
        self._driver = driver(engine)
        self._template = ChatTemplate(loaded.tokenizer)
        self._reply = ReplyFormat(loaded.tokenizer, self._template)
        self._masks = RequestMasks(loaded, self._template, self._reply)
        self._new_id = map(str, itertools.count(1)).__next__
        self.scoring = Scorer(loaded, self._template, self._driver, self._new_id)
        self.tokens = TokenView(loaded.tokenizer, loaded.info)
        self.decisions = Decider(loaded, self._template, self._driver, self._new_id)

    @property
    def template_source(self) -> str:
        """The model's chat template; empty where it has none."""
        return self._template.source

    def prepare_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[ToolDefinition] = (),
        reserve_explicit: bool = False,
        policy: ContextPolicy = "refuse",
        goes_on: bool = False,
    ) -> PreparedRequest:
        """Render a conversation with the model's chat template.

        `reserve_explicit` says the caller chose `max_new_tokens`, so room for all of them must be there. `policy`
        says what happens to a conversation that does not fit: refuse it, or leave out its oldest turns, as
        `text.fit.trim_in_steps` does it and `PreparedRequest.trimmed` and the stream's first event tell. `goes_on`: the
        last message is the first part of the answer, and the reply is the rest of it.

        Raises:
            InvalidRequest: the template refuses the messages, or `options` ask for a tool that is not there or a switch
                that the model does not have, or the last message cannot go on.
            ContextLengthExceeded: prompt and reserve do not fit the window.
        """
        options = self._defaults if options is None else options
        if goes_on:
            check_goes_on(options)
        tools = offered_tools(tools, options.tool_choice)
        render = partial(self._template.render, tools=tools, think=options.think, goes_on=goes_on)
        prepare = partial(self._prepare, options=options, tools=tools, explicit=reserve_explicit)
        whole = render(messages)
        if policy == "trim-oldest":  # rather than that the answer is cut short
            try:
                fair = fair_reply_tokens(self._loaded.info.context_length)
                return _trimmed(messages, whole, render, partial(prepare, least=fair))
            except ContextLengthExceeded:
                return _trimmed(messages, whole, render, prepare)
        return prepare(whole)

    def prepare_text(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        *,
        reserve_explicit: bool = False,
    ) -> PreparedRequest:
        """Take text as it is: the ids are exactly `tokenizer(prompt)`.

        Raises:
            InvalidRequest: the prompt has no tokens, or `options` are about what only a chat template knows.
            ContextLengthExceeded: prompt and reserve do not fit the window.
        """
        check_text(prompt, "prompt")
        options = self._defaults if options is None else options
        check_raw(options)
        rendered = RenderedPrompt(prompt, tuple(self._loaded.tokenizer(prompt).input_ids))
        prepared = self._prepare(rendered, options, explicit=reserve_explicit)
        return dataclasses.replace(prepared, continues=True)

    def prepare_ids(
        self,
        prompt_ids: Sequence[int],
        options: GenerationOptions | None = None,
        *,
        reserve_explicit: bool = False,
    ) -> PreparedRequest:
        """Take token ids as they are. Raises what `prepare_text` does, also for an id that the model does not have."""
        options = self._defaults if options is None else options
        check_raw(options)
        prepared = self._prepare(self.tokens.decoded(prompt_ids), options, explicit=reserve_explicit)
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
        request = TokenRequest(
            sequence_id=self._new_id(),
            prompt_ids=prepared.prompt_ids,
            options=prepared.options,
            stop_token_ids=self._loaded.end_token_ids,
            mask=self._mask(prepared),
            owner=owner,
            priority=priority,
        )
        # a tokenizer may drop the space before a text's first word, which is wrong where a text goes on or must match
        exact = prepared.continues or prepared.options.constraint is not None
        in_middle = exact or prepared.goes_on is not None
        context_ids = prepared.prompt_ids[-CONTEXT_TOKENS:] if in_middle else ()
        if prepared.continues:
            pipeline = self._reply.text_pipeline(prepared.stops, context_ids)
        else:
            pipeline = self._reply.chat_pipeline(
                prepared.prompt_text,
                prepared.stops,
                tools=prepared.tools,
                exact=exact,
                context_ids=context_ids,
                goes_on=prepared.goes_on,
            )
        return request, StepReader(pipeline, () if prepared.trimmed is None else (prepared.trimmed,))

    def score(self, text: str, *, given: str = "", top_logprobs: int = 0) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens of `text` after `given`, one each, without generating.

        The very first token a model sees has none: with an empty `given` and a tokenizer that puts nothing before
        a text, the result starts at the second token.

        Raises:
            InvalidRequest: `text` has no tokens.
            ContextLengthExceeded: both together and one more token do not fit the window.
        """
        return self.scoring.score(text, given, top_logprobs)

    def decide_chat(
        self,
        messages: Sequence[Message],
        choices: Sequence[str],
        options: DecisionOptions = DEFAULT_DECISION,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Decision:
        """How likely each of some answers to a conversation is, exactly and without sampling: `generation.choices`.

        The prompt is read once, and all choices go through the model together.

        Raises:
            InvalidRequest: the choices or the messages cannot be used, or the model cannot but reason first.
            ContextLengthExceeded: the prompt and the longest choice do not fit the window.
            InsufficientMemory: they can never fit the memory for keys and values.
        """
        return self.decisions.decide(self.decisions.prepare_chat(messages, choices, options), on_progress)

    def decide_text(
        self,
        prompt: str,
        choices: Sequence[str],
        options: DecisionOptions = DEFAULT_DECISION,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Decision:
        """How likely each of some texts is to come next in a raw text. Raises what `decide_chat` does."""
        return self.decisions.decide(self.decisions.prepare_text(prompt, choices, options), on_progress)

    def generate_text(self, prompt: str, options: GenerationOptions | None = None) -> Completion:
        """Continue a text, without a chat template. `Completion.text` is the continuation only."""
        return fold(self.stream(self.prepare_text(prompt, options, reserve_explicit=options is not None)))

    def generate_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[ToolDefinition] = (),
    ) -> Completion:
        """Answer a conversation, or call some of `tools`: `Completion.tool_calls`."""
        return fold(self.generate_chat_stream(messages, options, tools=tools))

    def generate_chat_stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[ToolDefinition] = (),
    ) -> EventStream:
        """Answer a conversation as it comes."""
        return self.stream(
            self.prepare_chat(messages, options, tools=tools, reserve_explicit=options is not None)
        )

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

    def _mask(self, prepared: PreparedRequest) -> TokenMask | None:
        # an answer that is begun does not reason any more; reasoning that is begun is as if the prompt had opened it
        raw = prepared.continues or prepared.goes_on == "content"
        opens = prepared.goes_on == "reasoning" and self._template.tags
        prompt = opens.opens if opens else prepared.prompt_text
        return self._masks.mask(prompt, prepared.options, prepared.tools, raw=raw)

    def _prepare(
        self,
        rendered: RenderedPrompt,
        options: GenerationOptions,
        tools: Sequence[ToolDefinition] = (),
        *,
        explicit: bool,
        least: int = MIN_REPLY_TOKENS,
    ) -> PreparedRequest:
        window = self._loaded.info.context_length
        return make_ready(rendered, options, tools, window, explicit=explicit, least=least)


def _trimmed(
    messages: Sequence[Message],
    whole: RenderedPrompt,
    render: Callable[[Sequence[Message]], RenderedPrompt],
    prepare: Callable[[RenderedPrompt], PreparedRequest],
) -> PreparedRequest:
    """All of the messages, or without the oldest where these do not fit."""
    try:
        return prepare(whole)
    except ContextLengthExceeded as error:
        kept = trim_in_steps(messages, lambda part: len(render(part).token_ids), error)
        if kept is None:
            raise
    rendered = render(kept)
    trimmed = ContextTrimmed(len(messages) - len(kept), len(whole.token_ids) - len(rendered.token_ids))
    return dataclasses.replace(prepare(rendered), trimmed=trimmed)
