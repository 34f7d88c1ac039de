"""The generated pages: complete, fresh, and true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from llm_local.cli.main import verb_parser
from llm_local.config import SETTINGS, load_config
from llm_local.settings.documents import env_example, settings_markdown

ROOT = Path(__file__).parents[2]


def test_the_committed_pages_are_fresh() -> None:
    assert (ROOT / ".env.example").read_text("utf-8") == env_example()
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == settings_markdown()


def test_the_example_changes_nothing_as_it_is(tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text(env_example())
    config = load_config(environ={}, env_file=example)
    assert (config.origins, config.warnings) == ({}, ())


def test_the_example_uncommented_holds_the_defaults(tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text(re.sub(r"^#(?=[A-Z_]+=)", "", env_example(), flags=re.MULTILINE))
    config = load_config(environ={}, env_file=example)
    assert config == load_config(environ={}, env_file=None)
    assert config.warnings == ()
    assert config.is_explicit("top_p")


def test_every_setting_is_in_both_pages() -> None:
    for setting in SETTINGS.values():
        assert re.search(rf"^#{setting.env}=", env_example(), re.MULTILINE)
        assert re.search(rf"^\| `{setting.env}` \|", settings_markdown(), re.MULTILINE)
        for spelling in (*setting.aliases, *filter(None, [setting.flag])):
            assert f"`{spelling}`" in settings_markdown()


def test_a_table_row_has_five_cells() -> None:
    rows = [line for line in settings_markdown().splitlines() if line.startswith("|")]
    assert len(rows) > len(SETTINGS)
    assert {row.count("|") for row in rows} == {6}


def test_the_script_says_what_is_stale() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), "--check"]
    assert subprocess.run(check, check=False, timeout=60).returncode == 0


def test_every_documented_flag_exists() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "run_once.py"), "--help"]
    words = set(subprocess.check_output(script, text=True, timeout=60).replace(",", " ").split())
    for verb in ("serve", "chat"):
        words |= set(verb_parser(verb).format_help().replace(",", " ").split())
    assert {setting.flag for setting in SETTINGS.values() if setting.flag} <= words
