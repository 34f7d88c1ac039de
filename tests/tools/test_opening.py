"""Tools opened by name from files, plug-ins and servers, and closed again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_local.errors import InvalidRequest, McpServerError
from llm_local.tools import plugin_tools
from llm_local.tools.functions import make_tool
from llm_local.tools.opening import open_sources

SERVER = (sys.executable, str(Path(__file__).parent / "mcp_server_everything.py"))


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text("def add_numbers(a: int, b: int) -> int:\n    return a + b\n")
    return str(path)


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def shout(text: str) -> str:
        return text.upper()

    tools = {name: make_tool(shout, name=name, source=f"plug-in:{name}") for name in ("shout", "other")}
    monkeypatch.setattr(
        plugin_tools, "plugin_tools", lambda names: tuple(tools[name] for name in tools if name in names)
    )


def test_nothing_asked_nothing_opened() -> None:
    with open_sources() as tools:
        assert tools == ()


def test_a_function_keeps_its_name_beside_a_servers_tool(mine: str) -> None:
    with open_sources(function_files=[mine], servers=[SERVER], call_s=22, choice="add_numbers") as tools:
        by_source = {tool.name: tool.source for tool in tools}
        assert by_source["add_numbers"] == "function of mine.py"
        assert by_source["everything_server__add_numbers"] == "mcp:everything_server"
        served = next(tool for tool in tools if tool.name == "get_weather")
        assert served.run({"city": "Oslo"}) == "18 degrees in Oslo"
        assert served.time_limit_s == 27, "what was asked for, and a little to say so"
    with pytest.raises(Exception, match=r"."):
        served.run({"city": "Oslo"})  # the server has gone


def test_what_a_server_writes_to_its_stderr_is_handed_on_with_its_name() -> None:
    script = str(Path(__file__).parent / "mcp_hostile_servers.py")
    heard: list[str] = []
    with (
        pytest.raises(McpServerError, match="exit status 4"),
        open_sources(servers=[(sys.executable, script, "exits_at_once")], on_server_line=heard.append),
    ):
        pass
    assert heard == [f"{sys.executable} {script} exits_at_once: no such database"]


@pytest.mark.usefixtures("plug_ins")
def test_plug_in_tools_are_chosen_by_name() -> None:
    with open_sources(plug_in_tools=["other"]) as tools:
        assert [tool.source for tool in tools] == ["plug-in:other"]
    with (
        pytest.raises(InvalidRequest, match="no tool 'none' among the plug-ins"),
        open_sources(plug_in_tools=["shout", "none"]),
    ):
        pass


def test_without_plug_ins_a_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="llm-local plugins"), open_sources(plug_in_tools=["shout"]):
        pass


def test_two_functions_of_one_name_and_a_choice_of_none_are_refused(mine: str) -> None:
    with pytest.raises(InvalidRequest, match="Two tools"), open_sources(function_files=[mine, mine]):
        pass
    with (
        pytest.raises(InvalidRequest, match="The tools are: add_numbers"),
        open_sources(function_files=[mine], choice="sub"),
    ):
        pass
