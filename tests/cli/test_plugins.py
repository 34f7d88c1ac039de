"""`llm-local plugins`: a list that imports nothing, and a check that says what is broken."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_local.plugins import COMMANDS, TOOL_FORMATS, TOOLS
from plugin_packages import install

SOURCE = Path(__file__).resolve().parents[2] / "src"
GOOD = "def hello() -> str:\n    'Say hello'\n    return 'hello'\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    offered = {
        TOOLS: {"hello": "good:hello", "lost": "nowhere:f"},
        TOOL_FORMATS: {"hermes": "good:hello"},
        COMMANDS: {"weather": "good:hello"},
    }
    return install(folder, "pack", offered, {"good": f"open(__file__ + '.imported', 'w').close()\n{GOOD}"})


def run(
    site: Path, *arguments: str, plugins: str | None = None, **details: Any
) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{site}"}
    if plugins is not None:
        environ["PLUGINS"] = plugins
    details = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **details}
    return subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", "plugins", *arguments],
        env=environ,
        cwd=os.environ["HOME"],
        text=True,
        timeout=60,
        check=False,
        **details,
    )


def states(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    return {one["name"]: (one["state"], one["note"]) for one in json.loads(done.stdout)}


def was_imported(site: Path) -> bool:
    return (site / "good.py.imported").exists()


def test_in_a_pipe_a_line_is_one_plug_in_with_tabs_between(site: Path) -> None:
    done = run(site)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "hello\tllm_local.tools\tpack\t1.0\toff\t",
        "lost\tllm_local.tools\tpack\t1.0\toff\t",
        "hermes\tllm_local.tool_formats\tpack\t1.0\tbroken\tthe name 'hermes' is that of a built-in format",
        "weather\tllm_local.commands\tpack\t1.0\toff\t",
    ]
    assert "To turn one on, set PLUGINS to its name" in done.stderr
    assert not was_imported(site)


def test_listing_imports_nothing_whatever_is_on(site: Path) -> None:
    found = states(run(site, "--json", plugins="all"))
    assert found["hello"] == found["lost"] == ("on", "")
    assert found["weather"] == ("on", "")
    assert not was_imported(site)


def test_a_check_loads_what_is_on_and_says_what_is_broken(site: Path) -> None:
    done = run(site, "--check", "--json", plugins="hello,lost")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: Broken: lost; see above."
    found = states(done)
    assert found["hello"] == ("on", "")
    assert found["lost"] == ("broken", "ModuleNotFoundError: No module named 'nowhere'.")
    assert was_imported(site)


def test_a_check_imports_nothing_that_is_off(site: Path) -> None:
    assert run(site, "--check").returncode == 0
    assert not was_imported(site)


def test_a_wrong_name_in_the_setting_comes_with_the_list(site: Path) -> None:
    done = run(site, plugins="helo")
    assert done.returncode == 2
    assert done.stdout.startswith("hello\t")
    assert "error: PLUGINS names 'helo', which no installed package offers." in done.stderr


def test_no_plug_ins(tmp_path: Path) -> None:
    done = run(tmp_path, "--json")
    assert (done.stdout, done.stderr) == ("[]\n", "No plug-ins are installed.\n")


def test_a_terminal_gets_a_table(site: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        run(site, stdout=theirs)
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
    lines = shown.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "PACKAGE", "STATE"]
    assert lines[1].split() == ["hello", "tool", "pack", "1.0", "off"]
    assert len({line.index("pack 1.0") for line in lines[1:]}) == 1


def test_escape_sequences_in_metadata_are_shown(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "pack", {TOOLS: {"x\x1b[31m": "m:f"}}, {})
    assert "\x1b" not in run(site).stdout


def test_the_list_loads_nothing_heavy(site: Path) -> None:
    program = (
        "import sys; from llm_local.cli.main import main; code = main(['plugins'])\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'huggingface_hub', 'numpy', 'asyncio', 'jsonschema', 'mcp'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or code)"
    )
    environ = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{site}"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ, cwd=os.environ["HOME"], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_a_plug_in_prints_in_whatever_way_is_no_part_of_the_list(tmp_path: Path) -> None:
    loud = "import atexit, os\nprint('a')\nos.write(1, b'b')\natexit.register(lambda: os.write(1, b'c'))\n"
    site = install(tmp_path / "site", "pack", {TOOLS: {"loud": "loud:hello"}}, {"loud": loud + GOOD})
    done = run(site, "--check", "--json", plugins="loud")
    assert done.returncode == 0
    assert states(done) == {"loud": ("on", "")}
    assert sorted("".join(done.stderr.split())) == ["a", "b", "c"]


def test_a_plug_in_that_interrupts_hurts_nobody_else(tmp_path: Path) -> None:
    offered = {TOOLS: {"hello": "good:hello", "rude": "rude:hello"}}
    modules = {"good": GOOD, "rude": "raise KeyboardInterrupt"}
    site = install(tmp_path / "site", "pack", offered, modules)
    done = run(site, "--check", "--json", plugins="all")
    assert states(done) == {"hello": ("on", ""), "rude": ("broken", "KeyboardInterrupt.")}


def test_plug_ins_that_a_stray_dot_env_names_are_off(site: Path) -> None:
    Path(os.environ["HOME"], ".env").write_text("PLUGINS=all\n")
    done = run(site, "--check")
    assert done.returncode == 0 and not was_imported(site)
    assert "PLUGINS (from .env line 1) is not used" in done.stderr
