"""One call through all that may become of it, and what the model then reads."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from llm_local.events import ToolResult, ToolStarted
from llm_local.messages import ToolCall, ToolDefinition
from llm_local.tools import calling
from llm_local.tools.approval import Approval, allow_all, deny_all
from llm_local.tools.calling import CallRunner
from llm_local.tools.functions import make_tool
from llm_local.tools.limits import ToolLimits
from llm_local.tools.tool import Tool, ToolFailure


def tool(run: Callable[[Any], str] = lambda arguments: "done", **details: Any) -> Tool:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    return Tool(ToolDefinition("f", "Do.", schema), run, "function", **details)


def call(name: str = "f", **arguments: Any) -> ToolCall:
    return ToolCall("abcdefghi", name, arguments)


def run_all(runner: CallRunner, *calls: ToolCall) -> list[ToolResult]:
    return [event for one in calls for event in runner.run(one) if isinstance(event, ToolResult)]


def test_an_allowed_call_runs() -> None:
    runner = CallRunner([tool(lambda given: f"got {given['n']}")], allow_all, ToolLimits())
    started, result = runner.run(call(n=3))
    assert started == ToolStarted(call(n=3), "function")
    assert isinstance(result, ToolResult)
    assert (result.outcome, result.text, result.omitted_chars) == ("ok", "got 3", 0)
    assert result.run_s > 0


def test_without_an_approver_nothing_runs() -> None:
    ran: list[Any] = []
    runner = CallRunner([tool(lambda given: ran.append(given) or "")], deny_all, ToolLimits())
    (result,) = runner.run(call())
    assert (result.outcome, ran) == ("denied", [])
    assert result.text == '{"error": "The call was not allowed."}'


def test_the_approver_sees_call_and_tool_each_time_until_it_says_always() -> None:
    asked: list[tuple[ToolCall, str]] = []
    answers = [
        Approval(False, "Too late."),
        Approval(True),
        Approval(False),
        Approval(True, always=True),
    ]

    def approve(one: ToolCall, its: Tool) -> Approval:
        asked.append((one, its.source))
        return answers.pop(0)

    runner = CallRunner([tool()], approve, ToolLimits())
    results = run_all(runner, *[call(n=n) for n in range(6)])
    assert [one.outcome for one in results] == ["denied", "ok", "denied", "ok", "ok", "ok"]
    assert asked == [(call(n=n), "function") for n in range(4)]
    assert results[0].text == '{"error": "The call was not allowed. Too late."}'
    assert results[2].text == '{"error": "The call was not allowed."}'


def test_always_is_for_one_tool() -> None:
    def g() -> str:
        return "g"

    asked: list[str] = []

    def approve(one: ToolCall, its: Tool) -> Approval:
        asked.append(one.name)
        return Approval(True, always=True)

    runner = CallRunner([tool(), make_tool(g)], approve, ToolLimits())
    run_all(runner, call(), call(), call("g"), call("g"))
    assert asked == ["f", "g"]


def test_what_cannot_run_is_not_asked_about() -> None:
    def approve(one: ToolCall, its: Tool) -> Approval:
        raise AssertionError(one)

    runner = CallRunner([tool()], approve, ToolLimits())
    unknown, invalid = run_all(runner, call("g"), call(n="three"))
    assert (
        unknown.outcome == "unknown" and "no tool 'g'" in unknown.text and "The tools are: f." in unknown.text
    )
    assert invalid.outcome == "invalid" and "n: 'three' is not of type 'integer'" in invalid.text


def raising(error: BaseException) -> Callable[[Any], str]:
    def run(arguments: Any) -> str:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (raising(ToolFailure("No such city.")), '{"error": "No such city."}'),
        (raising(ValueError("bad")), '{"error": "ValueError: bad"}'),
        (raising(KeyError()), '{"error": "KeyError"}'),
        (raising(SystemExit(3)), '{"error": "SystemExit: 3"}'),
        (raising(KeyboardInterrupt()), '{"error": "KeyboardInterrupt"}'),
        (lambda arguments: 3, '{"error": "The tool f gave no text, but a int."}'),
    ],
)
def test_a_failure_is_told(run: Any, text: str) -> None:
    (result,) = run_all(CallRunner([tool(run)], allow_all, ToolLimits()), call())
    assert (result.outcome, result.text) == ("failed", text)


def test_an_error_that_cannot_even_be_told_is_a_failure_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    (result,) = run_all(CallRunner([tool(raising(Mute()))], allow_all, ToolLimits(call_s=5)), call())
    assert (result.outcome, result.text) == ("failed", '{"error": "Mute"}')


def test_a_call_that_takes_too_long_is_not_waited_for() -> None:
    release = threading.Event()
    for limits, details in (
        (ToolLimits(call_s=0.05), {}),
        (ToolLimits(call_s=60), {"time_limit_s": 0.05}),
    ):
        slow = tool(lambda given: str(release.wait(30)), **details)
        (result,) = run_all(CallRunner([slow], allow_all, limits), call())
        assert (result.outcome, result.text) == (
            "timed_out",
            '{"error": "The tool gave no result within 0.05 seconds."}',
        )
        assert result.run_s >= 0.05
    release.set()


def test_what_a_late_call_brings_is_not_taken_for_the_next_ones() -> None:
    release = threading.Event()

    def run(given: Any) -> str:
        if given:
            release.wait(30)
            return "late"
        release.set()
        time.sleep(0.02)
        return "in time"

    late, next_one = run_all(CallRunner([tool(run)], allow_all, ToolLimits(call_s=0.2)), call(n=1), call())
    assert (late.outcome, next_one.text) == ("timed_out", "in time")


def test_a_long_result_is_cut_and_says_so() -> None:
    runner = CallRunner([tool(lambda given: "é" * 1234)], allow_all, ToolLimits(max_result_chars=1000))
    (result,) = run_all(runner, call())
    assert result.omitted_chars == 234
    assert result.text == "é" * 1000 + "\n[234 more characters of this result were left out.]"


def test_half_characters_become_replacement_characters() -> None:
    (result,) = run_all(CallRunner([tool(lambda given: "a\ud800b😀")], allow_all, ToolLimits()), call())
    assert result.text == "a\ufffdb😀"


def test_calls_are_counted_where_they_run() -> None:
    runner = CallRunner([tool()], allow_all, ToolLimits(max_calls=2))
    results = run_all(runner, call(), call("g"), call(n="x"), call(), call(), call())
    outcomes = [one.outcome for one in results]
    assert outcomes == ["ok", "unknown", "invalid", "ok", "over_limit", "over_limit"]
    assert results[-1].text == '{"error": "Not run, because the limit of 2 calls is reached."}'


def test_cancel_ends_the_waiting_and_all_that_would_follow() -> None:
    release, running = threading.Event(), threading.Event()

    def run(given: Any) -> str:
        running.set()
        return str(release.wait(30))

    runner = CallRunner([tool(run)], allow_all, ToolLimits(call_s=30))

    def cancel() -> None:
        running.wait(30)
        runner.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    started_s = time.monotonic()
    results = run_all(runner, call(), call())
    assert time.monotonic() - started_s < 20
    assert [one.outcome for one in results] == ["cancelled", "cancelled"]
    thread.join()
    release.set()


def test_a_cancel_during_the_question_is_no_yes() -> None:
    def approve(one: ToolCall, its: Tool) -> Approval:
        runner.cancel()
        return Approval(True)

    runner = CallRunner([tool()], approve, ToolLimits())
    assert [one.outcome for one in run_all(runner, call())] == ["cancelled"]


def test_a_tool_sees_the_callers_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("somebody")
    (result,) = run_all(CallRunner([tool(lambda given: who.get())], allow_all, ToolLimits()), call())
    assert result.text == "somebody"


def test_calls_run_in_threads_that_keep_no_process_alive() -> None:
    def run(given: Any) -> str:
        thread = threading.current_thread()
        return f"{thread.name} {thread.daemon}"

    (result,) = run_all(CallRunner([tool(run)], allow_all, ToolLimits()), call())
    assert result.text == "tool f True"


def test_a_machine_without_threads_left_is_a_failure_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    (result,) = run_all(CallRunner([tool()], allow_all, ToolLimits()), call())
    assert (result.outcome, "can't start new thread" in result.text) == ("failed", True)


def test_an_exception_that_cannot_even_be_told_ends_the_wait() -> None:
    class Untold(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def run(given: Any) -> str:
        raise Untold

    (result,) = run_all(CallRunner([tool(run)], allow_all, ToolLimits()), call())
    assert (result.outcome, result.text) == ("failed", '{"error": "Untold"}')


def _bomb(levels: int) -> dict[str, Any]:
    """A schema of a few lines whose check takes longer than anybody can wait."""
    definitions = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(levels)
    }
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {}}}


def test_a_check_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema of a server can be a bomb. The thread ends by itself, so that nothing runs on behind the test."""
    monkeypatch.setattr(calling, "CHECK_LIMIT_S", 0.05)
    bomb = Tool(ToolDefinition("f", "Do.", _bomb(12)), lambda given: "done", "mcp:server")
    (result,) = run_all(CallRunner([bomb], allow_all, ToolLimits()), call())
    assert (result.outcome, result.text) == (
        "invalid",
        '{"error": "The arguments could not be checked within 0.05 seconds."}',
    )


def test_cancelling_does_not_wait_for_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, leave = threading.Event(), threading.Event()

    def check(arguments: Any, schema: Any) -> list[str]:
        checking.set()
        leave.wait(20)
        return []

    monkeypatch.setattr(calling, "argument_faults", check)
    runner = CallRunner([tool()], allow_all, ToolLimits())
    threading.Thread(target=lambda: (checking.wait(20), runner.cancel())).start()
    began_s = time.monotonic()
    (result,) = run_all(runner, call())
    leave.set()
    assert result.outcome == "cancelled"
    assert time.monotonic() - began_s < 4
