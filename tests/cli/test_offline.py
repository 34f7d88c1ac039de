"""OFFLINE keeps every verb off the hub; without it, whatever a verb asks the hub is a line of the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakehub import FakeHub, running_hub
from hub_cache import add_model, model_files
from llm_local.store.snapshots import find_local

SOURCE = Path(__file__).parents[2] / "src"
GOING_OUT = [
    ["pull", "org/new"],
    ["search", "word"],
    ["run", "org/new", "Hello"],
    ["decide", "-m", "org/new", "--choice", "a", "--choice", "b", "Which?"],
    ["embed", "-m", "org/new", "text"],
    ["verify", "--repair", "org/here"],
]
NAMES = [words[0] for words in GOING_OUT]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with a model that is not here, and one that is, with a byte that is not as it should be."""
    with running_hub() as hub:
        hub.add("org/new", {"config.json": b"{}", "tokenizer.json": b"{}"})
        hub.add("org/here", model_files())
        add_model("org/here")
        folder = find_local("org/here")
        assert folder is not None
        damaged = (folder / "model.safetensors").resolve()
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x7f")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def run(words: list[str], tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environ},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("words", GOING_OUT, ids=NAMES)
@pytest.mark.parametrize("by", ["environment", ".env", "hub"])
def test_offline_asks_nobody_and_says_so(words: list[str], by: str, hub: FakeHub, tmp_path: Path) -> None:
    environ = {"environment": {"OFFLINE": "true"}, ".env": {}, "hub": {"HF_HUB_OFFLINE": "1"}}[by]
    if by == ".env":
        (tmp_path / ".env").write_text("OFFLINE=true\n")
    done = run(words, tmp_path, **environ)
    assert hub.requests == []
    assert done.returncode == 5, done.stderr
    assert "offline" in done.stderr.lower()


@pytest.mark.parametrize("words", GOING_OUT, ids=NAMES)
def test_what_a_verb_asks_is_in_the_log(words: list[str], hub: FakeHub, tmp_path: Path) -> None:
    done = run(words, tmp_path, LOG_LEVEL="info")
    lines = [line.partition("outbound: ")[2] for line in done.stderr.splitlines() if "outbound: " in line]
    asked = [f"{one.method} {hub.url}{one.path.partition('?')[0]}" for one in hub.requests]
    assert asked
    assert sorted(line for line in lines if not line.startswith("connect to")) == sorted(asked)


@pytest.mark.parametrize(
    "words",
    [["list"], ["show", "org/here"], ["verify", "org/here"], ["ps"], ["config"], ["plugins"], ["stop"]],
    ids=lambda words: words[0],
)
def test_what_looks_at_this_machine_asks_nobody(words: list[str], hub: FakeHub, tmp_path: Path) -> None:
    run(words, tmp_path)
    assert hub.requests == []
