"""The generator without a server: what a server computes with, in a process of its own, asked through `serving.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_local.bench.peers.process import HelperProcess
from llm_local.bench.sse_client import Answer, Answers
from llm_local.config import load_config
from llm_local.events import Delta, Finish
from llm_local.options import GenerationOptions

if TYPE_CHECKING:
    from llm_local.engine.protocol import Engine
    from llm_local.generator import TextGenerator
    from llm_local.runtime.worker import EngineWorker, ThreadDriver

__all__ = ["answer", "generate"]

_opened: dict[str, tuple[TextGenerator, EngineWorker]] = {}


def generate(process: HelperProcess, prompts: list[str], new_tokens: int) -> Answers:
    """Have the driver in `process` answer all prompts at once."""
    reply = process.ask(do="generate", prompts=prompts, new_tokens=new_tokens)
    return Answers(tuple(Answer(**{**one, "text_s": tuple(one["text_s"])}) for one in reply["answers"]))


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """`do` is "open" with the `settings` of the server; "count", the tokens of a `text`; or "generate"."""
    if asked["do"] == "open":
        _opened["model"] = _open(asked["settings"])
        return {"runs_as": _opened["model"][0].runs_as}
    generator, worker = _opened["model"]
    if asked["do"] == "count":
        return {"tokens": len(generator.tokens.encode(asked["text"]))}
    return {"answers": asyncio.run(_answers(generator, worker, asked["prompts"], asked["new_tokens"]))}


def _open(settings: Mapping[str, Any]) -> tuple[TextGenerator, EngineWorker]:
    # Late: they import torch, and failures to start are known by now.
    from llm_local.runtime.opening import find_models, open_found
    from llm_local.runtime.worker import EngineWorker, ThreadDriver

    config = load_config(settings)
    workers: list[EngineWorker] = []

    def driver(engine: Engine) -> ThreadDriver:
        workers.append(EngineWorker(engine))
        return ThreadDriver(workers[0])

    found = find_models(config, lambda _: None)
    return open_found(config, found, lambda _: None, driver=driver).generator, workers[0]


async def _answers(
    generator: TextGenerator, worker: EngineWorker, prompts: list[str], new_tokens: int
) -> list[dict[str, Any]]:
    options = GenerationOptions(max_new_tokens=new_tokens, temperature=0)
    began = time.perf_counter()
    return await asyncio.gather(*(_answer(generator, worker, one, options, began) for one in prompts))


async def _answer(
    generator: TextGenerator, worker: EngineWorker, prompt: str, options: GenerationOptions, began: float
) -> dict[str, Any]:
    # Late: it imports torch.
    from llm_local.runtime.handle import AsyncEventStream

    request, reader = generator.open(generator.prepare_text(prompt, options))
    found: dict[str, Any] = {"text_s": [], "text": ""}
    async for event in AsyncEventStream(worker, request, reader):
        now = time.perf_counter() - began
        if isinstance(event, Delta) and event.text:
            found["text_s"].append(now)
            found["text"] += event.text
        elif isinstance(event, Finish):
            usage = event.usage
            found |= {
                "end_s": now,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
            }
    found["text_s"] = found["text_s"] or [found["end_s"]]
    return found
