"""The one-shot run on a scripted generator: what goes where, in which order, and with which code."""

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

from fakes import ScriptedStream
from llm_local.config import Config
from llm_local.errors import ContextLengthExceeded, EngineError, InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.events import Delta, Event, Finish, Progress, Timings, Usage
from llm_local.messages import Message
from llm_local.options import GenerationOptions
from llm_local.specs import ModelInfo
from llm_local.terminal.asking import OpenModel
from llm_local.terminal.exit_codes import INTERRUPTED
from llm_local.terminal.one_shot import OneShot
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import AnswerWriter, Messages
from terminal.fake_streams import FakeRaw
from terminal.test_flags import script  # noqa: F401  (a fixture)

INFO = ModelInfo("starter", "/x", "llama", 3, 6, "float32", "cpu", 100, 512, True)
END = Finish("stop", Usage(3, 0, 2), Timings())


class FakeGenerator:
    """Remembers what it was asked."""

    runs_as = "scripted"

    def __init__(self, events: Sequence[Event | LocalLLMError], notices: tuple[str, ...]) -> None:
        self.events = events
        self.notices = notices
        self.asked: Any = None
        self.options = GenerationOptions()
        self.explicit: bool | None = None

    def prepare_chat(
        self, messages: Sequence[Message], options: GenerationOptions, *, reserve_explicit: bool
    ) -> Any:
        return self._prepare([(m.role, m.content) for m in messages], options, reserve_explicit)

    def prepare_text(self, prompt: str, options: GenerationOptions, *, reserve_explicit: bool) -> Any:
        return self._prepare(prompt, options, reserve_explicit)

    def _prepare(self, asked: Any, options: GenerationOptions, explicit: bool) -> Any:
        self.asked, self.options, self.explicit = asked, options, explicit
        return argparse.Namespace(
            prompt_text=f"<{asked}>\n", prompt_ids=(1, 2, 3), options=options, notices=self.notices
        )

    def stream(self, prepared: Any) -> ScriptedStream:
        return ScriptedStream(self.events)


class Bench:
    """Everything around one run."""

    def __init__(
        self,
        parse: Callable[[Sequence[str]], argparse.Namespace],
        stdin: int,
        events: Sequence[Event | LocalLLMError] = (Delta("content", "Hel"), Delta("content", "lo."), END),
        *,
        notices: tuple[str, ...] = (),
        defaults: dict[str, Any] | None = None,
        failure: LocalLLMError | None = None,
        fallback: str = "",
        stdout: FakeRaw | None = None,
    ) -> None:
        self.parse = parse
        self.stdin = stdin
        self.stdout = stdout or FakeRaw()
        self.stderr = FakeRaw()
        self.generator = FakeGenerator(events, notices)
        self.config: Config | None = None
        self.signals = StopSignals(Messages(self.stderr))
        self._model = OpenModel(self.generator, INFO, defaults or {}, 0.5, (fallback,))  # type: ignore[arg-type]
        self._failure = failure

    def run(self, *words: str) -> int:
        messages = Messages(self.stderr)
        self.signals = StopSignals(messages)
        shot = OneShot(AnswerWriter(self.stdout), messages, self.signals, stdin=self.stdin, opener=self._open)
        return shot.run(self.parse(words))

    def _open(self, config: Config, on_progress: Callable[[Progress], None]) -> OpenModel:
        self.config = config
        on_progress(Progress("loading", 0, 6, "model.safetensors"))
        if self._failure:
            raise self._failure
        return self._model


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(
    script: ModuleType,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeBench]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    before = dict(os.environ)
    opened: list[int] = []

    def make(piped: bytes = b"", **details: Any) -> Bench:
        path = tmp_path / f"stdin{len(opened)}"
        path.write_bytes(piped)
        opened.append(os.open(path, os.O_RDONLY))
        return Bench(lambda words: script.make_parser().parse(words), opened[-1], **details)

    yield make
    for descriptor in opened:
        os.close(descriptor)
    os.environ.clear()  # a run prepares the environment of its process
    os.environ.update(before)


def test_the_answer_alone_is_on_stdout(bench: MakeBench) -> None:
    run = bench()
    assert run.run("Hi") == 0
    assert (run.stdout.text, run.stderr.text) == ("Hello.\n", "")
    assert run.stdout.writes == 3  # as it came, and the newline
    assert run.generator.asked == [("user", "Hi")]
    assert run.generator.explicit is False


def test_no_stream_prints_once(bench: MakeBench) -> None:
    run = bench()
    assert run.run("Hi", "--no-stream") == 0
    assert (run.stdout.text, run.stdout.writes) == ("Hello.\n", 2)


