"""`llm-local list`: the models on this machine, each under every name it has."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from llm_local.store.catalog import catalog_models
from llm_local.store.library import StoredModel, files_of, list_models, total_bytes
from llm_local.store.summary import StoredFile, Summary, summarize
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import to_terminal, write_rows

__all__ = ["Listed", "add_flags", "describe", "run"]

_HEADER: Final = ("NAME", "SIZE", "ARCHITECTURE", "FORMAT", "QUANTIZATION", "FILES", "MODIFIED", "NOTE")
_CATALOG_HEADER: Final = ("NAME", "HUB ID", "DOWNLOAD", "CONTEXT", "MIN MEMORY", "LICENSE", "NOTE")
_AGES: Final = (
    (86_400 * 365, "year"),
    (86_400 * 30, "month"),
    (86_400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list. What is not known of a damaged model is empty."""

    model: StoredModel
    summary: Summary
    files: tuple[StoredFile, ...]

    @property
    def state(self) -> str:
        """complete, incomplete or corrupt."""
        return "corrupt" if self.model.state == "complete" and self.summary.fault else self.model.state

    @property
    def note(self) -> str:
        """What else there is to know, in words."""
        fault = self.model.fault or self.summary.fault
        words = [f"{self.state}: {fault}; {_remedy(self.model)}" if fault else ""]
        words.append(f"alias of {self.model.alias_of}" if self.model.alias_of else "")
        words.append("cannot be run yet" if not fault and self.summary.format == "gguf" else "")
        return "; ".join(filter(None, words))

    @property
    def modified_s(self) -> float:
        """When the newest of its files was written, in seconds since 1970; 0 where there is none."""
        return max((file.modified_s for file in self.files), default=0.0)

    def to_object(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.model.name,
            "state": self.state,
            "size_bytes": total_bytes(self.files),
            "architecture": self.summary.architecture,
            "family": self.summary.model_type,
            "format": self.summary.format,
            "quantization": self.summary.quantization,
            "dtype": self.summary.dtype,
            "num_files": len(self.files),
            "modified": _timestamp(self.modified_s),
            "path": str(self.model.folder / self.model.gguf[0] if self.model.gguf else self.model.folder),
            "commit": self.model.commit,
            "alias_of": self.model.alias_of,
            "runnable": self.state == "complete" and self.summary.format != "gguf",
            "note": self.note,
        }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("-a", "--all", action="store_true", help="also models that are not here whole")
    parser.add_argument("--catalog", action="store_true", help="models with short names, here or not")
    parser.add_argument("-q", "--quiet", action="store_true", help="print names alone, one a line")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the models: a table on a terminal, lines with tabs between in a pipe, or JSON.

    Models that are not here whole are left out, and a notice counts them.

    Raises:
        StorageError: stdout refused.
    """
    models = list_models()
    if args.catalog:
        _list_catalog({model.ref for model in models if model.state == "complete"}, args, answer)
        return
    kept = [model for model in models if args.all or model.state != "incomplete"]
    if args.quiet:
        answer.write("".join(f"{model.name}\n" for model in kept))
        return
    listed = [describe(model) for model in kept]
    total = total_bytes(file for one in listed for file in one.files)
    if args.json:
        whole = {"models": [one.to_object() for one in listed], "total_bytes": total}
        answer.write(json.dumps(whole, indent=2) + "\n")
    else:
        write_rows(answer, _HEADER, map(_shown, listed), map(_plain, listed), right=(1, 5))
    if to_terminal() and not args.json:
        messages.note(f"{format_bytes(total)} in all.")
    if len(kept) < len(models):
        messages.note(f"{len(models) - len(kept)} not here whole; `llm-local list --all` names them.")


def describe(model: StoredModel) -> Listed:
    """What is to be said of a model, however bad it is."""
    try:
        files = files_of(model)
    except OSError:
        files = ()
    if model.state != "complete":
        return Listed(model, Summary("gguf" if model.gguf else "safetensors"), files)
    return Listed(model, summarize(model.folder, model.gguf), files)


def _list_catalog(here: set[str], args: argparse.Namespace, answer: AnswerWriter) -> None:
    models = catalog_models()
    if args.quiet:
        answer.write("".join(f"{one.name}\n" for one in models))
        return
    if args.json:
        objects = [
            {**asdict(one), "min_memory_bytes": one.min_memory_bytes, "here": one.id in here}
            for one in models
        ]
        answer.write(json.dumps({"models": objects}, indent=2) + "\n")
        return
    notes = [
        "; ".join(filter(None, ("on this machine" if one.id in here else "", one.note))) for one in models
    ]
    shown = [
        (
            one.name,
            one.id,
            format_bytes(one.download_bytes),
            str(one.context_length),
            format_bytes(one.min_memory_bytes),
            one.license,
            note,
        )
        for one, note in zip(models, notes, strict=True)
    ]
    plain = [
        (row[0], row[1], str(one.download_bytes), row[3], str(one.min_memory_bytes), row[5], row[6])
        for row, one in zip(shown, models, strict=True)
    ]
    write_rows(answer, _CATALOG_HEADER, shown, plain, right=(2, 3, 4))


def _remedy(model: StoredModel) -> str:
    repairable = model.kind == "hub" and model.commit
    if model.state == "incomplete" and model.kind == "hub" and model.ref:
        return f"`llm-local pull {model.alias_of or model.name}` fetches the rest"
    mend = f"`llm-local verify --repair {model.name}` or " if repairable else ""
    return f"{mend}`llm-local rm {model.name}`" if model.kind == "hub" or model.given else "look at its files"


def _shown(one: Listed) -> tuple[str, ...]:
    return (
        one.model.name,
        format_bytes(total_bytes(one.files)),
        one.summary.architecture or "-",
        one.summary.format,
        one.summary.quantization or "-",
        str(len(one.files)),
        _age(time.time() - one.modified_s) if one.modified_s else "-",
        one.note,
    )


def _plain(one: Listed) -> tuple[str, ...]:
    return (
        one.model.name,
        str(total_bytes(one.files)),
        one.summary.architecture,
        one.summary.format,
        one.summary.quantization,
        str(len(one.files)),
        _timestamp(one.modified_s),
        one.state,
        one.note,
    )


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def _age(seconds: float) -> str:
    for length, unit in _AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
