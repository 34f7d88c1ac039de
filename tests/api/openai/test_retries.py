"""What OpenAI's client tries again, and what it does not: an expensive prompt is not run three times for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from api.asgi import Client
from api.fake_service import FakeReply, FakeService
from llm_local.errors import Busy, EngineError, InsufficientMemory, InvalidRequest
from llm_local.service import Work


class Refusing(FakeService):
    """Refuses with the first of `refusals`, then with the next, and then no more."""

    def __init__(self, *refusals: Exception) -> None:
        super().__init__()
        self._refusals = list(refusals)
        self.asked = 0

    async def begin(self, work: Work) -> FakeReply:
        self.asked += 1
        if self._refusals:
            raise self._refusals.pop(0)
        return await super().begin(work)


async def chat(app: Any, **fields: Any) -> Any:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=http) as client,
    ):
        messages: Any = [{"role": "user", "content": "Hi"}]
        return await client.chat.completions.create(model="fake", messages=messages, **fields)


@pytest.mark.parametrize("kind", ["server_busy", "rate_limit_exceeded"])
def test_a_full_line_is_tried_again_when_it_says(make: Callable[..., Client], kind: str) -> None:
    service = Refusing(Busy("Full.", retry_after_s=0.2, kind=kind))
    found = asyncio.run(chat(make(service).app))
    assert (found.choices[0].message.content, service.asked) == ("Hello", 2)


@pytest.mark.parametrize(
    "failure",
    [
        InvalidRequest("No.", param="seed"),
        InsufficientMemory("Too big.", need_bytes=2, have_bytes=1),
        EngineError("It broke."),
    ],
)
def test_what_would_fail_again_is_not(make: Callable[..., Client], failure: Exception) -> None:
    service = Refusing(failure, failure, failure)
    with pytest.raises(openai.APIStatusError) as caught:
        asyncio.run(chat(make(service).app))
    assert service.asked == 1
    assert str(failure) in caught.value.message


def test_a_stream_that_fails_raises_in_the_client(make: Callable[..., Client]) -> None:
    service = FakeService()
    service.events = [*tuple(service.events)[:1], EngineError("It broke.")]

    async def read() -> list[str]:
        transport = httpx2.ASGITransport(make(service).app)
        said = []
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=http) as client,
        ):
            messages: Any = [{"role": "user", "content": "Hi"}]
            with pytest.raises(openai.APIError, match="It broke"):
                async for chunk in await client.chat.completions.create(
                    model="fake", messages=messages, stream=True
                ):
                    said.append(chunk.choices[0].delta.content or "")
        return said

    assert "".join(asyncio.run(read())) == "Hel"
