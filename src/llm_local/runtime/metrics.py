"""Counters and histograms of one service, in the text format that Prometheus reads.

Nothing of a prompt, a reply or an owner is in them. Labels are bounded: a model or route beyond the bound is `other`.
Thread-safe, as prometheus_client is. Every service has a registry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llm_local.events import FinishReason, Timings, Usage

__all__ = ["METRICS_TYPE", "Metrics", "ModelGauges", "ServiceGauges"]

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """What is so now of one loaded model: its line, and the bytes of its weights and of keys and values in use."""

    model: str
    waiting: int
    running: int
    max_concurrent: int
    weights_bytes: int = 0
    kv_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServiceGauges:
    """What is so now of the whole service; read when somebody asks for the metrics."""

    models: tuple[ModelGauges, ...] = ()
    response_cache_bytes: int = 0
    response_cache_entries: int = 0


class Metrics:
    """What a service counts. Each method is one thing that happened."""

    def __init__(self, gauges: Callable[[], ServiceGauges] = ServiceGauges) -> None: ...

    def request_finished(
        self, model: str, reason: FinishReason, usage: Usage, timings: Timings, total_s: float
    ) -> None:
        """A request ended by itself or was cancelled; `total_s` from its arrival to its end."""

    def request_failed(self, model: str, kind: str) -> None:
        """A request that was admitted ended with an error of that kind."""

    def request_refused(self, kind: str) -> None:
        """A request was refused before it ran: server_busy, queue_timeout, rate_limit_exceeded..."""

    def token_gaps(self, model: str, seconds: Iterable[float]) -> None:
        """Seconds between tokens of one reply that came one after the other."""

    def waited(self, model: str, seconds: float) -> None:
        """A request was let in after waiting that long in line."""

    def model_loaded(self, model: str, seconds: float) -> None:
        """A model was loaded."""

    def cache_looked_up(self, model: str, *, hit: bool) -> None:
        """The response cache was asked."""

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke up that much later than it should have."""

    def http_request(
        self, method: str, route: str, status: int, seconds: float, *, streamed: bool = False
    ) -> None:
        """The API answered. `route` is the template, never a path; `seconds` until the last byte of the body."""

    def text(self) -> str:
        """All of it, to be sent as `METRICS_TYPE`."""
        raise NotImplementedError
