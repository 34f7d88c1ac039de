"""`llm-local history`: the conversations on this machine; find them, read them, take them along, remove them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.cli.history_output import (
    as_object,
    hit_object,
    write_conversation,
    write_hits,
    write_list,
)
from llm_local.conversations.exports import write_file
from llm_local.conversations.records import LOCAL_OWNER, Conversation
from llm_local.conversations.store import ConversationStore, conversations_path
from llm_local.conversations.transcript import to_json, to_markdown, transcript_of
from llm_local.errors import InvalidRequest
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["ACTIONS", "Action", "add_flags", "run"]

_NONE_YET: Final = "There are no conversations yet."


@dataclass(frozen=True, slots=True)
class _Run:
    """One command line, and where what it says goes."""

    store: ConversationStore
    args: argparse.Namespace
    words: list[str]
    answer: AnswerWriter
    messages: Messages

    def write_json(self, value: object) -> None:
        """For programs."""
        self.answer.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class Action:
    """What can be done. `words`: how few and how many words come after it; None is any number."""

    usage: str
    words: tuple[int, int | None]
    flags: tuple[str, ...]
    run: Callable[[_Run], None]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    actions = ", ".join(action.usage for action in ACTIONS.values())
    parser.add_argument("action", nargs="?", default="list", metavar="ACTION", help=f"one of: {actions}")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="what the action is about; an id may be cut short"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="list, search: at most N (default 50, 20)")
    parser.add_argument("--before", metavar="ID", help="list: go on after this one")
    parser.add_argument("--markdown", action="store_true", help="show, export: as Markdown")
    parser.add_argument(
        "--force", action="store_true", help="export: overwrite a file; rm: needed with --all"
    )
    parser.add_argument("--all", action="store_true", help="rm: all conversations")
    parser.add_argument(
        "--json", action="store_true", help="print JSON; export: write JSON whatever the name says"
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Do what the action says; nothing is asked.

    Raises:
        ConversationNotFound: there is no such conversation.
        InvalidRequest: unknown action, words or flags that do not fit it, a file that is there already.
        StorageError, Busy, DatabaseUnusable: the conversations cannot be read or written.
    """
    action = ACTIONS.get(args.action)
    if action is None:
        raise _unknown(args.action)
    _check(args, action)
    if args.action in ("list", "search") and not conversations_path().exists():
        messages.note(_NONE_YET)  # and no database is made for it
        answer.write("[]\n" if args.json else "")
        return
    with closing(ConversationStore.open()) as store:
        told = store.notices
        _warn(messages, told)
        try:
            action.run(_Run(store, args, args.words, answer, messages))
        finally:
            _warn(messages, store.notices[len(told) :])


def _warn(messages: Messages, notices: Sequence[str]) -> None:
    for notice in notices:
        messages.note(f"warning: {notice}")


def _list(this: _Run) -> None:
    found = this.store.list(LOCAL_OWNER, limit=this.args.limit or 50, before=this.args.before)
    if this.args.json:
        this.write_json([as_object(one) for one in found])
    elif found:
        write_list(this.answer, found)
    else:
        this.messages.note(_NONE_YET if this.args.before is None else "There are no more conversations.")


def _search(this: _Run) -> None:
    found = this.store.search(LOCAL_OWNER, " ".join(this.words), limit=this.args.limit or 20)
    if this.args.json:
        this.write_json([hit_object(hit) for hit in found])
    elif found:
        write_hits(this.answer, found)
    else:
        this.messages.note("Nothing was found.")


def _show(this: _Run) -> None:
    conversation = this.store.get(LOCAL_OWNER, this.words[0])
    messages = this.store.messages(LOCAL_OWNER, conversation.id)
    if this.args.json:
        this.answer.write(to_json(transcript_of(conversation, messages)))
    elif this.args.markdown:
        this.answer.write(to_markdown(transcript_of(conversation, messages)))
    else:
        write_conversation(this.answer, conversation, messages)


def _export(this: _Run) -> None:
    wanted, name = this.words
    path = Path(name).expanduser()
    conversation = this.store.get(LOCAL_OWNER, wanted)
    transcript = transcript_of(conversation, this.store.messages(LOCAL_OWNER, conversation.id))
    markdown = not this.args.json and (this.args.markdown or path.suffix.lower() in (".md", ".markdown"))
    text = to_markdown(transcript) if markdown else to_json(transcript)
    write_file(path, text, may_overwrite=lambda: this.args.force)
    kind = "Markdown" if markdown else "JSON"
    this.messages.note(f"wrote {conversation.num_messages} messages as {kind} to {path}")


def _rename(this: _Run) -> None:
    wanted, *title = this.words
    renamed = this.store.rename(LOCAL_OWNER, wanted, " ".join(title))
    this.messages.note(f"{renamed.id} is now called {renamed.title}")
    if this.args.json:
        this.write_json(as_object(renamed))


def _remove(this: _Run) -> None:
    if this.args.all and not this.args.force:
        raise InvalidRequest(
            "All conversations would be removed for good.", "Say --force too if that is meant.", param="all"
        )
    if this.args.all == bool(this.words):
        raise InvalidRequest("Say which conversations: ids, or --all alone.", param="id")
    wanted = _everything(this.store) if this.args.all else this.words
    gone = list({one.id: one for one in (this.store.get(LOCAL_OWNER, word) for word in wanted)}.values())
    if gone:
        this.store.delete(LOCAL_OWNER, *(one.id for one in gone))
    for one in gone:
        this.messages.note(f"removed {one.id} {one.title}".rstrip())
    if this.args.json:
        this.write_json([as_object(one) for one in gone])


def _everything(store: ConversationStore) -> list[str]:
    found: list[Conversation] = []
    while page := store.list(LOCAL_OWNER, limit=1000, before=found[-1].id if found else None):
        found += page
    return [one.id for one in found]


def _check(args: argparse.Namespace, action: Action) -> None:
    fewest, most = action.words
    if len(args.words) < fewest or (most is not None and len(args.words) > most):
        raise InvalidRequest(
            f"`history {args.action}` does not take {len(args.words)} words after it.",
            f"Use: llm-local history {action.usage}",
        )
    given = {name for name in ("limit", "before", "markdown", "force", "all", "json") if getattr(args, name)}
    if extra := sorted(given - set(action.flags)):
        raise InvalidRequest(
            f"`history {args.action}` has no use for --{extra[0]}.", "See --help.", param=extra[0]
        )
    if args.json and args.markdown:
        raise InvalidRequest("--json and --markdown cannot both be.", "Choose one.", param="markdown")


def _unknown(word: str) -> InvalidRequest:
    # Late: only a mistake needs it.
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), ACTIONS, n=1)
    hint = f"Did you mean `history {near[0]}`?" if near else f"There are: {', '.join(ACTIONS)}."
    return InvalidRequest(f"There is no `history {word[:40]}`.", hint, param="action")


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= 1000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to 1000")
    return count


ACTIONS: Final[Mapping[str, Action]] = {
    "list": Action("list", (0, 0), ("limit", "before", "json"), _list),
    "search": Action("search TEXT", (1, None), ("limit", "json"), _search),
    "show": Action("show ID", (1, 1), ("json", "markdown"), _show),
    "export": Action("export ID FILE", (2, 2), ("json", "markdown", "force"), _export),
    "rename": Action("rename ID TITLE", (2, None), ("json",), _rename),
    "rm": Action("rm ID...", (0, None), ("all", "force", "json"), _remove),
}
