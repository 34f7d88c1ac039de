"""`llm-local keys`: a key is shown once; mistakes are named."""

from __future__ import annotations

import json

import pytest

from llm_local.cli.main import main
from llm_local.store.keys import KeyRing, keys_file


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["keys", *words])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_a_key_is_made_listed_and_removed(capfd: pytest.CaptureFixture[str]) -> None:
    code, key, said = run(capfd, "add", "--role", "admin", "--label", "laptop")
    assert code == 0 and "only time" in said
    found = KeyRing(None, keys_file()).find(key.strip().encode())
    assert found is not None and found.role == "admin"
    _, listed, _ = run(capfd)
    assert found.id in listed and "laptop" in listed and key.strip() not in listed
    assert json.loads(run(capfd, "list", "--json")[1])[0]["id"] == found.id
    assert run(capfd, "remove", found.id)[1] == f"removed {found.id}\n"
    assert "no keys" in run(capfd)[2]


def test_a_key_is_a_users_unless_said_otherwise(capfd: pytest.CaptureFixture[str]) -> None:
    made = json.loads(run(capfd, "add", "--json")[1])
    assert made["role"] == "user" and made["key"].startswith("llk_")


@pytest.mark.parametrize(
    "words",
    [
        ("remove",),
        ("add", "x"),
        ("list", "--role", "user"),
        ("remove", "none"),
        ("add", "--role", "root"),
        ("x",),
    ],
)
def test_mistakes_are_named(capfd: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, out, said = run(capfd, *words)
    assert (code, out) == (2, "") and said.startswith("error: ")