def test_reasoning_is_not_the_answer(bench: MakeBench) -> None:
    events = [Delta("reasoning", "Hm."), Delta("content", "Yes\n"), END]
    run = bench(events=events)
    run.run("Hi")
    assert run.stdout.text == "Yes\n"
    run = bench(events=events)
    run.run("Hi", "--json")
    assert json.loads(run.stdout.text)["reasoning"] == "Hm."


def test_prompt_system_prompt_and_pipe_meet(bench: MakeBench) -> None:
    run = bench(b"piped\n")
    run.run("ask", "-s", "Be brief.", "--max-tokens", "5", "--stop", "x", "--presence-penalty", "1")
    assert run.generator.asked == [("system", "Be brief."), ("user", "piped\n\nask")]
    assert run.generator.options.max_new_tokens == 5 and run.generator.explicit is True
    assert run.generator.options.stop == ("x",) and run.generator.options.presence_penalty == 1.0
    run = bench(b"piped\n")
    run.run("-")
    assert run.generator.asked == [("user", "piped")]


def test_raw_is_exactly_the_prompt(bench: MakeBench) -> None:
    run = bench(b" as it is\n\n")
    run.run("--raw")
    assert run.generator.asked == " as it is\n\n"


def test_raw_with_a_system_prompt_is_refused_or_noticed(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench()
    assert run.run("Hi", "--raw", "-s", "Be brief.") == 2
    assert "--system-prompt" in run.stderr.text and run.config is None
    monkeypatch.setenv("SYSTEM_PROMPT", "Be brief.")
    run = bench()
    assert run.run("Hi", "--raw") == 0
    assert run.stderr.text == "SYSTEM_PROMPT (from environment) is not used with --raw.\n"
    run = bench()
    assert run.run("Hi", "--raw", "-s", "") == 0
    assert run.stderr.text == ""


def test_a_seed_is_drawn_and_told(bench: MakeBench) -> None:
    seeds = set()
    for _ in range(3):
        run = bench()
        run.run("Hi", "--json")
        report = json.loads(run.stdout.text)
        assert report["seed"] == run.generator.options.seed is not None
        seeds.add(report["seed"])
    assert len(seeds) == 3
    for words, seed in ((["--seed", "9"], 9), (["--temperature", "0"], None)):
        run = bench()
        run.run("Hi", "--json", *words)
        assert json.loads(run.stdout.text)["seed"] == seed


def test_the_models_own_defaults_yield_to_flags(bench: MakeBench) -> None:
    run = bench(defaults={"top_k": 20, "top_p": 0.8})
    run.run("Hi", "--top-k", "3")
    assert (run.generator.options.top_k, run.generator.options.top_p) == (3, 0.8)


def test_json_is_one_object_with_all_notices(bench: MakeBench) -> None:
    cut = (Delta("content", "Grüße"), Finish("length", Usage(3, 0, 2), Timings(prefill_s=1)))
    run = bench(b"\xff", events=cut, notices=("trimmed",), fallback="using the starter model")
    assert run.run("Hi", "--json", "--show-prompt") == 0
    assert run.stdout.text.count("\n") == 1
    report = json.loads(run.stdout.text)
    assert (report["text"], report["finish_reason"], report["model"]) == ("Grüße", "length", "starter")
    assert report["prompt"].startswith("<")
    said = run.stderr.text.splitlines()
    assert [n in said for n in report["notices"]] == [True] * 4
    assert report["notices"][1:3] == ["using the starter model", "trimmed"]


def test_show_prompt_is_on_stderr_with_its_count(bench: MakeBench) -> None:
    run = bench()
    run.run("Hi", "--show-prompt")
    assert run.stdout.text == "Hello.\n"
    assert run.stderr.text == "--- prompt: 3 tokens ---\n<[('user', 'Hi')]>\n--- end of prompt ---\n"


def test_verbose_tells_on_stderr(bench: MakeBench) -> None:
    run = bench()
    run.run("Hi", "--verbose", "--seed", "3")
    assert run.stdout.text == "Hello.\n"
    for part in (
        "model: starter",
        "loaded in 0.50 s",
        "3 tokens (0 cached)",
        "finish reason: stop",
        "seed 3",
    ):
        assert part in run.stderr.text


def test_a_cut_answer_is_noticed_after_it(bench: MakeBench) -> None:
    run = bench(events=(Delta("content", "Hel"), Finish("length", Usage(3, 0, 2), Timings())))
    assert run.run("Hi") == 0
    assert run.stdout.text == "Hel\n"
    assert run.stderr.text == "The answer was cut after 2 tokens; --max-tokens raises the limit.\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_cancelled_run_keeps_what_there_is(as_json: bool, bench: MakeBench) -> None:
    run = bench()

    def events() -> Iterator[Event]:
        yield Delta("content", "Hel")
        run.signals.code = INTERRUPTED  # what the handler of a real signal does
        assert run.signals.on_stop
        run.signals.on_stop()
        yield Delta("content", "lo.")

    run.generator.events = events()  # type: ignore[assignment]
    assert run.run("Hi", *["--json"] * as_json) == 130
    assert run.stderr.text == "interrupted\n"
    if as_json:
        report = json.loads(run.stdout.text)
        assert (report["text"], report["finish_reason"]) == ("Hel", "cancelled")
    else:
        assert run.stdout.text == "Hel\n"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ModelNotFound("No model 'x\x1b'.", "Check it."), 3),
        (ContextLengthExceeded(prompt_tokens=9, reserve=1, context_length=4), 2),
    ],
)
def test_a_failure_is_one_line_and_a_code(failure: LocalLLMError, code: int, bench: MakeBench) -> None:
    run = bench(failure=failure)
    assert run.run("Hi") == code
    assert run.stdout.text == ""
    assert run.stderr.text.startswith("error: ") and run.stderr.text.count("\n") == 1
    assert "\x1b" not in run.stderr.text and failure.hint in run.stderr.text
    run = bench(failure=failure)
    assert run.run("Hi", "--json") == code
    assert json.loads(run.stdout.text)["error"] == {
        "kind": failure.kind,
        "message": failure.message,
        "hint": failure.hint,
    }
    assert run.stderr.text.count("\n") == 1


