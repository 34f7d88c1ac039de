"""Tools of several sources, by their names."""

from __future__ import annotations

import pytest

from llm_local.errors import InvalidRequest
from llm_local.tools.collection import collect_tools, named_tool
from llm_local.tools.functions import make_tool
from llm_local.tools.limits import ToolLimits


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


ADD = make_tool(add)
OTHER = make_tool(add, source="mcp:sums")
MORE = make_tool(add, name="more")


def test_tools_keep_their_order_and_the_same_one_comes_once() -> None:
    assert collect_tools([MORE], [ADD, MORE]) == (MORE, ADD)
    assert collect_tools() == ()


def test_two_of_one_name_are_refused_with_their_sources() -> None:
    with pytest.raises(InvalidRequest, match="called 'add': one of function, one of mcp:sums"):
        collect_tools([ADD], [OTHER])


def test_a_tool_is_found_by_its_name_or_the_others_are_listed() -> None:
    assert named_tool("more", [ADD, MORE]) is MORE
    with pytest.raises(InvalidRequest, match="no tool 'nothing'. The tools are: add, more."):
        named_tool("nothing", [ADD, MORE])
    with pytest.raises(InvalidRequest, match="none at all"):
        named_tool("add", [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rounds", 0),
        ("max_rounds", 1.5),
        ("max_calls", 0),
        ("call_s", 0),
        ("call_s", float("nan")),
        ("call_s", float("inf")),
        ("max_result_chars", 99),
        ("max_result_chars", True),
    ],
)
def test_limits_have_bounds(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        ToolLimits(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
