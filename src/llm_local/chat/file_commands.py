"""Commands about conversations that are kept: in files, and in the archive."""

from __future__ import annotations

import time
from typing import Final

from llm_local.chat.attachments import user_path
from llm_local.chat.basic_commands import one_line
from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.outcomes import Outcome, Said, Shown
from llm_local.chat.writing import write_asking
from llm_local.conversations.exports import read_file
from llm_local.conversations.transcript import MAX_BYTES, from_json, to_json, to_markdown
from llm_local.errors import ConversationNotFound, InvalidRequest

__all__ = ["FILE_COMMANDS"]

_ID_CHARS: Final = 8
_NUM_LISTED: Final = 30


def _save(context: CommandContext, arguments: str) -> Outcome:
    text = to_json(context.session.transcript())
    return write_asking(arguments, text, "The conversation")


def _export(context: CommandContext, arguments: str) -> Outcome:
    file = arguments or time.strftime("conversation-%Y%m%d-%H%M%S.md")
    return write_asking(file, to_markdown(context.session.transcript()), "The conversation")


def _load(context: CommandContext, arguments: str) -> Outcome:
    if not arguments:
        raise InvalidRequest("What?", "/load FILE or /load ID; /list shows the conversations that are kept.")
    session = context.session
    path = user_path(arguments)
    is_name = "/" in arguments or "." in arguments
    try:
        is_path = is_name or path.is_file()
    except (OSError, ValueError):
        is_path = True  # the reading says what is wrong
    if is_path:
        notices = session.load(from_json(read_file(path, MAX_BYTES)))
    else:
        try:
            notices = session.open(arguments)
        except ConversationNotFound as error:
            raise ConversationNotFound(
                f"There is no file {one_line(arguments, 60)!r} here, and no conversation.",
                "/list shows the conversations that are kept.",
            ) from error
    title = session.transcript().title
    return Said((f"{len(session.messages)} messages: {one_line(title) or 'no title'}", *notices))


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _list(context: CommandContext, arguments: str) -> Outcome:
    archive = context.session.need_archive()
    current = context.session.conversation
    rows = tuple(
        (
            "*" if current is not None and current.id == one.id else "",
            one.id[:_ID_CHARS],
            _when(one.modified),
            str(one.num_messages),
            one_line(one.title),
            one.model or "",
        )
        for one in archive.list(limit=_NUM_LISTED)
    )
    columns = ("", "id", "changed", "messages", "title", "model")
    return Shown(
        "Conversations", columns, rows, ("/load ID goes on with one.",) if rows else ("There is none yet.",)
    )


def _search(context: CommandContext, arguments: str) -> Outcome:
    hits = context.session.need_archive().search(arguments, limit=_NUM_LISTED)
    rows = tuple(
        (
            hit.conversation.id[:_ID_CHARS],
            one_line(hit.conversation.title, 40),
            hit.role,
            one_line(hit.snippet),
        )
        for hit in hits
    )
    notes = ("/load ID goes on with one.",) if rows else ("Nothing was found.",)
    return Shown("Found", ("id", "title", "in", "text"), rows, notes)


def _fork(context: CommandContext, arguments: str) -> Outcome:
    copy = context.session.fork()
    return Said(
        (f"This is a copy now, {copy.id[:_ID_CHARS]}; the conversation it was made of stays as it is.",)
    )


def _rename(context: CommandContext, arguments: str) -> Outcome:
    context.session.rename(arguments)
    return Said((f"The conversation is called {one_line(arguments)}.",))


FILE_COMMANDS: Final = (
    Command("save", "FILE", "Write the conversation to a file, as JSON.", _save, completes="path"),
    Command(
        "load",
        "FILE|ID",
        "Go on with a saved file, or with a conversation that is kept.",
        _load,
        (),
        "conversation",
    ),
    Command("export", "[FILE]", "Write the conversation to a file, as Markdown.", _export, completes="path"),
    Command("list", "", "List the conversations that are kept, the last one first.", _list),
    Command("search", "TEXT", "Find what was said in all conversations.", _search),
    Command("fork", "", "Go on in a copy of the conversation.", _fork),
    Command("rename", "TITLE", "Give the conversation a title.", _rename),
)
