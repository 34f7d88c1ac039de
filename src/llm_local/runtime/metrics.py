"""Counters and histograms of one service, in the text format that Prometheus reads.

Nothing of a prompt, a reply or an owner is in them. Labels are bounded: what goes beyond is counted as `other`. Every
service has a registry of its own. Safe from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, get_args

import psutil  # type: ignore[import-untyped]
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from llm_local.events import FinishReason, Timings, Usage

__all__ = ["METRICS_TYPE", "Metrics", "ModelGauges", "ServiceGauges"]

METRICS_TYPE: Final = CONTENT_TYPE_LATEST

MAX_MODELS: Final = 64
MAX_ROUTES: Final = 256
MAX_KINDS: Final = 64
OTHER: Final = "other"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# Seconds. A token of a small model on a GPU takes a millisecond, a prompt on a slow CPU minutes.
LONG_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


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

    def __init__(self, gauges: Callable[[], ServiceGauges] = ServiceGauges) -> None:
        """`gauges` is called whenever somebody reads the metrics, in the thread that reads."""
        self._registry = CollectorRegistry()
        self._models = _Names(MAX_MODELS)
        self._routes = _Names(MAX_ROUTES)
        self._kinds = _Names(MAX_KINDS)
        self._make_counters()
        self._make_histograms()
        self._registry.register(_Gauges(gauges, self._models))

    def request_finished(
        self, model: str, reason: FinishReason, usage: Usage, timings: Timings, total_s: float
    ) -> None:
        """A request ended by itself or was cancelled; `total_s` from its arrival to its end.

        The time to the first token is counted from arrival too: in line, loading, and in the engine. A reply without
        any token has none, and one that was replayed is counted apart from those that were computed.
        """
        name = self._models[model]
        self._requests.labels(name, reason if reason in get_args(FinishReason) else OTHER).inc()
        self._request_s.labels(name).observe(total_s)
        if usage.replayed_tokens:
            self._replayed.labels(name).inc(usage.replayed_tokens)
            return
        self._prompt.labels(name).inc(usage.prompt_tokens)
        self._cached.labels(name).inc(usage.cached_tokens)
        self._completion.labels(name).inc(usage.completion_tokens)
        if usage.completion_tokens:
            self._first_token_s.labels(name).observe(timings.first_token_s)

    def request_failed(self, model: str, kind: str) -> None:
        """A request that was admitted ended with an error of that kind."""
        self._failures.labels(self._models[model], self._kinds[kind]).inc()

    def request_refused(self, kind: str) -> None:
        """A request was refused before it ran: server_busy, queue_timeout, rate_limit_exceeded..."""
        self._refusals.labels(self._kinds[kind]).inc()

    def token_gaps(self, model: str, seconds: Iterable[float]) -> None:
        """Seconds between tokens of one reply that came one after the other."""
        observe = self._between_tokens_s.labels(self._models[model]).observe
        for one in seconds:
            observe(one)

    def waited(self, model: str, seconds: float) -> None:
        """A request was let in after waiting that long in line."""
        self._wait_s.labels(self._models[model]).observe(seconds)

    def model_loaded(self, model: str, seconds: float) -> None:
        """A model was loaded."""
        self._load_s.labels(self._models[model]).observe(seconds)

    def cache_looked_up(self, model: str, *, hit: bool) -> None:
        """The response cache was asked."""
        self._lookups.labels(self._models[model], "hit" if hit else "miss").inc()

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke up that much later than it should have."""
        self._lag_s.observe(seconds)

    def http_request(
        self, method: str, route: str, status: int, seconds: float, *, streamed: bool = False
    ) -> None:
        """The API answered. `route` is the template, never a path; `seconds` until the last byte of the body.

        Answers that are streamed take as long as a model writes, so they have a histogram of their own.
        """
        method = method if method in METHODS else OTHER
        route = self._routes[route]
        self._http.labels(method, route, str(status) if 100 <= status <= 599 else OTHER).inc()
        (self._http_stream_s if streamed else self._http_s).labels(method, route).observe(seconds)

    def text(self) -> str:
        """All of it, to be sent as `METRICS_TYPE`."""
        return generate_latest(self._registry).decode()

    def _make_counters(self) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"llm_local_{name}", help, labels, registry=self._registry)

        self._requests = counter("requests", "Requests that ended, by how.", "model", "reason")
        self._failures = counter("request_failures", "Requests that ended with an error.", "model", "kind")
        self._refusals = counter("requests_refused", "Requests that were refused before they ran.", "kind")
        self._prompt = counter("prompt_tokens", "Tokens of prompts, cached ones included.", "model")
        self._cached = counter("cached_prompt_tokens", "Tokens of prompts that were not read again.", "model")
        self._completion = counter("completion_tokens", "Tokens that were sampled.", "model")
        self._replayed = counter(
            "replayed_tokens", "Tokens of replies that came out of the response cache.", "model"
        )
        self._lookups = counter("response_cache_lookups", "Looks into the response cache.", "model", "result")
        self._http = counter("http_requests", "Answers of the API.", "method", "route", "status")

    def _make_histograms(self) -> None:
        def histogram(name: str, help: str, buckets: Collection[float], *labels: str) -> Histogram:
            return Histogram(
                f"llm_local_{name}", help, labels, registry=self._registry, buckets=tuple(buckets)
            )

        self._first_token_s = histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", LONG_S, "model"
        )
        self._between_tokens_s = histogram(
            "inter_token_seconds", "From one token of a reply to the next.", SHORT_S, "model"
        )
        self._request_s = histogram("request_seconds", "From arrival to the end.", LONG_S, "model")
        self._wait_s = histogram("queue_wait_seconds", "In line before being let in.", LONG_S, "model")
        self._load_s = histogram("model_load_seconds", "Loading a model.", LONG_S, "model")
        self._lag_s = histogram("event_loop_lag_seconds", "How late the event loop woke up.", SHORT_S)
        self._http_s = histogram(
            "http_request_seconds",
            "Answers that are not streamed, to their last byte.",
            LONG_S,
            "method",
            "route",
        )
        self._http_stream_s = histogram(
            "http_stream_seconds", "Streamed answers, to their last byte.", LONG_S, "method", "route"
        )


