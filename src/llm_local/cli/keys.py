"""`llm-local keys [list|add|remove]`: the API keys that servers of this machine accept."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.store.keys import ApiKey, add_key, read_keys, remove_key
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import write_rows

__all__ = ["add_flags", "run"]

_HEADER: Final = ("ID", "ROLE", "LABEL", "CREATED")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "act", nargs="?", choices=("list", "add", "remove"), default="list", help="What to do."
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="The key to remove.")
    parser.add_argument(
        "--role",
        choices=("user", "admin"),
        help="What a new key may do: user everything but changing models, admin everything. Default: user.",
    )
    parser.add_argument("--label", metavar="TEXT", help="A note to tell a new key by.")
    parser.add_argument("--json", action="store_true", help="print one JSON list or object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """List, add or remove. A new key is printed once, and kept nowhere.

    Raises:
        InvalidRequest: an id or a flag that does not belong there, or no key has that id.
        StorageError: the disk or stdout refused.
    """
    if (args.act == "remove") != (args.id is not None):
        raise InvalidRequest("remove needs the ID of one key, and nothing else takes one.", param="ID")
    if args.act != "add" and (args.role is not None or args.label is not None):
        raise InvalidRequest("--role and --label are for `llm-local keys add`.", param="--role")
    if args.act == "add":
        _add(args, answer, messages)
    elif args.act == "remove":
        gone = remove_key(args.id)
        answer.write(json.dumps(_as_object(gone)) + "\n" if args.json else f"removed {gone.id}\n")
        messages.note("No server accepts it any more.")
    else:
        _list(args, answer, messages)


def _add(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    key, kept = add_key(args.role or "user", args.label or "")
    answer.write(json.dumps({**_as_object(kept), "key": key}) + "\n" if args.json else f"{key}\n")
    messages.note(f"This is the only time that the key {kept.id} ({kept.role}) can be seen.")


def _list(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    keys = read_keys()
    if args.json:
        answer.write(json.dumps([_as_object(key) for key in keys], indent=2) + "\n")
        return
    if not keys:
        messages.note("There are no keys; `llm-local keys add` makes one.")
        return
    rows = [(key.id, key.role, key.label or "-", _when(key)[:10]) for key in keys]
    write_rows(answer, _HEADER, rows, rows)


def _as_object(key: ApiKey) -> dict[str, str]:
    return {"id": key.id, "role": key.role, "label": key.label, "created": _when(key)}


def _when(key: ApiKey) -> str:
    return datetime.fromtimestamp(key.created, UTC).isoformat(timespec="seconds")
