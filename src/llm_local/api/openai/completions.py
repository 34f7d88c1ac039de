"""`POST /v1/completions`: raw texts, continued or scored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from math import fsum, inf
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.openai import PREFIX
from llm_local.api.openai.answers import Head, Tally
from llm_local.api.openai.chat_answers import usage_chunk
from llm_local.api.openai.choices import Choice, Chunks, all_of, begin_choices, close_all, events_of, read_all
from llm_local.api.openai.completion_answers import CompletionChunks, Echo, whole_choice
from llm_local.api.openai.errors import in_openai_words
from llm_local.api.openai.headers import reply_headers, warnings_of
from llm_local.api.openai.schemas import CompletionRequest
from llm_local.api.openai.token_logprobs import CompletionLogprobs
from llm_local.api.openai.translate import completion_works, num_choices, num_tried, wants_usage
from llm_local.api.streams import DONE, sse
from llm_local.events import Delta, Event, Finish, Timings, TokenLogprob, Usage
from llm_local.service import Service, Work

__all__ = ["best_of", "create_completion", "router"]

router = APIRouter(prefix=PREFIX)

Tokens = tuple[tuple[int, TokenLogprob | None], ...]
"""Token ids with their log-probabilities."""

_AT_ONCE: Final = 16  # prompts of one request; the others are begun as these end

_EXAMPLE = {"model": "starter", "prompt": "The sky is", "max_tokens": 16}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A request whose choices are ready to be read. `scores` are those of its prompts, where they are asked for."""

    body: CompletionRequest
    choices: list[Choice]
    scores: list[Tokens]

    def writer(self, head: Head, choice: Choice, index: int) -> CompletionChunks:
        """What makes the chunks of one choice, which is shown as number `index`."""
        reply, top = choice.reply, self.body.logprobs
        tokens = self.scores[choice.prompt] if self.scores else ()
        return CompletionChunks(
            head,
            index,
            echo=Echo(reply.prompt_text, tokens) if self.body.echo else None,
            logprobs=None if top is None else CompletionLogprobs(reply.token_bytes, top=top),
            with_usage=wants_usage(self.body),
        )

    async def read(self) -> list[list[Event]]:
        """All events of each choice; with `max_tokens` 0 nothing but their ends."""
        if self.body.max_tokens != 0:
            return await read_all(self.choices)
        await close_all(self.choices)
        return [[_end(choice)] for choice in self.choices]

    async def events(self) -> AsyncGenerator[tuple[Choice, Event]]:
        """The same as they come."""
        if self.body.max_tokens == 0:
            for choice in self.choices:
                yield choice, _end(choice)
            return
        async with aclosing(events_of(self.choices)) as events:
            async for choice, event in events:
                yield choice, event


@router.post("/completions", openapi_extra=json_body(CompletionRequest, text=_EXAMPLE))
async def create_completion(request: Request) -> Response:
    """Continue texts, whole or in chunks; with `echo` and `logprobs` also score them.

    `curl http://127.0.0.1:8000/v1/completions -d '{"model": "starter", "prompt": "The sky is", "max_tokens": 8}'`
    """
    body = await read_body(request, CompletionRequest)
    if not body.stream:
        return await until_gone(request, _answer(request, body))
    works = completion_works(body, caller_of(request))
    begun = await until_gone(request, _begin(service_of(request), body, works))
    chunks = Chunks(begun.choices, _chunks(begun))
    return sse(request, chunks, headers=reply_headers(body, begun.choices))


async def _begin(service: Service, body: CompletionRequest, works: list[Work]) -> _Begun:
    with in_openai_words(body.model, "prompt"):
        scores = await all_of([_score(service, body, work) for work in works]) if body.echo else []
        return _Begun(body, await begin_choices(service, works, num_tried(body)), scores)


async def _score(service: Service, body: CompletionRequest, work: Work) -> Tokens:
    """The tokens of a prompt with their log-probabilities, where those are asked for."""
    if body.logprobs is None:
        return ()
    prompt = work.prompt if work.prompt is not None else work.prompt_ids or ()
    scored = await service.score(work.caller, work.model, prompt, top_logprobs=body.logprobs)
    return tuple(zip(scored.token_ids, scored.logprobs, strict=True))


async def _answer(request: Request, body: CompletionRequest) -> Response:
    service, works = service_of(request), completion_works(body, caller_of(request))
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Work) -> tuple[_Begun, list[list[Event]]]:
        async with free:
            begun = await _begin(service, body, [work])
            return begun, await begun.read()

    found = await all_of([one(work) for work in works])
    head = Head.new("cmpl-", "text_completion", body.model, found[0][0].choices[0].reply)
    tally = Tally()
    shown: list[dict[str, Any]] = []
    choices: list[Choice] = []
    for prompt, (begun, read) in enumerate(found):
        for event in chain.from_iterable(read):
            tally.feed(event, prompt)
        for choice, events in best_of(list(zip(begun.choices, read, strict=True)), num_choices(body)):
            writer = begun.writer(head, choice, len(shown))
            chunks = [*writer.begin(), *chain.from_iterable(map(writer.feed, events))]
            shown.append(whole_choice(chunks))
            choices.append(choice)
    answer = head.body(choices=shown, usage=tally.usage, **warnings_of(choices))
    return json_response(answer, headers=reply_headers(body, choices))


def best_of(tried: list[tuple[Choice, list[Event]]], n: int) -> list[tuple[Choice, list[Event]]]:
    """The `n` answers whose tokens are the likeliest on average, the best first; where there are just `n`, all."""
    return tried if len(tried) == n else sorted(tried, key=lambda one: -_mean_logprob(one[1]))[:n]


def _mean_logprob(events: list[Event]) -> float:
    found = [one.logprob for event in events if isinstance(event, Delta) for one in event.logprobs]
    return fsum(found) / len(found) if found else -inf


def _end(choice: Choice) -> Finish:
    return Finish("length", Usage(prompt_tokens=choice.reply.prompt_tokens), Timings())


async def _chunks(begun: _Begun) -> AsyncGenerator[Any]:
    head = Head.new("cmpl-", "text_completion", begun.body.model, begun.choices[0].reply)
    writers = [begun.writer(head, choice, choice.index) for choice in begun.choices]
    tally = Tally()
    for writer in writers:
        for chunk in writer.begin():
            yield chunk
    async with aclosing(begun.events()) as events:
        async for choice, event in events:
            tally.feed(event, choice.prompt)
            for chunk in writers[choice.index].feed(event):
                yield chunk
    if wants_usage(begun.body):
        yield usage_chunk(head, tally.usage)
    yield DONE
