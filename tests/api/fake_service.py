"""A service without models: replies with a script, and a record of what was asked."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from llm_local.config import Config, load_config
from llm_local.errors import ModelNotFound
from llm_local.events import ContextTrimmed, Delta, Event, Finish, Timings, Usage
from llm_local.options import GenerationOptions
from llm_local.service import EmbeddedTexts, KnownModel, Loaded, Ranked, Ranking, Readiness, Rendered, Work
from llm_local.specs import ModelInfo

INFO = ModelInfo(
    "fake", "/secret/path/fake", "llama", 10, 20, "float32", "cpu", 512, 100, has_chat_template=True
)
LOADED = Loaded("fake", INFO, False, 0, 300.0, 0.5, 20)
USAGE, TIMINGS = Usage(3, 1, 2), Timings(0.0, 0.0, 0.01, 0.02, 0.01)
EVENTS: tuple[Event, ...] = (
    Delta("content", "Hel", (1,)),
    Delta("content", "lo", (2,)),
    Finish("stop", USAGE, TIMINGS),
)


class FakeReply:
    """Yields its events; an exception among them is raised, a number is slept, None waits until it is cancelled."""

    def __init__(self, events: Iterable[Any], work: Work, *, trimmed: ContextTrimmed | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.model = work.model or "fake"
        self.info = INFO
        self.prompt_ids = (11, 12, 13)
        self.prompt_tokens = 3
        self.prompt_text = "prompt"
        self.options = GenerationOptions(seed=7)
        self.notices = ("a notice",)
        self.trimmed = trimmed
        self.place = None
        self.closed = False
        self._events = iter(events)

    def __aiter__(self) -> FakeReply:
        return self

    async def __anext__(self) -> Event:
        for event in self._events:
            if isinstance(event, BaseException):
                raise event
            if event is None:
                await asyncio.Event().wait()
            elif isinstance(event, int | float):
                await asyncio.sleep(event)
            else:
                return event
        raise StopAsyncIteration

    def cancel(self) -> None:
        self._events = iter((Finish("cancelled", USAGE, TIMINGS),))

    async def aclose(self) -> None:
        self.closed = True


class FakeService:
    """What the API calls of a service. `events` is the script of the next replies; `refusal` is raised instead."""

    def __init__(self, config: Config | None = None, **settings: Any) -> None:
        self.config = config or load_config({"model_id": "fake", **settings}, environ={}, env_file=None)
        self.events: Iterable[Any] = EVENTS
        self.refusal: Exception | None = None
        self.full: Exception | None = None
        self.trimmed: ContextTrimmed | None = None
        self.ready = Readiness(True)
        self.works: list[Work] = []
        self.replies: list[FakeReply] = []
        self.calls: list[tuple[Any, ...]] = []
        self.http: list[tuple[str, str, int]] = []
        self.metrics = SimpleNamespace(http_request=self._count, loop_lag=lambda seconds: None)
        self.closed = False

    def check_room(self, caller: Any) -> None:
        self.calls.append(("check_room", caller.owner))
        if self.full is not None:
            raise self.full

    async def begin(self, work: Work) -> FakeReply:
        if self.refusal is not None:
            raise self.refusal
        self.works.append(work)
        reply = FakeReply(self.events, work, trimmed=self.trimmed)
        self.replies.append(reply)
        return reply

    async def embed(
        self, caller: Any, model: str | None, texts: Any, *, dimensions: int | None = None, **more: Any
    ) -> EmbeddedTexts:
        self.calls.append(("embed", caller.owner, tuple(texts), dimensions))
        vectors = tuple((1.0, 0.0) for _ in texts)
        return EmbeddedTexts("fake", vectors, (2,) * len(texts), (0,) * len(texts), 0.0, 0.01)

    async def rerank(
        self, caller: Any, model: str | None, query: str, documents: Any, *, top_n: int | None = None
    ) -> Ranking:
        ranked = tuple(Ranked(index, index / 10) for index in reversed(range(len(documents))))
        return Ranking("fake", ranked[:top_n], 4)

    async def tokenize(
        self, caller: Any, model: str | None, text: str, *, special: bool = False
    ) -> list[int]:
        return tuple(text.encode())

    def told_name(self, model: str | None) -> str:
        return model or self.config.model_id

    async def detokenize(self, caller: Any, model: str | None, ids: Any, *, special: bool = True) -> str:
        return bytes(ids).decode()

    async def render(self, work: Work) -> Rendered:
        self.works.append(work)
        return Rendered("fake", "<user>Hi", (1, 2), 512)

    async def load(self, model: str | None, keep_alive_s: float | None = None) -> Loaded:
        self.calls.append(("load", model, keep_alive_s))
        if model == "none":
            raise ModelNotFound("There is no model none.")
        return LOADED

    async def unload(self, model: str) -> bool:
        self.calls.append(("unload", model))
        return True

    async def models(self) -> list[KnownModel]:
        able = frozenset({"chat", "completion"})
        return [KnownModel("fake", "hub", "complete", 9, 1.0, "llama", 512, able, loaded=LOADED)]

    def loaded(self) -> list[Loaded]:
        return [LOADED]

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(lines={})

    def readiness(self) -> Readiness:
        return self.ready

    def metrics_text(self) -> str:
        return "llm_local_up 1\n"

    async def aclose(self) -> None:
        self.closed = True

    async def drain(self, timeout_s: float) -> bool:
        return True

    def _count(self, method: str, route: str, status: int, seconds: float, *, streamed: bool = False) -> None:
        self.http.append((method, route, status))


Script = Callable[[FakeService], None]
