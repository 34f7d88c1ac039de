"""`llm-local config`: what holds, where it came from, and no secret in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.main import main
from llm_local.config import SETTINGS, load_config

SECRET = "hf_ThisMustNeverBeSeen0123456789"
AWKWARD = 'Say "hi", it\'s 100% # fine.\n\tThen C:\\new ${HOME} Grüße'


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and no hub settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HOME")
    return tmp_path


@pytest.fixture
def shown(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the verb and gives back exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["config", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_one_line_for_each_setting(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("TOP_P=0.5\n")
    monkeypatch.setenv("TOP_K", "3")
    code, out, err = shown()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("=")[0] for line in lines] == [setting.env for setting in SETTINGS.values()]
    assert {
        "TOP_P=0.5  # .env line 1",
        "TOP_K=3  # environment",
        "SEED=  # default",
        "USE_GPU=true  # default",
    } <= set(lines)


def test_the_lines_read_back_are_the_same_settings(
    shown: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {
        "SYSTEM_PROMPT": AWKWARD,
        "MODEL_ID": "my models/it's",
        "SEED": "-1",
        "USE_GPU": "no",
        "HF_HOME": "/m n",
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    expected = load_config()
    (tmp_path / "saved.env").write_text(shown()[1])
    assert load_config(environ={}, env_file=tmp_path / "saved.env") == expected
    assert expected.system_prompt == AWKWARD


def test_json(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("TOP_P=0.5\nTEMPRATURE=1\n")
    monkeypatch.setenv("SYSTEM_PROMPT", AWKWARD)
    code, out, err = shown("--json")
    report = json.loads(out)
    assert code == 0
    assert report["settings"]["TOP_P"] == {"value": 0.5, "source": ".env", "from": ".env line 1"}
    assert report["settings"]["SYSTEM_PROMPT"]["value"] == AWKWARD
    assert report["settings"]["SEED"] == {"value": None, "source": "default", "from": "default"}
    assert report["settings"]["USE_GPU"]["value"] is True
    assert report["settings"].keys() == {setting.env for setting in SETTINGS.values()}
    assert report["env_file"] == ".env"
    assert [f"warning: {warning}" for warning in report["warnings"]] == err.splitlines()


def test_warnings_are_on_stderr(shown: Any) -> None:
    Path(".env").write_text("TEMPRATURE=1\n")
    code, out, err = shown()
    assert code == 0
    assert "TEMPRATURE" not in out
    assert (
        err
        == "warning: TEMPRATURE (.env line 1) is not a setting and is ignored; did you mean TEMPERATURE?\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_secrets_are_masked(shown: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:hunter2@mirror.example")
    code, out, err = shown(*arguments)
    assert code == 0
    assert SECRET[3:15] not in out + err
    assert "hunter2" not in out + err
    assert "***" in out


def test_a_bad_setting_is_exit_2_and_one_line(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "hot")
    assert shown() == (
        2,
        "",
        "error: TEMPERATURE is 'hot' (from environment), but must be a number from 0 to 10.\n",
    )


def test_an_unreadable_env_file_is_exit_2(shown: Any) -> None:
    Path(".env").mkdir()
    code, out, err = shown()
    assert (code, out) == (2, "")
    assert err == "error: The settings file .env cannot be read: Is a directory.\n"
