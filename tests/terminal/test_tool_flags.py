"""Flags about tools: off unless asked, and each mistake one clear sentence."""

from __future__ import annotations

from types import ModuleType

import pytest

from llm_local.errors import InvalidRequest
from llm_local.terminal.tool_flags import CALL_S, MAX_ROUNDS, check_tool_flags, tool_request
from llm_local.tools.limits import LIMIT_BOUNDS, ToolLimits
from llm_local.tools.mcp_client import CALL_LIMIT_S
from terminal.test_flags import script  # noqa: F401  (a fixture)


def parse(script: ModuleType, *words: str):  # noqa: F811
    parsed = script.make_parser().parse(words)
    check_tool_flags(parsed)
    return parsed


def test_nothing_is_a_tool_unless_asked(script: ModuleType) -> None:  # noqa: F811
    assert tool_request(parse(script, "Hi")) is None


def test_what_is_asked_reaches_the_door(script: ModuleType) -> None:  # noqa: F811
    words = ["--functions", "a.py", "--functions", "b c.py", "--tool", "x", "--mcp", "srv --at '/a b'"]
    request = tool_request(parse(script, *words, "--mcp=other"))
    assert request is not None
    assert request.function_files == ("a.py", "b c.py")
    assert request.plug_in_tools == ("x",)
    assert request.servers == (("srv", "--at", "/a b"), ("other",))
    assert (dict(request.limits), request.approve, request.choice) == ({}, "ask", "auto")
    details = ["--approve", "all", "--max-tool-rounds", "3", "--tool-timeout", "2.5", "--tool-choice", "add"]
    request = tool_request(parse(script, "--tool", "add", *details))
    assert request is not None
    assert (request.approve, request.choice) == ("all", "add")
    assert ToolLimits(**request.limits) == ToolLimits(max_rounds=3, call_s=2.5)


def test_bounds_and_defaults_are_those_of_the_loop(script: ModuleType) -> None:  # noqa: F811
    assert (LIMIT_BOUNDS["max_rounds"], LIMIT_BOUNDS["call_s"]) == (MAX_ROUNDS, CALL_S)
    text = " ".join(script.make_parser().format_help().split())
    limits = ToolLimits()
    assert f"so many replies at most. Default: {limits.max_rounds}." in text
    assert f"Default: {limits.call_s:g}, for MCP servers {CALL_LIMIT_S:g}." in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--approve", "all"], "--approve has no place without tools"),
        (["--max-tool-rounds", "3"], "--max-tool-rounds has no place without tools"),
        (["--tool-timeout", "3"], "--tool-timeout has no place without tools"),
        (["--tool-choice", "none"], "--tool-choice has no place without tools"),
        (["--functions", "a.py", "--raw"], "--functions has no place with --raw"),
        (["--mcp", "x", "--batch", "f"], "--mcp has no place with --batch"),
        (
            ["--tool", "x", "--max-tool-rounds", "0"],
            "--max-tool-rounds is '0', but must be an integer from 1",
        ),
        (["--tool", "x", "--tool-timeout", "inf"], "--tool-timeout is 'inf'"),
        (["--tool", "x", "--approve", "yes"], "--approve"),
    ],
)
def test_mistakes_are_refused_by_name(script: ModuleType, words: list[str], said: str) -> None:  # noqa: F811
    with pytest.raises(InvalidRequest) as caught:
        parse(script, *words)
    assert said in str(caught.value)


@pytest.mark.parametrize("command", ["", "  ", "a 'b"])
def test_a_command_that_is_none_is_refused(script: ModuleType, command: str) -> None:  # noqa: F811
    with pytest.raises(InvalidRequest, match="--mcp"):
        tool_request(parse(script, "--mcp", command, "--tool", "x"))
