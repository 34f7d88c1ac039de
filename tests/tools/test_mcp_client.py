"""The tools of a real MCP server, made with the SDK and run as a process."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_local.errors import InvalidRequest, McpServerError
from llm_local.tools.mcp_client import McpServer, open_server
from llm_local.tools.mcp_process import minimal_environment
from llm_local.tools.tool import Tool, ToolFailure

HERE = Path(__file__).parent
EVERYTHING = (sys.executable, str(HERE / "mcp_server_everything.py"))


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with open_server(EVERYTHING) as opened:
        yield opened


@pytest.fixture
def tools(server: McpServer) -> dict[str, Tool]:
    return {tool.name: tool for tool in server.tools}


def test_the_tools_are_described_as_models_read_them(server: McpServer, tools: dict[str, Tool]) -> None:
    assert server.name == "everything_server"
    weather = tools["get_weather"]
    assert weather.source == "mcp:everything_server"
    assert weather.definition.description == "Get the current weather in a city."
    assert weather.definition.parameters == {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    assert weather.time_limit_s == 65, "the loop waits a little longer than the call may take"


def test_a_name_that_formats_do_not_carry_is_changed_and_the_tool_found_all_the_same(
    tools: dict[str, Tool],
) -> None:
    assert tools["odd_name_with_dots"].run({}) == "odd"


def test_text_is_the_result(tools: dict[str, Tool]) -> None:
    assert tools["get_weather"].run({"city": "Zürich"}) == "18 degrees in Zürich"
    assert tools["add_numbers"].run({"a": 1, "b": 2.5}) == "3.5"


def test_structured_content_is_not_told_twice(tools: dict[str, Tool]) -> None:
    assert tools["forecast"].run({"city": "Oslo"}).count("Oslo") == 1


def test_what_is_no_text_is_named(tools: dict[str, Tool]) -> None:
    assert tools["pictures"].run({}).splitlines() == [
        "Here they are:",
        "[image/png, 12 kB: not shown]",
        "[audio/wav, 3 bytes: not shown]",
        "[resource file:///a.txt, text/plain, 3 bytes: not fetched]",
        "[resource memo:1]",
        "a note",
        "[resource memo:2, 3 bytes: not shown]",
    ]


def test_a_tool_that_fails_says_so_to_the_model(tools: dict[str, Tool]) -> None:
    with pytest.raises(ToolFailure, match="Error executing tool fail"):
        tools["fail"].run({"reason": "no"})
    with pytest.raises(ToolFailure, match="(?s)city.*Field required"):
        tools["get_weather"].run({})


@pytest.mark.parametrize(
    ("kind", "answer"), [("roots", "List roots not supported"), ("sampling", "Sampling not supported")]
)
def test_what_the_server_asks_of_us_is_refused(tools: dict[str, Tool], kind: str, answer: str) -> None:
    assert tools["ask_back"].run({"kind": kind}) == f"refused: {answer}"


def test_no_token_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else "secret")
    with open_server(EVERYTHING, env={"GIVEN": "1"}) as opened:
        has = next(tool for tool in opened.tools if tool.name == "environment").run({}).split()
    assert "GIVEN" in has
    assert set(has) <= {*minimal_environment(), "GIVEN", "LC_CTYPE"}  # Python itself sets the last
    assert "PATH" in has


def wait_for(marker: Path, text: str) -> None:
    ends = time.monotonic() + 20
    while not (marker.exists() and marker.read_text() == text):
        assert time.monotonic() < ends, f"no {text!r}"
        time.sleep(0.02)


def test_a_call_that_takes_too_long_is_canceled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with open_server(EVERYTHING, call_timeout_s=2) as opened:
        tools = {tool.name: tool for tool in opened.tools}
        with pytest.raises(ToolFailure, match="took longer than 2 s and was canceled"):
            tools["sleep"].run({"seconds": 60, "marker": str(marker)})
        wait_for(marker, "canceled")
        assert tools["get_weather"].run({"city": "Rome"}) == "18 degrees in Rome", "the server works on"


def test_two_servers_side_by_side_and_several_calls_at_once(server: McpServer) -> None:
    with open_server(EVERYTHING) as other:
        cities = [f"city {number}" for number in range(20)]
        weather = [
            next(tool for tool in one.tools if tool.name == "get_weather") for one in (server, other)
        ] * 10
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda tool, city: tool.run({"city": city}), weather, cities))
    assert told == [f"18 degrees in {city}" for city in cities]


def test_an_exception_in_the_block_closes_the_server_and_its_tools_say_so() -> None:
    with pytest.raises(ZeroDivisionError), open_server(EVERYTHING) as opened:
        raise ZeroDivisionError
    with pytest.raises(McpServerError, match=r"mcp_server_everything\.py` is closed"):
        opened.tools[0].run({"city": "Rome"})


def test_a_call_that_nobody_waits_for_is_canceled(
    monkeypatch: pytest.MonkeyPatch, tools: dict[str, Tool], tmp_path: Path
) -> None:
    """As Ctrl-C in the thread that waits."""
    marker = tmp_path / "marker"

    def interrupted(self: object, timeout: float | None = None) -> None:
        wait_for(marker, "began")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(concurrent.futures.Future, "result", interrupted)
        tools["sleep"].run({"seconds": 60, "marker": str(marker)})
    wait_for(marker, "canceled")


# --- without the SDK, and without a network ---


@pytest.mark.parametrize(
    ("command", "what"), [([], "is empty"), ([""], "is empty"), ("", "is empty"), ("ls -l", "is one text")]
)
def test_a_command_is_a_list_of_words(command: list[str] | str, what: str) -> None:
    with pytest.raises(InvalidRequest, match=f"The command of an MCP server {what}"), open_server(command):
        pass


def test_without_the_package_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['mcp'] = None\n"
        "from llm_local.tools.mcp_client import open_server\n"
        "try:\n"
        "    with open_server(['server', '--flag']): pass\n"
        "except Exception as error: print(error)\n"
        "print([name for name in ('mcp', 'anyio', 'asyncio.events') if sys.modules.get(name)])"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60)
    assert "`server --flag` needs the Python package `mcp`" in shown
    assert "pip install 'llm-local[mcp]'" in shown


def test_a_whole_session_opens_no_socket() -> None:
    """What the SDK brings along can speak HTTP; nothing of it does."""
    program = (
        "import socket, sys\n"
        "seen = []\n"
        "def hook(event, values):\n"
        "    if event.startswith('socket.'): seen.append((event, values))\n"
        "sys.addaudithook(hook)\n"
        "from llm_local.tools.mcp_client import open_server\n"
        "with open_server(sys.argv[1:]) as server:\n"
        "    print(server.tools[0].run({'city': 'Rome'}))\n"
        "print([one for one in seen if one[0] != 'socket.__new__'])\n"
        "print({one[1][1] for one in seen if one[0] == 'socket.__new__'} - {socket.AF_UNIX})"
    )
    shown = subprocess.check_output([sys.executable, "-c", program, *EVERYTHING], text=True, timeout=60)
    assert shown == "18 degrees in Rome\n[]\nset()\n"
