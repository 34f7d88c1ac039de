"""What a service counts: the right numbers, bounded labels, and nothing of what people wrote."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from llm_local.events import Timings, Usage
from llm_local.runtime.metrics import MAX_MODELS, METRICS_TYPE, Metrics, ModelGauges, ServiceGauges


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    return {
        (
            sample.name.removeprefix("llm_local_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_finished_request_is_counted_where_it_belongs() -> None:
    metrics = Metrics()
    timings = Timings(prefill_s=0.2, decode_s=1.0, first_token_s=0.3)
    metrics.request_finished("tiny", "stop", Usage(100, 60, 20), timings, 1.5)
    metrics.token_gaps("tiny", [0.01, 0.02, 0.3])
    metrics.waited("tiny", 0.05)
    found = samples(metrics)
    assert found["requests_total", "tiny", "stop"] == 1
    assert found["prompt_tokens_total", "tiny"] == 100
    assert found["cached_prompt_tokens_total", "tiny"] == 60
    assert found["completion_tokens_total", "tiny"] == 20
    assert found["time_to_first_token_seconds_sum", "tiny"] == 0.3
    assert found["request_seconds_sum", "tiny"] == 1.5
    assert found["inter_token_seconds_count", "tiny"] == 3
    assert found["inter_token_seconds_bucket", "0.02", "tiny"] == 2
    assert found["queue_wait_seconds_count", "tiny"] == 1


def test_a_replayed_reply_is_not_counted_as_computed() -> None:
    metrics = Metrics()
    metrics.cache_looked_up("tiny", hit=True)
    metrics.cache_looked_up("tiny", hit=False)
    metrics.request_finished("tiny", "stop", Usage(10, 10, 4, replayed_tokens=4), Timings(), 0.001)
    found = samples(metrics)
    assert found["replayed_tokens_total", "tiny"] == 4
    assert found["requests_total", "tiny", "stop"] == 1
    assert ("completion_tokens_total", "tiny") not in found
    assert ("time_to_first_token_seconds_count", "tiny") not in found
    assert [found["response_cache_lookups_total", "tiny", result] for result in ("hit", "miss")] == [1, 1]


def test_a_request_that_was_cancelled_before_its_first_token_has_no_time_to_it() -> None:
    metrics = Metrics()
    metrics.request_finished("tiny", "cancelled", Usage(10, 0, 0), Timings(), 0.4)
    found = samples(metrics)
    assert found["requests_total", "tiny", "cancelled"] == 1
    assert ("time_to_first_token_seconds_count", "tiny") not in found


def test_refusals_failures_and_loads() -> None:
    metrics = Metrics()
    metrics.request_refused("server_busy")
    metrics.request_failed("tiny", "numerical_error")
    metrics.model_loaded("tiny", 4.0)
    metrics.loop_lag(0.003)
    found = samples(metrics)
    assert found["requests_refused_total", "server_busy"] == 1
    assert found["request_failures_total", "numerical_error", "tiny"] == 1
    assert found["model_load_seconds_sum", "tiny"] == 4.0
    assert found["event_loop_lag_seconds_bucket", "0.005"] == 1


def test_streamed_answers_have_a_histogram_of_their_own() -> None:
    metrics = Metrics()
    metrics.http_request("POST", "/v1/chat/completions", 200, 30.0, streamed=True)
    metrics.http_request("POST", "/v1/chat/completions", 400, 0.002)
    metrics.http_request("GET\r\nX: y", "/health", 9999, 0.001)
    found = samples(metrics)
    assert found["http_stream_seconds_sum", "POST", "/v1/chat/completions"] == 30.0
    assert found["http_request_seconds_sum", "POST", "/v1/chat/completions"] == 0.002
    assert found["http_requests_total", "POST", "/v1/chat/completions", "400"] == 1
    assert found["http_requests_total", "other", "/health", "other"] == 1


def test_gauges_are_read_when_somebody_asks() -> None:
    now = ServiceGauges()
    metrics = Metrics(lambda: now)
    assert samples(metrics)["loaded_models",] == 0
    now = ServiceGauges((ModelGauges("tiny", 3, 2, 8, 1000, 50), ModelGauges("big", 0, 1, 4)), 77, 2)
    found = samples(metrics)
    assert [found[name, "tiny"] for name in ("queue_depth", "slots_in_use", "slots")] == [3, 2, 8]
    assert [found[name, "tiny"] for name in ("model_weights_bytes", "model_kv_bytes")] == [1000, 50]
    assert (found["loaded_models",], found["slots_in_use", "big"]) == (2, 1)
    assert (found["response_cache_bytes",], found["response_cache_entries",]) == (77, 2)
    assert found["process_memory_bytes",] > 1e6


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_MODELS + 500):
        metrics.waited(f"model {number}", 0.1)
        metrics.http_request("GET", f"/route/{number}", 200, 0.1)
        metrics.request_refused(f"kind {number}")
    found = samples(metrics)
    assert len({key[1] for key in found if key[0] == "queue_wait_seconds_sum"}) == MAX_MODELS + 1
    assert found["queue_wait_seconds_count", "other"] == 500
    assert len(found) < 10_000


def test_two_services_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.model_loaded("tiny", 1.0)
    assert ("model_load_seconds_count", "tiny") in samples(one)
    assert ("model_load_seconds_count", "tiny") not in samples(other)
    assert METRICS_TYPE.startswith("text/plain")


def test_every_metric_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    metrics = Metrics(lambda: ServiceGauges((ModelGauges("tiny", 0, 0, 1),)))
    names = re.findall(r"^# TYPE llm_local_(\w+) (?:counter|histogram|gauge)$", metrics.text(), re.MULTILINE)
    names = [name for name in names if not name.endswith("_created")]
    assert len(names) >= 25
    assert [name for name in names if f"`{name}`" not in page] == []
