"""One rule for the names of tools."""

from __future__ import annotations

import pytest

from llm_local.messages import ToolDefinition
from llm_local.tools.names import MAX_NAME, allowed_name, distinct_names, without_clashes
from llm_local.tools.tool import Tool


def tool(name: str, source: str) -> Tool:
    return Tool(ToolDefinition(name, "", {"type": "object"}), lambda arguments: source, source)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("read_file", "read_file"),
        ("files.read/all", "files_read_all"),
        ("städte", "st_dte"),
        ("<|im_end|>", "im_end"),
        ("", "tool"),
        ("日本", "tool"),
        ("x" * 100, "x" * MAX_NAME),
    ],
)
def test_a_name_is_made_fit_for_every_format(text: str, name: str) -> None:
    assert allowed_name(text) == name


def test_equal_names_are_numbered_and_stay_short() -> None:
    assert distinct_names(["a", "a", "a_2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]
    assert [len(name) for name in distinct_names(["x" * MAX_NAME] * 2)] == [MAX_NAME, MAX_NAME]
    assert len(set(distinct_names(["x" * MAX_NAME] * 12))) == 12


def test_names_that_do_not_clash_stay() -> None:
    tools = (tool("read", "mcp:files"), tool("find", "mcp:web"), tool("add", "function"))
    assert without_clashes(tools) == tools


def test_a_function_keeps_its_name_and_servers_are_prefixed() -> None:
    tools = [
        tool("read", "mcp:files"),
        tool("read", "function"),
        tool("read", "mcp:web"),
        tool("go", "mcp:web"),
    ]
    renamed = without_clashes(tools)
    assert [one.name for one in renamed] == ["files__read", "read", "web__read", "go"]
    assert [one.run({}) for one in renamed] == [one.source for one in tools], "each still runs its own"


def test_two_servers_of_one_name_are_numbered() -> None:
    renamed = without_clashes([tool("read", "mcp:files"), tool("read", "mcp:files")])
    assert [one.name for one in renamed] == ["files__read", "files__read_2"]


def test_a_prefix_does_not_take_a_name_that_is_taken() -> None:
    tools = [tool("a", "mcp:s"), tool("a", "plug-in:p"), tool("s__a", "function")]
    assert [one.name for one in without_clashes(tools)] == ["s__a_2", "p__a", "s__a"]


def test_a_name_that_means_a_choice_is_prefixed() -> None:
    assert [one.name for one in without_clashes([tool("none", "mcp:s")])] == ["s__none"]


def test_two_functions_of_one_name_are_left_for_the_user_to_mend() -> None:
    tools = (tool("a", "function"), tool("a", "function of tools.py"))
    assert without_clashes(tools) == tools


def test_a_long_name_keeps_its_end() -> None:
    long = "x" * 60
    renamed = without_clashes([tool(long, "mcp:server_one"), tool(long, "mcp:server_two")])
    assert len({one.name for one in renamed}) == 2
    assert all(len(one.name) <= MAX_NAME for one in renamed)
