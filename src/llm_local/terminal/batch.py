"""The batch run: lines of requests in, one JSON object a line out, in their order. `run_once.py --batch`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm_local.config import Config
from llm_local.errors import InvalidRequest
from llm_local.events import Completion, Delta, Event
from llm_local.terminal.asking import OpenModel, prepare_question
from llm_local.terminal.batch_lines import BatchLine, digest, read_fields, read_request, split_lines
from llm_local.terminal.batch_results import ResultFile
from llm_local.terminal.exit_codes import OK, RUNTIME_FAILURE
from llm_local.terminal.flags import request_options
from llm_local.terminal.piped_input import read_input
from llm_local.terminal.report import RunReport, error_object
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import Messages

if TYPE_CHECKING:
    from llm_local.generator import PreparedRequest

__all__ = ["MAX_BATCH_BYTES", "BatchRun"]

MAX_BATCH_BYTES: Final = 1_000_000_000
_LIVE_EVERY_S: Final = 0.2
_PLAIN_EVERY_S: Final = 30.0


class _Sink(Protocol):
    """Where results go: standard output, or a file."""

    def write(self, text: str) -> None: ...


@dataclass(slots=True)
class _Job:
    """One line on its way. `fields` and `prepared` are there as far as it got."""

    line: BatchLine
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prepared: PreparedRequest | None = None


class BatchRun:
    """One batch. Failures of lines are results; `run` raises what concerns all of it."""

    def __init__(
        self, args: argparse.Namespace, config: Config, messages: Messages, signals: StopSignals
    ) -> None:
        self._args = args
        self._config = config
        self._messages = messages
        self._signals = signals
        self._changes = request_options(args)
        self._settings_digest = digest(repr(self._settings()).encode("utf-8", "surrogatepass"))

    def run(self, stdout: _Sink, stdin: int, open_model: Callable[[], OpenModel]) -> int:
        """Answer the lines that have no result yet, and return the exit code.

        Raises:
            LocalLLMError: the input, the output or the model cannot be used.
            OSError: the reader of stdout has gone.
        """
        data, source = self._read(stdin)
        lines = split_lines(data)
        if self._args.output is None:
            return self._answer(lines, stdout, open_model, _Tally(len(lines), self._messages))
        results = ResultFile(self._args.output, lines, self._settings_digest, source=source)
        try:
            if results.repaired:
                self._messages.note(f"the last result in {results.path} was torn and is made anew")
            if results.done:
                self._messages.note(f"{results.done} of {len(lines)} lines have a result in {results.path}")
            tally = _Tally(len(lines), self._messages, done=results.done, failed=results.failed)
            return self._answer(
                lines[results.done :], results, lambda: _same_model(open_model(), results), tally
            )
        finally:
            results.close()

    def _settings(self) -> tuple[Any, ...]:
        """All that is not in a line and changes its answer; what the model recommends follows from the model."""
        config = self._config
        options = config.generation_options().replace(**self._changes)
        return config.model_spec(), options, config.system_prompt, self._args.raw

    def _read(self, stdin: int) -> tuple[bytes, os.stat_result]:
        """The whole input, and what file it is."""
        path = self._args.batch
        wait = "waiting for the input to end"
        if path == "-":
            return self._read_from(stdin, "stdin", wait), os.fstat(stdin)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidRequest(f"Cannot read {path}: {error.strerror}.", param="batch") from error
        try:
            return self._read_from(descriptor, path, wait), os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _read_from(self, descriptor: int, name: str, wait: str) -> bytes:
        return read_input(
            descriptor, on_wait=lambda: self._messages.note(wait), limit_bytes=MAX_BATCH_BYTES, name=name
        )

    def _answer(
        self, lines: Sequence[BatchLine], sink: _Sink, open_model: Callable[[], OpenModel], tally: _Tally
    ) -> int:
        if lines:
            model = open_model()
            config = self._config.with_profile(model.generation_defaults)

            def prepare(job: _Job) -> PreparedRequest:
                job.fields = read_fields(job.line.data)
                request = read_request(job.fields, raw=self._args.raw)
                changes = {**self._changes, **request.options}
                job.prepared = prepare_question(
                    model.generator, config, request.question, changes, raw=self._args.raw
                )
                return job.prepared

            tally.start()
            jobs = (_Job(line) for line in lines)
            batch = model.generator.generate_batch(jobs, prepare, on_event=tally.see)
            self._signals.on_stop = batch.cancel
            for job, outcome in batch:
                sink.write(json.dumps(self._result(job, outcome, model), ensure_ascii=False) + "\n")
                tally.count(job.line.number, failed=isinstance(outcome, Exception))
        self._messages.status("")
        self._signals.announce()
        self._messages.note(tally.summary())
        if self._signals.code is not None:
            return self._signals.code
        return RUNTIME_FAILURE if tally.failed else OK

    def _result(self, job: _Job, outcome: Completion | Exception, model: OpenModel) -> dict[str, Any]:
        """The object of one line. It begins with `line`, by which a torn one is known."""
        result: dict[str, Any] = {"line": job.line.number}
        if isinstance(job.fields.get("id"), str | int):
            result["id"] = job.fields["id"]
        if isinstance(outcome, Completion) and job.prepared is not None:
            prepared = job.prepared
            report = RunReport(
                outcome, model.info, model.generator.runs_as, model.load_s, prepared.options, prepared.notices
            )
            result |= report.to_object()
        elif isinstance(outcome, Exception):
            result |= error_object(outcome)
        return result | {"line_digest": job.line.digest, "settings_digest": self._settings_digest}


class _Tally:
    """What was answered and how fast, told as it goes: updated on a terminal, now and then a line elsewhere."""

    def __init__(
        self,
        total: int,
        messages: Messages,
        *,
        done: int = 0,
        failed: Sequence[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failed = list(failed)
        self._total = total
        self._done = done
        self._messages = messages
        self._clock = clock
        self._num_tokens = 0
        self._started_s = self._due_s = math.inf

    def start(self) -> None:
        """The model is ready: time counts from here."""
        self._started_s = self._clock()
        self._due_s = self._started_s + self._pause_s()

    def see(self, event: Event) -> None:
        """An event of any line."""
        if isinstance(event, Delta):
            self._num_tokens += len(event.token_ids)
        now = self._clock()
        if now < self._due_s:
            return
        self._due_s = now + self._pause_s()
        failed = f", {len(self.failed)} failed" if self.failed else ""
        line = f"{self._done} of {self._total} lines{failed}{self._speed()}"
        if self._messages.live:
            self._messages.status(line)
        else:
            self._messages.note(line)

    def count(self, number: int, *, failed: bool) -> None:
        """A line has its result."""
        self._done += 1
        if failed:
            self.failed.append(number)

    def summary(self) -> str:
        """One line about all of it."""
        text = f"{self._done - len(self.failed)} of {self._total} lines answered"
        if self.failed:
            more = ", ..." if len(self.failed) > 5 else ""
            text += f", {len(self.failed)} failed (line {', '.join(map(str, self.failed[:5]))}{more})"
        if self._done < self._total:
            text += f", {self._total - self._done} left"
        return text + self._speed()

    def _speed(self) -> str:
        elapsed = self._clock() - self._started_s
        return f", {self._num_tokens / elapsed:.1f} tok/s" if self._num_tokens and elapsed > 0 else ""

    def _pause_s(self) -> float:
        return _LIVE_EVERY_S if self._messages.live else _PLAIN_EVERY_S


def _same_model(model: OpenModel, results: ResultFile) -> OpenModel:
    """The model, if all results come from it: without a network another one may stand in.

    Raises:
        InvalidRequest: they do not.
    """
    other = next((name for name in results.models if name != model.info.ref), None)
    if other is not None:
        raise InvalidRequest(
            f"{results.path} was made with {other}, but the model is {model.info.ref}.",
            "Give another --output.",
            param="output",
        )
    return model
