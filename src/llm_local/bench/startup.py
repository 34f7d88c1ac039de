"""From starting a program to the first token of its answer, for the one-shot script and for others in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import llm_local
from llm_local.bench.figures import median_of, ratio, spread_of
from llm_local.bench.runners import ENGINE
from llm_local.bench.scenario import Column, Measured, Round, Summary, times_as_much
from llm_local.errors import EngineError, InvalidRequest

__all__ = ["Start", "StartupScenario", "one_shot_starter", "script_path"]

_PROMPT: Final = "How soon does the first word of an answer come?"
_FIGURES: Final = {
    "first_token_s": Column("first token ms", 1e3),
    "process_s": Column("process ms", 1e3),
    "load_s": Column("libraries and weights ms", 1e3),
    "prefill_s": Column("prompt ms", 1e3),
}


@dataclass(frozen=True, slots=True)
class Start:
    """One program start, in seconds: all of it, and the parts that the program itself tells.

    `load_s` is for the libraries and the weights.
    """

    first_token_s: float
    load_s: float
    prefill_s: float
    prompt_tokens: int

    def figures(self) -> dict[str, Any]:
        """By name; what no part accounts for is the start of the process, before it can measure."""
        rest = self.first_token_s - self.load_s - self.prefill_s
        return {
            "first_token_s": self.first_token_s,
            "process_s": rest,
            "load_s": self.load_s,
            "prefill_s": self.prefill_s,
            "prompt_tokens": self.prompt_tokens,
        }


@dataclass(frozen=True, kw_only=True)
class StartupScenario(Measured):
    """Each round: every program is started once. `start` is ours; `others` take the number of prompt tokens."""

    start: Callable[[], Start]
    others: Mapping[str, Callable[[int], Start]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {"rounds": self.rounds_wanted, "against": tuple(self.others)}

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each other program."""
        return self.facts

    def rounds(self) -> Iterator[Round]:
        """One start of each does not count: it fills the caches of the disk, and ours."""
        prompt_tokens = self.start().prompt_tokens
        for other in self.others.values():
            other(prompt_tokens)
        for index in range(self.rounds_wanted):
            speed = self.probe()
            yield Round(index, ENGINE, self.start().figures(), speed)
            for name, other in self.others.items():
                speed = self.probe()
                yield Round(index, name, other(prompt_tokens).figures(), speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each program: medians."""
        rows = [
            self._row(rounds, what)
            for what in (ENGINE, *self.others)
            if any(one.what == what for one in rounds)
        ]
        columns = {"what": Column("program"), **_FIGURES, "spread": Column("spread %", 100)}
        if self.others:
            columns["ratio"] = Column(f"{ENGINE} takes", digits=2)
        if not rows:
            return Summary(columns, rows, "Nothing was measured.")
        said = f"The first token comes {rows[0]['first_token_s'] * 1e3:,.0f} ms after the start of the script"
        compared = [
            f"{times_as_much(row['ratio'])} as long as {row['what']}"
            for row in rows
            if row.get("ratio") is not None
        ]
        return Summary(columns, rows, said + (f": {' and '.join(compared)}" if compared else "") + ".")

    @staticmethod
    def _row(rounds: Sequence[Round], what: str) -> dict[str, Any]:
        mine = [one for one in rounds if one.what == what]
        row: dict[str, Any] = {"what": what}
        row |= {name: median_of(one.figures[name] for one in mine) for name in _FIGURES}
        row["spread"] = spread_of(one.figures["first_token_s"] for one in mine)
        if what != ENGINE:
            ours = {one.index: one.figures["first_token_s"] for one in rounds if one.what == ENGINE}
            row["ratio"] = median_of(ratio(ours.get(one.index), one.figures["first_token_s"]) for one in mine)
        return row


def script_path() -> Path:
    """Where `scripts/run_once.py` lies.

    Raises:
        InvalidRequest: llm-local was installed without its scripts.
    """
    path = Path(llm_local.__file__).parents[2] / "scripts" / "run_once.py"
    if not path.is_file():
        raise InvalidRequest(
            "The scenario startup starts scripts/run_once.py, which is not part of this installation.",
            "Run it from a checkout of llm-local.",
            param="scenario",
        )
    return path


def one_shot_starter(flags: Sequence[str], environ: Mapping[str, str]) -> Callable[[], Start]:
    """Starts the one-shot script with `flags` and settings of the environment, for one greedy token."""
    words = [sys.executable, str(script_path()), *flags]
    words += ["--raw", "--json", "--max-tokens", "1", "--temperature", "0", _PROMPT]

    def start() -> Start:
        with tempfile.TemporaryFile() as said:
            began = time.perf_counter()
            with subprocess.Popen(  # noqa: S603  (our own script)
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, **environ},
            ) as process:
                line = process.stdout.readline() if process.stdout else b""
                seconds = time.perf_counter() - began
            said.seek(0)
            return _read_start(line, said.read(), seconds)

    return start


def _read_start(line: bytes, said: bytes, seconds: float) -> Start:
    try:
        report = json.loads(line)
        timings, usage = report["timings"], report["usage"]
        return Start(seconds, timings["load_s"], timings["prefill_s"], usage["prompt_tokens"])
    except (ValueError, KeyError):
        last = (said.decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
        raise EngineError(f"scripts/run_once.py gave no answer: {last}") from None
