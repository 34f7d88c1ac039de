"""Slash commands of other packages: checked when they are loaded, and no mistake of theirs ends a chat."""

from __future__ import annotations

import pytest

from chat.chatting import make_session, run
from llm_local.chat.command_table import check_command, command_table
from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.outcomes import Leave, Text
from llm_local.errors import InvalidRequest, PluginFailed
from llm_local.plugins import COMMANDS, Plugin, allow_plugins
from plugin_packages import install, installed

SOURCE = '''
from llm_local.chat.commands import Command
from llm_local.chat.outcomes import Shown
from llm_local.errors import InvalidRequest

def count(context, arguments):
    """Count the words.

    And more of it."""
    return f"**{sum(len(one.content.split()) for one in context.session.messages)}** words"

def table(context, arguments):
    return Shown("T", ("a",), ((arguments,),))

TABLE = Command("table", "[WORD]", "Show a table.", table, ("tab",), "path")

def broken(context, arguments):
    """Break."""
    if arguments == "refuse":
        raise InvalidRequest("Not that.")
    return 1 / 0 if arguments == "divide" else 7

def help(context, arguments):
    """Take over."""
'''


@pytest.fixture
def package(tmp_path):
    names = {
        "count": "words:count",
        "show-table": "words:TABLE",
        "broken": "words:broken",
        "help": "words:help",
    }
    folder = install(tmp_path / "site", "words-pack", {COMMANDS: names}, {"words": SOURCE})
    with installed(folder):
        yield


def test_a_function_and_a_command_become_rows(package):
    allow_plugins("count,show-table")
    session = make_session("Two words.")
    table = command_table()
    context = CommandContext(session, table)
    run(session.ask("a b c"))
    assert table.parse("/count").run(context) == Text("**5** words")
    assert (table.find("count").help, "words-pack" in table.find("count").source) == (
        "Count the words.",
        True,
    )
    assert table.parse("/tab x").run(context).rows == (("x",),)
    assert table.find("tab").completes == "path"


def test_what_is_off_is_not_there(package):
    allow_plugins(None)
    assert "count" not in command_table().names
    with pytest.raises(InvalidRequest):
        command_table().find("count")


def test_a_mistake_of_a_command_is_named(package):
    allow_plugins("broken")
    table = command_table()
    context = CommandContext(make_session(), table)
    with pytest.raises(PluginFailed, match=r"broken of words-pack 1\.0 failed: ZeroDivisionError"):
        table.parse("/broken divide").run(context)
    with pytest.raises(PluginFailed, match="gave a int"):
        table.parse("/broken").run(context)
    with pytest.raises(InvalidRequest, match="Not that"):
        table.parse("/broken refuse").run(context)


def test_a_built_in_name_cannot_be_taken(package):
    allow_plugins("help")
    with pytest.raises(PluginFailed, match="/help already"):
        command_table()
    allow_plugins("all")
    assert command_table().find("help").source == ""
    assert "count" in command_table().names


def command(**changes):
    fields = {"name": "fine", "usage": "", "help": "Help.", "run": lambda context, text: Leave()}
    return Command(**(fields | changes))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (7, "neither a Command nor a function"),
        (lambda context, text: Leave(), "no help"),
        (command(name="Loud"), "no name for a command"),
        (command(name="a b"), "no name for a command"),
        (command(name="x" * 33), "no name for a command"),
        (command(aliases=("fine",)), "/fine already"),
        (command(aliases=("quit",)), "/quit already"),
        (command(help=" "), "no help"),
        (command(completes="cheese"), "completes is 'cheese'"),
        (command(run=3), "cannot be called"),
        (command(run=lambda: Leave()), r"cannot be called with \(context, arguments\)"),
    ],
)
def test_what_cannot_be_a_command_says_why(value, reason):
    with pytest.raises(ValueError, match=reason):
        check_command(Plugin("plug", COMMANDS, "m:x", "pack", "1"), value)


def test_a_good_one_keeps_what_it_says():
    made = check_command(Plugin("plug", COMMANDS, "m:x", "pack", "1"), command())
    assert (made.name, made.source) == ("fine", "plug-in plug of pack 1")
    assert made.run(CommandContext(make_session(), command_table()), "") == Leave()