def test_debug_adds_the_traceback(bench: MakeBench) -> None:
    run = bench(failure=EngineError("It broke."))
    assert run.run("Hi", "--debug") == 1
    assert run.stderr.text.startswith("Traceback") and run.stderr.text.endswith("error: It broke.\n")


def test_an_interrupt_out_of_foreign_code_is_no_traceback(bench: MakeBench) -> None:
    """Our own signals raise nothing, but a file of tools or a plug-in may."""
    run = bench(failure=KeyboardInterrupt())
    assert run.run("Hi") == 130
    assert (run.stdout.text, run.stderr.text) == ("", "interrupted\n")


def test_a_failure_in_the_middle_ends_the_line(bench: MakeBench) -> None:
    run = bench(events=(Delta("content", "Hel"), EngineError("It broke.")))
    assert run.run("Hi") == 1
    assert (run.stdout.text, run.stderr.text) == ("Hel\n", "error: It broke.\n")


def test_a_full_stdout_is_6_and_a_gone_reader_is_quiet(bench: MakeBench) -> None:
    run = bench(stdout=FakeRaw(room=0, error=OSError(errno.ENOSPC, "No space left on device")))
    assert run.run("Hi") == 6
    assert run.stderr.text.count("\n") == 1 and "No space left" in run.stderr.text
    run = bench(stdout=FakeRaw(room=3, error=BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert run.run("Hi") == 141
    assert run.stderr.text == ""


def test_mistakes_are_found_before_the_model_is_opened(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["Hi", "--top-p", "0"],
        ["Hi", "--stop", ""],
        ["Hi", *["--stop", "x"] * 17],
        ["Hi", "--dtype", "int3"],
        [],
        [""],
    ):
        run = bench()
        assert run.run(*words) == 2
        assert run.config is None and run.stderr.text.count("\n") == 1, words
    monkeypatch.setenv("TEMPERATURE", "hot")
    run = bench()
    assert run.run("Hi") == 2
    assert "TEMPERATURE is 'hot'" in run.stderr.text


def test_undecodable_arguments_are_repaired_once(bench: MakeBench) -> None:
    run = bench()
    assert run.run("a\udcff", "-s", "b\udcfe", "--stop", "c\udcfd") == 0
    assert run.generator.asked == [("system", "b\ufffd"), ("user", "a\ufffd")]
    assert run.stderr.text.count("\n") == 1 and "UTF-8" in run.stderr.text


def test_a_terminal_gets_no_escapes_of_the_model(bench: MakeBench) -> None:
    events = (Delta("content", "a\x1b"), Delta("content", "[2Jb"), END)
    run = bench(stdout=FakeRaw(terminal=True), events=events)
    run.run("Hi")
    assert run.stdout.text == "a\\x1b[2Jb\n"
    run = bench(stdout=FakeRaw(terminal=True), events=events)
    run.run("Hi", "--json")
    assert "\x1b" not in run.stdout.text and json.loads(run.stdout.text)["text"] == "a\x1b[2Jb"


def test_a_foreign_failure_is_one_line_too(bench: MakeBench) -> None:
    run = bench(events=())
    assert run.run("Hi") == 1
    assert run.stderr.text.count("\n") == 1 and run.stderr.text.startswith("error: ")


def test_an_invalid_request_of_the_generator_is_usage(bench: MakeBench) -> None:
    run = bench(events=(InvalidRequest("The template refuses."),))
    assert run.run("Hi") == 2
