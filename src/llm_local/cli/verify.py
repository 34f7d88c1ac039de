"""`llm-local verify`: read every byte of a model and compare it with what it should be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from llm_local.cli.pull import hub_of
from llm_local.config import load_config
from llm_local.errors import InvalidRequest, ModelCorrupt, UnsupportedTask
from llm_local.store.library import StoredModel, find_model, list_models
from llm_local.store.verification import CheckedFile, is_broken, repair_model, verify_model
from llm_local.terminal.progress import ProgressReporter, format_bytes
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import write_rows

__all__ = ["add_flags", "run"]

_HEADER: Final = ("MODEL", "FILE", "SIZE", "STATE")
_WORDS: Final = {
    "ok": "ok",
    "damaged": "damaged: its contents are not what its digest says",
    "missing": "missing",
    "outside": "a link to somewhere outside the store",
    "unreadable": "cannot be read",
    "unknown": "not verified: no digest of it is known",
    "new": "not verified: it came after the model got its name",
}


@dataclass(frozen=True, slots=True)
class _Verified:
    model: StoredModel
    files: list[CheckedFile]
    repaired: bool = False

    @property
    def broken(self) -> list[CheckedFile]:
        return [file for file in self.files if is_broken(file)]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model, as `llm-local list` names it")
    parser.add_argument("-a", "--all", action="store_true", help="every model on this machine")
    parser.add_argument(
        "--repair", action="store_true", help="fetch again what is broken, and nothing else, from the hub"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Verify the models, and print a line for every file that is not right, or for every file in a pipe.

    Raises:
        ModelCorrupt: something is broken, and was not repaired (kind `integrity_failed`).
        UnsupportedTask: nothing is known to compare with. LocalLLMError: a model is not here, or the repair failed.
    """
    models = _models(args)
    progress = ProgressReporter(messages)
    results: list[_Verified] = []
    # it may be switched off, and what is asked is logged; said once, and only where something is broken
    open_hub = cache(lambda: hub_of(load_config(), None, messages))
    try:
        for model in models:
            results.append(_verified(model, progress, open_hub if args.repair else None))
    finally:
        progress.close()
        _print(results, args, answer)
    _conclude(results, messages)


def _models(args: argparse.Namespace) -> list[StoredModel]:
    if args.all == bool(args.names):
        raise InvalidRequest("Name models to verify, or give --all.", param="name")
    if args.all:  # a second name is the same files again
        return [
            model for model in list_models() if model.given is None or model.kind in ("directory", "file")
        ]
    return [find_model(name) for name in args.names]


def _verified(
    model: StoredModel, progress: ProgressReporter, open_hub: Callable[[], object] | None
) -> _Verified:
    files = verify_model(model, progress)
    if open_hub is None or not any(map(is_broken, files)):
        return _Verified(model, files)
    open_hub()
    repair_model(model, files, progress)
    return _Verified(model, verify_model(model, progress), repaired=True)


def _print(results: list[_Verified], args: argparse.Namespace, answer: AnswerWriter) -> None:
    if args.json:
        answer.write(json.dumps([_to_object(one) for one in results], indent=2) + "\n")
        return
    rows = [(one.model.name, file) for one in results for file in one.files]
    shown = [
        (name, file.name, "-" if file.size is None else format_bytes(file.size), _WORDS[file.state])
        for name, file in rows
        if file.state != "ok"
    ]
    plain = [
        (name, file.name, "" if file.size is None else str(file.size), file.state) for name, file in rows
    ]
    write_rows(answer, _HEADER, shown, plain, right=(2,))


def _conclude(results: list[_Verified], messages: Messages) -> None:
    for one in results:
        good = sum(file.state == "ok" for file in one.files)
        done = "repaired; " if one.repaired else ""
        messages.note(f"{one.model.name}: {done}{good} of {len(one.files)} files verified")
    broken = [one for one in results if one.broken]
    if broken:
        first = broken[0]
        what = ", ".join(file.name for file in first.broken[:3])
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        hint = f"`llm-local verify --repair {first.model.name}` fetches what is broken again."
        raise ModelCorrupt(
            f"{first.model.name}{more} is damaged: {what}.",
            hint if first.model.kind == "hub" else "Bring its files back from where they came from.",
            file=first.broken[0].name,
            kind="integrity_failed",
        )
    known = [one for one in results if any(file.state == "ok" for file in one.files)]
    if results and not known:
        raise UnsupportedTask(
            f"Of {results[0].model.name} no digests are known, so nothing was verified.",
            "Give it a name with `llm-local import`, which takes them.",
        )


def _to_object(one: _Verified) -> dict[str, Any]:
    return {
        "name": one.model.name,
        "ok": not one.broken,
        "repaired": one.repaired,
        "files": [{"name": file.name, "state": file.state, "size_bytes": file.size} for file in one.files],
    }
