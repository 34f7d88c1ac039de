"""What is reported is what happened."""

from __future__ import annotations

import json

from llm_local.errors import ModelNotFound
from llm_local.events import Completion, FinishReason, Timings, Usage
from llm_local.options import GenerationOptions
from llm_local.specs import ModelInfo
from llm_local.terminal.report import RunReport, error_object

INFO = ModelInfo("starter", "/x", "llama", 3_000_000, 6_000_000, "float32", "cpu", 100, 512, True)


def _report(
    reason: FinishReason = "stop",
    usage: Usage | None = None,
    timings: Timings | None = None,
    **details: object,
) -> RunReport:
    completion = Completion(
        text="Hi.",
        reasoning="",
        tool_calls=(),
        token_ids=(1, 2),
        logprobs=(),
        finish_reason=reason,
        usage=usage or Usage(prompt_tokens=30, cached_tokens=10, completion_tokens=11),
        timings=timings or Timings(prefill_s=0.5, decode_s=2.0, first_token_s=0.5),
    )
    return RunReport(
        completion, INFO, "native step (avx2)", 1.25, GenerationOptions(seed=7, stop=("x",)), **details
    )


def test_the_object_has_what_programs_need() -> None:
    report = _report(notices=("one",)).to_object()
    assert report["text"] == "Hi." and report["finish_reason"] == "stop"
    assert report["usage"] == {
        "prompt_tokens": 30,
        "cached_tokens": 10,
        "completion_tokens": 11,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
        "replayed_tokens": 0,
        "total_tokens": 41,
    }
    assert report["timings"]["load_s"] == 1.25
    assert report["timings"]["prefill_tokens_per_s"] == 40.0  # 20 were not cached
    assert report["timings"]["decode_tokens_per_s"] == 5.0  # the first of 11 came out of the prefill
    assert (report["model"], report["device"], report["dtype"]) == ("starter", "cpu", "float32")
    assert report["seed"] == 7 and report["options"]["seed"] == 7 and report["options"]["top_k"] == 0
    assert report["notices"] == ["one"]
    assert "prompt" not in report
    assert json.loads(json.dumps(report, allow_nan=False))["options"]["stop"] == ["x"]


def test_the_prompt_is_in_the_object_when_asked_for() -> None:
    assert _report(prompt="<s>Hi").to_object()["prompt"] == "<s>Hi"


def test_no_speed_is_made_up() -> None:
    report = _report(usage=Usage(5, 5, 1), timings=Timings())
    speeds = report.to_object()["timings"]
    assert speeds["prefill_tokens_per_s"] is None and speeds["decode_tokens_per_s"] is None
    assert "tok/s" not in "".join(report.lines())


def test_the_lines_tell_the_same() -> None:
    text = "\n".join(_report().lines())
    for part in ("starter", "cpu", "float32", "1.25 s", "30 tokens (10 cached)", "40.0 tok/s", "11 tokens"):
        assert part in text
    for part in ("5.0 tok/s", "finish reason: stop", "seed 7", "temperature 1.0"):
        assert part in text


def test_a_cut_answer_says_why() -> None:
    assert _report().cut_notice == ""
    by_cap = _report("length")
    assert by_cap.cut_notice == "The answer was cut after 11 tokens; --max-tokens raises the limit."
    assert by_cap.to_object()["notices"] == [by_cap.cut_notice]
    by_window = _report("length", Usage(prompt_tokens=60, completion_tokens=40))
    assert "the context of 100 tokens is full" in by_window.cut_notice


def test_an_error_object() -> None:
    assert error_object(ModelNotFound("No.", "Look.")) == {
        "error": {"kind": "model_not_found", "message": "No.", "hint": "Look."}
    }
    assert error_object(KeyError("x"))["error"]["kind"] == "internal_error"


def test_guesses_are_told_where_there_were_any() -> None:
    assert "guessed" not in "\n".join(_report().lines())
    usage = Usage(prompt_tokens=30, completion_tokens=11, drafted_tokens=8, accepted_tokens=5)
    assert "guessed ahead: 5 of 8 tokens came true" in _report(usage=usage).lines()
