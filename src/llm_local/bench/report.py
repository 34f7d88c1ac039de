"""What was measured, as a table for people and as one object for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_local.bench.machine import Machine
from llm_local.bench.scenario import Round, Scenario
from llm_local.specs import ModelInfo

__all__ = ["BenchReport"]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """One run of a scenario. `interrupted` says that rounds are missing because somebody broke it off."""

    name: str
    scenario: Scenario
    rounds: Sequence[Round]
    info: ModelInfo
    machine: Machine
    versions: Mapping[str, str | None]
    num_threads: int
    peak_rss_bytes: int
    interrupted: bool = False

    def text(self) -> str:
        """For people: what ran on what, the table, the noise, and the verdict."""
        summary = self.scenario.summarize(self.rounds)
        titles = [column.title for column in summary.columns.values()]
        cells = [
            [column.show(row.get(name)) for name, column in summary.columns.items()] for row in summary.rows
        ]
        parts = [*self._head(), "", *_aligned([titles, *cells]), "", *self._noise(), summary.verdict]
        if self.interrupted:
            parts.append("Broken off: the figures are of the rounds that were complete.")
        return "\n".join(parts)

    def to_object(self) -> dict[str, Any]:
        """For programs: every round and the medians, in seconds, bytes and tokens."""
        summary = self.scenario.summarize(self.rounds)
        return {
            "scenario": self.name,
            "settings": dict(self.scenario.settings),
            "model": dataclasses.asdict(self.info),
            "runs_as": self.scenario.runs_as,
            "machine": {**dataclasses.asdict(self.machine), "num_threads": self.num_threads},
            "peers": {name: dict(facts) for name, facts in self.scenario.peers.items()},
            "versions": dict(self.versions),
            "rounds": [dataclasses.asdict(one) for one in self.rounds],
            "summary": [dict(row) for row in summary.rows],
            "peak_rss_bytes": self.peak_rss_bytes,
            "verdict": summary.verdict,
            "interrupted": self.interrupted,
        }

    def _head(self) -> Sequence[str]:
        info, machine = self.info, self.machine
        libraries = ", ".join(f"{name} {self.versions.get(name)}" for name in ("torch", "transformers"))
        settings = ", ".join(
            f"{name} {_plain(value)}" for name, value in self.scenario.settings.items() if value
        )
        return (
            f"model: {info.ref} ({info.architecture}, {info.num_parameters:,} parameters, "
            f"{info.weight_bytes / 1e9:.2f} GB), {_form(info)} on {info.device}"
            + (f", {self.scenario.runs_as}" if self.scenario.runs_as else ""),
            f"machine: {machine.cpu}, cores {machine.num_cores}, threads {self.num_threads}, {machine.system}, "
            f"{libraries}, load {machine.load_average:.2f}",
            *(_peer(name, facts) for name, facts in self.scenario.peers.items()),
            f"{self.name}: {settings}",
        )

    def _noise(self) -> Sequence[str]:
        """How evenly the machine ran, and what memory it took. Nothing when nothing was measured."""
        if not self.rounds:
            return ()
        speeds = [one.read_bytes_per_s / 1e9 for one in self.rounds]
        over = (self.peak_rss_bytes - self.info.weight_bytes) / 1e6
        return (
            f"reading memory: {min(speeds):.1f} to {max(speeds):.1f} GB/s; peak memory of this process: "
            f"{self.peak_rss_bytes / 1e9:.2f} GB, {over:,.0f} MB over the weights",
        )


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table with every column as wide as its widest cell, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _form(info: ModelInfo) -> str:
    return info.dtype if info.quantization == "none" else info.quantization


def _peer(name: str, facts: Mapping[str, Any]) -> str:
    """`llama.cpp Q4_0: 0.35 GB, version, what it says of the processor, file`; only what is switched on."""
    switches = str(facts.get("system", "")).replace(":", "|").split("|")
    on = [one.partition("=")[0].strip() for one in switches if one.strip().endswith("= 1")]
    said = [
        f"{facts['weight_bytes'] / 1e9:.2f} GB" if "weight_bytes" in facts else "",
        str(facts.get("version", "")),
    ]
    return f"{name}: {', '.join(filter(None, [*said, ' '.join(on), str(facts.get('file', ''))]))}"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
