"""`llm-local search`: models on the hub, by words, author, task, license and size."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Final

from llm_local.cli.pull import hub_of
from llm_local.config import load_config
from llm_local.errors import InvalidRequest
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.sizes import format_bytes, format_count
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import write_rows

if TYPE_CHECKING:
    from llm_local.store.searching import FoundModel

__all__ = ["add_flags", "run"]

_HEADER: Final = ("NAME", "DOWNLOADS", "LIKES", "PARAMETERS", "SIZE", "TASK", "LICENSE", "FORMAT")
_NUMBERS: Final = (1, 2, 3, 4)
_SORTS: Final = ("downloads", "likes", "trending", "updated", "created")
_PICKLE: Final = "pickle (refused)"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="What the name contains.")
    parser.add_argument("--author", metavar="NAME", help="Only models of this user or organization.")
    parser.add_argument("--task", metavar="TASK", help="Only models for this, such as text-generation.")
    parser.add_argument("--license", metavar="LICENSE", help="Only models under this, such as apache-2.0.")
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        help="Only models of at most so many parameters (3b, 500m) or bytes (4GB, 800MB). Models that do not tell "
        "theirs are left out.",
    )
    gated = parser.add_mutually_exclusive_group()
    gated.add_argument(
        "--gated",
        action="store_const",
        const=True,
        help="Only models whose authors want their terms accepted.",
    )
    gated.add_argument("--no-gated", dest="gated", action="store_const", const=False, help="Only all others.")
    parser.add_argument(
        "--sort", choices=_SORTS, default="downloads", help="What comes first. Default: downloads."
    )
    parser.add_argument("--limit", metavar="N", default="20", help="At most so many, up to 100. Default: 20.")
    parser.add_argument("--mirror", metavar="URL", help="Ask this hub instead. HF_TOKEN is not sent to it.")
    add_setting_flags(parser, ("offline",))
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print what was found: a table on a terminal, lines with tabs between in a pipe, or JSON.

    Raises:
        InvalidRequest: nothing can be found by what was given.
        HubUnavailable: the hub is switched off, or cannot be reached.
    """
    # Late: they load the network's library, and `--help` needs none.
    from llm_local.store.searching import SearchQuery, parse_size, search_hub

    parameters, num_bytes = (None, None) if args.max_size is None else parse_size(args.max_size)
    query = SearchQuery(
        words=" ".join(args.words),
        author=args.author,
        task=args.task,
        license=args.license,
        gated=args.gated,
        sort=args.sort,
        limit=_limit(args.limit),
        max_parameters=parameters,
        max_bytes=num_bytes,
    )
    found = search_hub(query, hub_of(load_config(setting_flags(args)), args.mirror, messages))
    if args.json:
        answer.write(json.dumps([dataclasses.asdict(model) for model in found], indent=2) + "\n")
        return
    write_rows(answer, _HEADER, map(_shown, found), map(_plain, found), right=_NUMBERS)
    if not found:
        messages.note("Nothing was found.")
    elif any(model.format == "pickle" for model in found):
        messages.note("Models that come only as pickle are refused: loading that can run code hidden in it.")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidRequest(f"--limit is {text!r}, but must be a number.", param="limit")
    return int(text)


def _shown(model: FoundModel) -> tuple[str, ...]:
    """Rounded, for people."""
    return (
        model.ref,
        _short(model.downloads),
        _short(model.likes),
        _short(model.num_parameters),
        "-" if model.num_bytes is None else format_bytes(model.num_bytes),
        model.task or "-",
        (model.license or "-") + (" (gated)" if model.gated else ""),
        _PICKLE if model.format == "pickle" else model.format or "-",
    )


def _plain(model: FoundModel) -> tuple[str, ...]:
    """Exact, for programs; what is not known is empty."""
    numbers = (model.downloads, model.likes, model.num_parameters, model.num_bytes)
    told = ("" if number is None else str(number) for number in numbers)
    return (model.ref, *told, model.task, model.license, model.format, "gated" if model.gated else "")


def _short(number: int | None) -> str:
    return "-" if number is None else format_count(number)
