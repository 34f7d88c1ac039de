"""The batch run on an engine that repeats: results in order, failures by line, and going on where it stopped."""

from __future__ import annotations

import argparse
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fakes import FakeClock
from generation.test_batches import make_generator
from llm_local.config import Config
from llm_local.errors import ModelNotFound
from llm_local.events import Delta, Progress
from llm_local.specs import ModelInfo
from llm_local.terminal import batch
from llm_local.terminal.asking import OpenModel
from llm_local.terminal.one_shot import OneShot
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import AnswerWriter, Messages
from terminal.fake_streams import FakeRaw
from terminal.test_flags import script  # noqa: F401  (a fixture)


class Bench:
    """Everything around batch runs; each run has its own engine."""

    def __init__(self, parse: Callable[[Sequence[str]], argparse.Namespace], folder: Path) -> None:
        self.parse = parse
        self.folder = folder
        self.stdin = b""
        self.model = "starter"
        self.failing: tuple[str, ...] = ()
        self.stdout = FakeRaw()
        self.stderr = FakeRaw()
        self.signals = StopSignals(Messages(self.stderr))
        self.asked: list[str] = []
        self.opened = 0

    def run(self, *words: str, stdout: FakeRaw | None = None) -> int:
        (self.folder / "stdin").write_bytes(self.stdin)
        stdin = os.open(self.folder / "stdin", os.O_RDONLY)
        self.stdout, self.stderr = stdout or FakeRaw(), FakeRaw()
        messages = Messages(self.stderr)
        self.signals = StopSignals(messages)
        self.asked, self.opened = [], 0
        shot = OneShot(AnswerWriter(self.stdout), messages, self.signals, stdin=stdin, opener=self._open)
        try:
            return shot.run(self.parse(words))
        finally:
            os.close(stdin)
            for request in self.engine.requests if self.opened else ():
                self.asked.append(bytes(request.prompt_ids).decode())

    def _open(self, config: Config, on_progress: Callable[[Progress], None]) -> OpenModel:
        self.opened += 1
        generator, self.engine = make_generator(self.failing)
        info = ModelInfo(self.model, "/x", "llama", 3, 6, "float32", "cpu", 2000, 512, True)
        return OpenModel(generator, info, {"top_k": 20}, 0.5)

    def batch(self, *lines: Any, name: str = "in.jsonl") -> str:
        """Write lines: texts as they are, anything else as JSON."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = self.folder / name
        path.write_text("".join(text + "\n" for text in texts))
        return str(path)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.text.splitlines()]

    def written(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def bench(
    script: ModuleType,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    before = dict(os.environ)
    yield Bench(lambda words: script.make_parser().parse(words), tmp_path)
    os.environ.clear()  # a run prepares the environment of its process
    os.environ.update(before)


def prompts(*texts: str) -> list[dict[str, str]]:
    return [{"prompt": text} for text in texts]


# --- lines in, results out -------------------------------------------------------------------------------------


def test_results_come_in_order_with_all_that_json_tells(bench: Bench) -> None:
    path = bench.batch({"prompt": "a" * 50, "id": "first"}, "", {"prompt": "b", "id": 2}, {"prompt": "c"})
    assert bench.run("--batch", path, "--raw") == 0
    assert [(r["line"], r.get("id"), r["text"]) for r in bench.results] == [
        (1, "first", "a" * 50),
        (3, 2, "b"),
        (4, None, "c"),
    ]
    assert {"finish_reason", "usage", "timings", "model", "seed", "options", "notices"} < set(
        bench.results[0]
    )
    assert bench.stderr.text.startswith("3 of 3 lines answered") and bench.stderr.text.count("\n") == 1


def test_stdin_is_a_batch_too(bench: Bench) -> None:
    bench.stdin = b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}'
    assert bench.run("--batch", "-", "--raw", "--json") == 0
    assert [r["text"] for r in bench.results] == ["a", "b"]


def test_bad_lines_fail_alone_and_are_counted(bench: Bench) -> None:
    bench.failing = ("bad",)
    path = bench.batch(
        {"prompt": "a"},
        "{",
        {"prompt": "b", "foo": 1, "id": "x"},
        {"prompt": "c" * 5000},
        {"prompt": "d", "temperature": 99},
        {"prompt": "bad"},
        {"prompt": "e"},
    )
    assert bench.run("--batch", path, "--raw") == 1
    assert [r.get("text") for r in bench.results] == ["a", None, None, None, None, None, "e"]
    errors = [r["error"] for r in bench.results if "error" in r]
    assert [error["kind"] for error in errors] == [
        "invalid_value",
        "invalid_value",
        "context_length_exceeded",
        "invalid_value",
        "numerical_error",
    ]
    assert "foo" in errors[1]["message"] and "temperature" in errors[3]["message"]
    assert bench.results[2]["id"] == "x" and set(errors[0]) == {"kind", "message", "hint"}
    assert bench.stderr.text.startswith("2 of 7 lines answered, 5 failed (line 2, 3, 4, 5, 6)")


def test_a_line_outranks_flags_and_flags_the_model(bench: Bench) -> None:
    path = bench.batch({"prompt": "abc", "max_new_tokens": 2}, {"prompt": "abcd"})
    assert bench.run("--batch", path, "--raw", "--max-tokens", "3", "--seed", "5") == 0
    assert [(r["text"], r["seed"], r["options"]["top_k"]) for r in bench.results] == [
        ("ab", 5, 20),
        ("abc", 5, 20),
    ]


def test_the_system_prompt_comes_before_lines_without_one(bench: Bench) -> None:
    own = {"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "c"}]}
    path = bench.batch({"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}]}, own)
    assert bench.run("--batch", path, "-s", "Given.") == 0
    assert [("Given." in asked, "Own." in asked) for asked in bench.asked] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_each_line_has_a_seed_and_can_be_replayed_from_its_result(bench: Bench) -> None:
    path = bench.batch(*prompts("a", "a", "b"))
    assert bench.run("--batch", path, "--raw", "--temperature", "1") == 0
    first = bench.results
    assert len({r["seed"] for r in first}) == 3
    again = bench.batch(*({"prompt": p, **r["options"]} for p, r in zip("aab", first, strict=True)))
    assert bench.run("--batch", again, "--raw") == 0
    assert [r["options"] for r in bench.results] == [r["options"] for r in first]


def test_nothing_to_do_needs_no_model(bench: Bench) -> None:
    assert bench.run("--batch", bench.batch("", " ")) == 0
    assert (bench.opened, bench.stdout.text) == (0, "")
    assert bench.stderr.text == "0 of 0 lines answered\n"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--batch", "in.jsonl", "Hi"], "PROMPT"),
        (["--batch", "in.jsonl", "--no-stream"], "--no-stream"),
        (["--batch", "in.jsonl", "--show-prompt"], "--show-prompt"),
        (["--batch", "in.jsonl", "--verbose"], "--verbose"),
        (["--batch", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--batch", "."], "Is a directory"),
        (["--batch", ""], "No such file"),
        (["--output", "x", "Hi"], "--batch"),
        (["--batch", "in.jsonl", "--output", "in.jsonl"], "is the input"),
        (["--batch", "in.jsonl", "--output", "link"], "is the input"),
        (["--batch", "in.jsonl", "--output", "."], "Is a directory"),
        (["--batch", "in.jsonl", "--output", "no/where"], "no/where"),
        (["--batch", "in.jsonl", "--output", "/dev/null"], "no file"),
        (["--batch", "in.jsonl", "--temperature", "99"], "--temperature"),
    ],
)
def test_what_cannot_be_meant_is_2_before_the_model(bench: Bench, words: list[str], part: str) -> None:
    bench.batch(*prompts("a"))
    (bench.folder / "link").symlink_to("in.jsonl")
    assert bench.run(*words) == 2
    assert part in bench.stderr.text and bench.stderr.text.count("\n") == 1
    assert (bench.opened, bench.stdout.text) == (0, "")


def test_a_failure_of_all_is_one_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> OpenModel:
        raise ModelNotFound("No model.")

    monkeypatch.setattr(bench, "_open", fail)
    assert bench.run("--batch", bench.batch(*prompts("a")), "--json") == 3
    assert bench.results == [{"error": {"kind": "model_not_found", "message": "No model.", "hint": ""}}]


def test_a_full_stdout_is_6_and_a_gone_reader_is_quiet(bench: Bench) -> None:
    path = bench.batch(*prompts("a"))
    full = FakeRaw(room=0, error=OSError(errno.ENOSPC, "No space left on device"))
    assert bench.run("--batch", path, stdout=full) == 6
    gone = FakeRaw(room=9, error=BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert bench.run("--batch", path, stdout=gone) == 141
    assert bench.stderr.text == ""


# --- --output --------------------------------------------------------------------------------------------------


def test_a_finished_batch_is_not_done_again(bench: Bench) -> None:
    path = bench.batch(*prompts("a", "b"), "{")
    for opened in (1, 0):
        assert bench.run("--batch", path, "--raw", "--output", "out.jsonl") == 1
        assert (bench.opened, bench.stdout.text) == (opened, "")
        assert [r["line"] for r in bench.written("out.jsonl")] == [1, 2, 3]
    assert "3 of 3 lines have a result in out.jsonl\n2 of 3 lines answered, 1 failed" in bench.stderr.text


@pytest.mark.parametrize("torn_bytes", [0, 1, 9, 40])
def test_a_run_goes_on_where_it_stopped(bench: Bench, torn_bytes: int) -> None:
    path = bench.batch(*prompts("a", "b", "c", "d"))
    words = ("--batch", path, "--raw", "--output", "out.jsonl")
    assert bench.run(*words) == 0
    lines = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    Path("out.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:torn_bytes])
    assert bench.run(*words) == 0
    assert bench.asked == ["c", "d"]
    assert [(r["line"], r["text"]) for r in bench.written("out.jsonl")] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]
    assert Path("out.jsonl").read_bytes().startswith(b"".join(lines[:2]))
    assert ("torn" in bench.stderr.text) == (torn_bytes > 0)


def test_lines_added_later_are_answered(bench: Bench) -> None:
    words = ("--raw", "--output", "out.jsonl")
    assert bench.run("--batch", bench.batch(*prompts("a")), *words) == 0
    assert bench.run("--batch", bench.batch(*prompts("a", "b"), name="other.jsonl"), *words) == 0
    assert (bench.asked, len(bench.written("out.jsonl"))) == (["b"], 2)


def test_results_of_something_else_are_left_alone(bench: Bench) -> None:
    path = bench.batch(*prompts("a", "b"))
    words = ("--raw", "--output", "out.jsonl")
    assert bench.run("--batch", path, *words) == 0
    before = Path("out.jsonl").read_bytes()
    for lines, more, part in (
        (prompts("a", "B"), (), "Line 2 of the input is not the one"),
        (["", *prompts("a", "b")], (), "Line 2 of the input is not the one"),
        (prompts("a"), (), "has 2 lines, but the input asks 1"),
        (prompts("a", "b", "c"), ("--temperature", "0.5"), "other settings"),
        (prompts("a", "b", "c"), ("--model", "org/other"), "another model"),
    ):
        assert bench.run("--batch", bench.batch(*lines), *words, *more) == 2
        assert part in bench.stderr.text and bench.opened == 0
        assert Path("out.jsonl").read_bytes() == before
    bench.model = "other"  # the same name led elsewhere
    assert bench.run("--batch", bench.batch(*prompts("a", "b", "c")), *words) == 2
    assert "made with starter, but the model is other" in bench.stderr.text


@pytest.mark.parametrize(
    "content", ["my notes", "my notes\n", "[1]\n", '{"line": 1}\n', '{"line": 2, "te', "\n"]
)
def test_a_file_of_something_else_is_never_touched(bench: Bench, content: str) -> None:
    Path("notes").write_text(content)
    assert bench.run("--batch", bench.batch(*prompts("a")), "--output", "notes") == 2
    assert "Line 1 of notes is no result of a batch" in bench.stderr.text
    assert Path("notes").read_text() == content


def test_a_link_is_followed_and_a_locked_file_is_busy(bench: Bench) -> None:
    path = bench.batch(*prompts("a"))
    Path("real").touch()
    Path("link").symlink_to("real")
    assert bench.run("--batch", path, "--output", "link") == 0
    assert Path("link").is_symlink() and Path("real").read_text()
    import fcntl

    with open("real") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert bench.run("--batch", path, "--output", "link") == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_no_permission_is_6(bench: Bench) -> None:
    Path("out").touch(mode=0o400)
    assert bench.run("--batch", bench.batch(*prompts("a")), "--output", "out") == 6


def test_a_disk_that_fills_keeps_what_was_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.batch(*prompts("a", "b", "c"))
    words = ("--batch", path, "--raw", "--output", "out.jsonl")
    write, calls = os.write, []

    def filling(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:100] if len(calls) == 2 else data)

    with monkeypatch.context() as patch:
        patch.setattr("llm_local.terminal.batch_results.os.write", filling)
        assert bench.run(*words) == 6
    assert "No space left" in bench.stderr.text and "--output" in bench.stderr.text
    assert bench.run(*words) == 0
    assert [r["text"] for r in bench.written("out.jsonl")] == ["a", "b", "c"]


def test_ctrl_c_keeps_whole_results_and_the_next_run_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.batch(*prompts("a", "b", "c" * 300, "d"))
    words = ("--batch", path, "--raw", "--output", "out.jsonl")
    count = batch._Tally.count

    def interrupted(tally: Any, number: int, *, failed: bool) -> None:
        count(tally, number, failed=failed)
        if number == 2:
            bench.signals.code = 130  # what the handler of a real signal does
            assert bench.signals.on_stop
            bench.signals.on_stop()

    with monkeypatch.context() as patch:
        patch.setattr(batch._Tally, "count", interrupted)
        assert bench.run(*words) == 130
    assert [r["text"] for r in bench.written("out.jsonl")] == ["a", "b"]
    assert bench.stderr.text.startswith("interrupted\n2 of 4 lines answered, 2 left")
    assert bench.run(*words) == 0
    assert [r["text"] for r in bench.written("out.jsonl")] == ["a", "b", "c" * 300, "d"]


# --- progress --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("terminal", "told"), [(True, 4), (False, 0)])
def test_progress_updates_on_a_terminal(terminal: bool, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    raw, clock = FakeRaw(terminal=terminal), FakeClock()
    tally = batch._Tally(9, Messages(raw), clock=clock)
    tally.start()
    for number in range(1, 5):
        clock.advance(1)
        tally.count(number, failed=number == 2)
        tally.see(Delta("content", "xy", (1, 2)))
    assert raw.text.count(" of 9 lines") == told
    assert raw.text.endswith("4 of 9 lines, 1 failed, 2.0 tok/s" if terminal else "")
    clock.advance(30)
    tally.see(Delta("content", "x", (1,)))
    assert raw.text.endswith("tok/s") if terminal else raw.text == "4 of 9 lines, 1 failed, 0.3 tok/s\n"
    assert tally.summary() == "3 of 9 lines answered, 1 failed (line 2), 5 left, 0.3 tok/s"
