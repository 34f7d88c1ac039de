"""Commands about the chat itself: help, leaving, beginning anew, what was said, how fast it came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.outcomes import Cleared, Copied, Leave, Outcome, Said, Shown
from llm_local.chat.session import ChatSession
from llm_local.errors import InvalidRequest
from llm_local.events import Completion

__all__ = ["BASIC_COMMANDS", "one_line"]

_MAX_CHARS: Final = 120
_CODE: Final = re.compile(r"^(`{3,})[^\n]*\n(.*?)^\1`*[ \t]*$", re.M | re.S)


def one_line(text: str, max_chars: int = _MAX_CHARS) -> str:
    """A text in one line that is not long."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 1]}…"


def _help(context: CommandContext, arguments: str) -> Outcome:
    if arguments:
        command = context.table.find(arguments.split()[0])
        also = f"Also called {', '.join(f'/{name}' for name in command.aliases)}." if command.aliases else ""
        return Said(tuple(filter(None, (command.shown, command.help, also))))
    rows = []
    for command in context.table.commands:
        also = "".join(f", /{name}" for name in command.aliases)
        rows.append((f"/{command.name}{also}", command.usage, command.help))
    notes = ("A line that begins with // or with a space goes to the model, slash and all.",)
    return Shown("Commands", ("command", "", "what it does"), tuple(rows), notes)


def _leave(context: CommandContext, arguments: str) -> Outcome:
    return Leave()


def _begin_anew(session: ChatSession) -> tuple[str, ...]:
    """Leave the conversation; gives how to come back to it, where that can be."""
    conversation, num_turns = session.conversation, session.num_turns
    session.new()
    begins = "A new conversation begins."
    if conversation is None or not num_turns:
        return (begins,)
    # the leaving has tried a last time to store it
    what = (
        "The conversation so far" if session.is_stored else "Only what was saved of the conversation so far"
    )
    return (f"{what} is kept: /load {conversation.id[:8]}", begins)


def _new(context: CommandContext, arguments: str) -> Outcome:
    return Said(_begin_anew(context.session))


def _clear(context: CommandContext, arguments: str) -> Outcome:
    return Cleared(_begin_anew(context.session))


def _history(context: CommandContext, arguments: str) -> Outcome:
    entries = list(enumerate(context.session.entries, 1))
    if arguments:
        if not arguments.isascii() or not arguments.isdigit() or len(arguments) > 9 or not int(arguments):
            raise InvalidRequest(f"{arguments[:60]!r} is no number of messages.", "Such as /history 10.")
        entries = entries[-int(arguments) :]
    rows = []
    for number, entry in entries:
        message = entry.message
        said = message.content or ", ".join(f"calls {call.name}" for call in message.tool_calls)
        mark = " (interrupted)" if entry.status == "interrupted" else ""
        rows.append((str(number), message.role + mark, one_line(said)))
    return Shown(
        "Conversation", ("#", "who", "what"), tuple(rows), () if rows else ("Nothing was said yet.",)
    )


def _speed(completions: Sequence[Completion]) -> str:
    tokens = sum(max(one.usage.completion_tokens - 1, 0) for one in completions)
    seconds = sum(one.timings.decode_s for one in completions)
    return f"{tokens / seconds:.1f}" if tokens and seconds > 0 else ""


def _stats(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    done = session.completions
    if not done:
        return Said(("No question was answered yet.",))
    columns = ("", "last answer", f"all {len(done)} answers")
    last = done[-1:]
    rows = [("tokens per second", _speed(last), _speed(done))]
    for name, count in (
        ("prompt tokens", lambda one: one.usage.prompt_tokens),
        ("of them cached", lambda one: one.usage.cached_tokens),
        ("answer tokens", lambda one: one.usage.completion_tokens),
    ):
        rows.append((name, str(sum(map(count, last))), str(sum(map(count, done)))))
    for name, seconds in (
        ("prompt read, s", lambda one: one.timings.prefill_s),
        ("answer written, s", lambda one: one.timings.decode_s),
    ):
        rows.append((name, f"{sum(map(seconds, last)):.2f}", f"{sum(map(seconds, done)):.2f}"))
    rows.append(("first token after, s", f"{last[0].timings.first_token_s:.2f}", ""))
    used = session.context_used
    notes = () if used is None else (f"Context: {used} of {session.context_length} tokens used.",)
    return Shown("Statistics", columns, tuple(rows), notes)


def _copy(context: CommandContext, arguments: str) -> Outcome:
    if arguments not in ("", "code"):
        raise InvalidRequest(f"{arguments[:60]!r} cannot be copied.", "Use /copy, or /copy code.")
    answers = [one.content for one in context.session.messages if one.role == "assistant" and one.content]
    if not answers:
        raise InvalidRequest("There is no answer to copy yet.")
    if not arguments:
        return Copied(answers[-1], "the last answer")
    blocks = _CODE.findall(answers[-1])
    if not blocks:
        raise InvalidRequest("The last answer has no code block.", "/copy takes all of it.")
    return Copied(str(blocks[-1][1]), "the last code block")


BASIC_COMMANDS: Final = (
    Command("help", "[COMMAND]", "Show all commands, or what one does.", _help, ("?",), "command"),
    Command("quit", "", "Leave.", _leave, ("exit", "bye")),
    Command("new", "", "Begin a new conversation; system prompt and options stay.", _new, ("reset",)),
    Command("clear", "", "Clear the screen and begin a new conversation.", _clear),
    Command("history", "[N]", "Show what was said, or the last N messages of it.", _history),
    Command("stats", "", "Show token counts, times and speed of the answers.", _stats),
    Command("copy", "[code]", "Copy the last answer, or its last code block.", _copy),
)