class _Names(dict[str, str]):
    """A label's values: the first ones by their own name, all others as one."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __missing__(self, name: str) -> str:
        if len(self) >= self._most:
            return OTHER
        return self.setdefault(name, name)


class _Gauges:
    """What is asked for at the moment of reading, so that nothing has to keep it up to date."""

    def __init__(self, gauges: Callable[[], ServiceGauges], models: _Names) -> None:
        self._gauges = gauges
        self._models = models
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """The families, as prometheus_client asks for them."""
        now = self._gauges()
        per_model: list[tuple[str, str, Callable[[ModelGauges], float]]] = [
            ("queue_depth", "Requests that wait in line.", lambda one: one.waiting),
            ("slots_in_use", "Requests that run.", lambda one: one.running),
            ("slots", "Requests that may run at once.", lambda one: one.max_concurrent),
            ("model_weights_bytes", "Memory of the weights.", lambda one: one.weights_bytes),
            ("model_kv_bytes", "Memory of keys and values in use.", lambda one: one.kv_bytes),
        ]
        for name, help, read in per_model:
            yield self._per_model(name, help, now.models, read)
        singles = [
            ("loaded_models", "Models in memory.", len(now.models)),
            ("response_cache_bytes", "Size of the kept replies.", now.response_cache_bytes),
            ("response_cache_entries", "Kept replies.", now.response_cache_entries),
            ("process_memory_bytes", "Resident memory of this process.", self._process.memory_info().rss),
        ]
        for name, help, value in singles:
            yield GaugeMetricFamily(f"llm_local_{name}", help, value=value)

    def _per_model(
        self,
        name: str,
        help: str,
        models: tuple[ModelGauges, ...],
        read: Callable[[ModelGauges], float],
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"llm_local_{name}", help, labels=["model"])
        values: dict[str, float] = {}
        for one in models:
            label = self._models[one.model]
            values[label] = values.get(label, 0) + read(one)
        for label, value in values.items():
            family.add_metric([label], value)
        return family
