"""Commands about questions and answers: again, otherwise, further, never mind."""

from __future__ import annotations

from typing import Final

from llm_local.chat.attachments import read_text_file, user_path
from llm_local.chat.basic_commands import one_line
from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.outcomes import Edit, Outcome, Reply, Said
from llm_local.errors import InvalidRequest

__all__ = ["TURN_COMMANDS"]


def _regenerate(context: CommandContext, arguments: str) -> Outcome:
    return Reply(context.session.regenerate())


def _edit(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    if arguments:
        return Reply(session.edit_last(arguments))
    question = next((one.content for one in reversed(session.messages) if one.role == "user"), None)
    if question is None:
        raise InvalidRequest("There is no question yet.", "Ask one.", param="messages")
    lines = ("The last question was:", *question.splitlines(), "/edit TEXT asks another one in its place.")
    return Edit(question, lambda text: Reply(session.edit_last(text)), lines)


def _undo(context: CommandContext, arguments: str) -> Outcome:
    return Said((f"Dropped, with its answer: {one_line(context.session.undo().content)}",))


def _continue(context: CommandContext, arguments: str) -> Outcome:
    return Reply(context.session.continue_reply())


def _read(context: CommandContext, arguments: str) -> Outcome:
    attachments = context.session.attachments
    if arguments == "off":
        attachments.clear()
        return Said(("No file goes into the next question.",))
    if arguments:
        attachments.add(user_path(arguments).name, read_text_file(arguments))
    if not attachments.names:
        return Said(("No file goes into the next question.", "/read FILE puts one there."))
    return Said((f"Goes into the next question: {', '.join(map(one_line, attachments.names))}",))


TURN_COMMANDS: Final = (
    Command("regen", "", "Answer the last question again.", _regenerate, ("retry",)),
    Command("edit", "[TEXT]", "Change the last question, or ask TEXT in its place.", _edit),
    Command("undo", "", "Drop the last question and its answer.", _undo),
    Command("continue", "", "Go on with an answer that was stopped or cut.", _continue, ("go",)),
    Command(
        "read",
        "[FILE|off]",
        "Put a text file of at most 1 MiB into the next question; off takes all out again.",
        _read,
        completes="path",
    ),
)
