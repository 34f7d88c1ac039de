"""What runs prompts in a comparison: our engine in this process, or somebody else's program in its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from llm_local.bench.driving import Clock, drive, greedy_request
from llm_local.bench.figures import TokenTimes
from llm_local.bench.machine import peak_rss_bytes
from llm_local.bench.peers.process import HelperProcess
from llm_local.engine.protocol import Engine

__all__ = ["ENGINE", "EngineRunner", "PeerRunner", "Runner"]

ENGINE: Final = "llm-local"


class Runner(Protocol):
    """Runs prompts of one length together and says when tokens came."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """`weight_bytes`, `kv_bytes_per_token`, and what else people should know of it."""

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> TokenTimes:
        """The most likely `new_tokens` tokens after each prompt: no token ends a sequence."""

    def peak_rss_bytes(self) -> int:
        """The most memory its process has held so far."""

    def close(self) -> None:
        """End what it started."""


@dataclass(frozen=True)
class EngineRunner:
    """Our engine."""

    engine: Engine
    facts: Mapping[str, Any]
    clock: Clock = time.perf_counter
    name: str = ENGINE

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> TokenTimes:
        """See `Runner`."""
        requests = [greedy_request(str(number), prompt, new_tokens) for number, prompt in enumerate(prompts)]
        return drive(self.engine, requests, self.clock).times

    def peak_rss_bytes(self) -> int:
        """See `Runner`."""
        return peak_rss_bytes()

    def close(self) -> None:
        """Nothing was started."""


class PeerRunner:
    """A program that was opened and answers "generate"; it measures by its own clock, from when it has the prompts."""

    def __init__(self, name: str, process: HelperProcess, facts: Mapping[str, Any]) -> None:
        self.name, self.facts = name, facts
        self._process = process

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> TokenTimes:
        """See `Runner`.

        Raises:
            EngineError: it failed, or died.
        """
        reply = self._process.ask(
            do="generate", prompts=[list(one) for one in prompts], new_tokens=new_tokens
        )
        moments = tuple(map(float, reply["tokens_s"]))
        return TokenTimes((0.0,) * len(prompts), (moments,) * len(prompts))

    def peak_rss_bytes(self) -> int:
        """See `Runner`."""
        return peak_rss_bytes(self._process.pid)

    def close(self) -> None:
        """End the program."""
        self._process.close()
