"""Reasoning at the terminal: stdout has the answer alone, stderr what people asked to see."""

from __future__ import annotations

import json

import pytest

from llm_local.errors import InvalidRequest
from llm_local.events import Delta
from terminal.test_flags import script  # noqa: F401  (a fixture)
from terminal.test_one_shot import END, FakeRaw, MakeBench, bench  # noqa: F401  (a fixture)

EVENTS = (
    Delta("reasoning", "I see", (1, 2)),
    Delta("reasoning", " it.", (3,)),
    Delta("content", "Yes.", (4,)),
    END,
)


def test_the_answer_alone_is_on_stdout(bench: MakeBench) -> None:  # noqa: F811
    run = bench(events=EVENTS)
    assert run.run("Hi") == 0
    assert (run.stdout.text, run.stderr.text) == ("Yes.\n", "")


@pytest.mark.parametrize("events", [EVENTS, EVENTS[:2] + EVENTS[3:]])
def test_shown_reasoning_stands_between_marks_on_stderr(bench: MakeBench, events) -> None:  # noqa: F811
    """Also when no answer follows it."""
    run = bench(events=events)
    assert run.run("Hi", "--show-thinking") == 0
    assert run.stderr.text == "--- thinking ---\nI see it.\n--- end of thinking ---\n"
    assert run.stdout.text == ("Yes.\n" if events is EVENTS else "\n")


def test_a_terminal_sees_that_the_model_thinks_and_no_escape_of_its_own(
    bench: MakeBench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    run = bench(events=EVENTS)
    run.stderr = FakeRaw(terminal=True)
    assert run.run("Hi") == 0
    assert "thinking: 3 tokens" in run.stderr.text
    assert run.stderr.text.endswith("\r")
    run = bench(events=(Delta("reasoning", "a\x1b[31mb"), END))
    run.stderr = FakeRaw(terminal=True)
    assert run.run("Hi", "--show-thinking") == 0
    assert "\x1b" not in run.stderr.text


def test_json_has_both(bench: MakeBench) -> None:  # noqa: F811
    run = bench(events=EVENTS)
    assert run.run("Hi", "--json", "--think", "--max-thinking-tokens", "7") == 0
    report = json.loads(run.stdout.text)
    assert (report["reasoning"], report["text"]) == ("I see it.", "Yes.")
    assert (report["options"]["think"], report["options"]["max_thinking_tokens"]) == ("on", 7)


@pytest.mark.parametrize(
    ("words", "think"),
    [(["--think"], "on"), (["--no-think"], "off"), (["--reasoning-effort", "low"], "low"), ([], "default")],
)
def test_flags_reach_the_options(bench: MakeBench, words: list[str], think: str) -> None:  # noqa: F811
    run = bench(events=EVENTS)
    assert run.run("Hi", *words) == 0
    assert run.generator.options.think == think


@pytest.mark.parametrize(
    "words",
    [
        ["--no-think", "--think"],
        ["--reasoning-effort", "much"],
        ["--max-thinking-tokens", "-1"],
        ["--max-thinking-tokens", "1.5"],
    ],
)
def test_mistakes_are_named(bench: MakeBench, words: list[str]) -> None:  # noqa: F811
    with pytest.raises(InvalidRequest, match=words[-2]):
        bench(events=EVENTS).run("Hi", *words)
