"""Docs cannot lie: what they say about settings, flags, commands, files and rooms is checked against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import house_rules
from llm_local.chat.command_table import with_commands
from llm_local.config import SETTINGS, env_example, settings_markdown
from llm_local.errors import LocalLLMError
from llm_local.terminal.exit_codes import BROKEN_PIPE, EXIT_CODES, INTERRUPTED, TERMINATED

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def shell_blocks(text: str) -> list[str]:
    """The contents of the sh blocks of a page, in order."""
    return [body for language, body in _FENCED.findall(text) if language == "sh"]


def broken_links(page: Path, text: str) -> list[str]:
    """The relative links of a page that lead nowhere: to no file, or to no heading of the file."""
    broken = []
    for target in _LINK.findall(_FENCED.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in _headings(file)):
            broken.append(target)
    return broken


def _headings(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_programs(text: str) -> list[str]:
    """Files of this project that the sh blocks of a page call and that are not there."""
    called = re.findall(
        r"(?<![\w/.-])(?:\./)?((?:scripts/)?[\w-]+\.(?:sh|py)|scripts/\w+)", "\n".join(shell_blocks(text))
    )
    return [name for name in called if not (ROOT / name).is_file()]


def flags_of_run_once() -> set[str]:
    """Every long flag that `run_once.py --help` lists."""
    done = subprocess.run(
        [sys.executable, "scripts/run_once.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", done.stdout))


def test_env_example_is_fresh() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == env_example(), (
        "run scripts/generate_docs.py"
    )


def test_the_settings_page_is_fresh() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_markdown(), (
        "run scripts/generate_docs.py"
    )


def test_the_table_of_slash_commands_is_fresh() -> None:
    page = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
    assert with_commands(page) == page, "run scripts/generate_docs.py"


def test_a_page_without_a_place_for_the_commands_would_be_noticed() -> None:
    with pytest.raises(ValueError, match="marks"):
        with_commands("# A page\n")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented(name: str) -> None:
    key = name.upper()
    assert re.search(rf"^#{key}=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.M)
    assert f"`{key}`" in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_flag_of_run_once_is_documented() -> None:
    flags = flags_of_run_once()
    assert {"--model", "--seed", "--json", "--raw"} <= flags
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [flag for flag in sorted(flags) if not re.search(rf"{flag}(?![\w-])", pages)] == []


def test_every_flag_in_the_commands_of_the_readme_exists() -> None:
    lines = [line for block in shell_blocks(README) for line in block.splitlines() if "run_once.py" in line]
    used = {
        flag
        for line in lines
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line.partition("|")[0] or line)
    }
    assert used
    assert used <= flags_of_run_once()


def test_the_readme_begins_with_the_two_commands() -> None:
    first, second = shell_blocks(README)[:2]
    assert first == './run.sh scripts/run_once.py "What can you do?"\n'
    assert second == "scripts/test\n"
    assert second.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_programs_that_commands_call_are_there(page: Path) -> None:
    assert missing_programs(page.read_text(encoding="utf-8")) == []


def test_a_missing_program_would_be_noticed() -> None:
    text = "```sh\n./run.sh scripts/nothing.py\nscripts/test\n./none.sh | scripts/neither\n```\n"
    assert missing_programs(text) == ["scripts/nothing.py", "none.sh", "scripts/neither"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_would_be_noticed() -> None:
    text = "[a](none.md) [b](README.md#no-such-heading) [c](https://example.org) [d](README.md#in-a-pipe)"
    assert broken_links(ROOT / "x.md", text) == ["none.md", "README.md#no-such-heading"]


def test_what_people_run_can_be_run() -> None:
    programs = ["run.sh", "chat.sh", "chat-rich.sh", "api.sh", "scripts/check", "scripts/test", ".ci/run"]
    for name in programs:
        file = ROOT / name
        assert file.stat().st_mode & 0o111, f"{name} is not executable"
        assert subprocess.run(["bash", "-n", file], check=False).returncode == 0


def test_the_exit_codes_of_the_readme_are_the_real_ones() -> None:
    documented = {int(code) for code in re.findall(r"\| (\d+) (?=\|)", README)}
    assert documented == {0, *EXIT_CODES.values(), BROKEN_PIPE, INTERRUPTED, TERMINATED}


def test_every_kind_of_error_has_an_exit_code() -> None:
    kinds, classes = set(), [LocalLLMError]
    for one in classes:
        kinds.add(one.kind)
        classes.extend(one.__subclasses__())
    assert kinds <= EXIT_CODES.keys()


def test_the_architecture_page_has_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [room for room in house_rules.FLOORS if room and not room.startswith("__")]
    assert [room for room in rooms if not re.search(rf"`{room}/?`", page)] == []


def test_a_room_is_called_planned_until_it_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    planned = re.findall(r"((?:`\w+/?` )+)\*planned\*", page)
    names = [name for group in planned for name in re.findall(r"`(\w+)/?`", group)]
    assert "api_server" in names or (ROOT / "src" / "llm_local" / "api_server.py").exists()
    built = {module.room for module in house_rules.read_modules(ROOT / "src" / "llm_local")}
    assert [name for name in names if name in built] == []


def test_the_changelog_has_room_for_what_is_new() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_decisions_are_numbered_in_a_row() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(len(numbers)))
