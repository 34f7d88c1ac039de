"""Where raw values come from, above all a `.env` written by people, editors and other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_local.errors import ConfigError
from llm_local.options import UNSET
from llm_local.settings import sources
from llm_local.settings.sources import find_env_file, from_env_file, from_environment, from_flags


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `.env` of the current directory, not yet written."""
    monkeypatch.chdir(tmp_path)
    return Path(".env")


def read(env_file: Path, content: str | bytes) -> tuple[dict[str, object], tuple[str, ...]]:
    env_file.write_bytes(content.encode() if isinstance(content, str) else content)
    found, warnings = from_env_file(env_file)
    return {name: entry.value for name, entry in found.items()}, warnings


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("SYSTEM_PROMPT=Be brief.", "Be brief."),
        ("export SYSTEM_PROMPT=Be brief.\n", "Be brief."),
        ("SYSTEM_PROMPT = Be brief. # a comment", "Be brief."),
        ('SYSTEM_PROMPT="Be # brief.\\nAlways."', "Be # brief.\nAlways."),
        ("SYSTEM_PROMPT='Be \"brief\".'", 'Be "brief".'),
        ('SYSTEM_PROMPT="two\nlines"', "two\nlines"),
        ("SYSTEM_PROMPT=Be brief.\r\nOTHER=1\r\n", "Be brief."),
        ("\ufeffSYSTEM_PROMPT=Be brief.", "Be brief."),
        ("SYSTEM_PROMPT=old\nSYSTEM_PROMPT=new", "new"),
        ("SYSTEM_PROMPT=${HOME} and $HOME", "${HOME} and $HOME"),
        ("SYSTEM_PROMPT=Grüße 🙂", "Grüße 🙂"),
        ("# SYSTEM_PROMPT=commented\nSYSTEM_PROMPT=Be brief.", "Be brief."),
    ],
)
def test_every_way_to_write_a_line(env_file: Path, content: str, value: str) -> None:
    assert read(env_file, content) == ({"system_prompt": value}, ())


@pytest.mark.parametrize(
    "content", ["", "\n\n", "# only comments\n", "SEED=\n", 'SEED=""\n', "SEED= # none\n", "SEED='  '"]
)
def test_empty_means_not_set(env_file: Path, content: str) -> None:
    assert read(env_file, content) == ({}, ())


def test_a_value_knows_its_line(env_file: Path) -> None:
    env_file.write_bytes(b"# header\r\n\r\nA=1\r\n\r\n\r\nTOP_P=0.5\r\nTOP_K=3\r\n")
    found, _ = from_env_file(env_file)
    assert str(found["top_p"].origin) == ".env line 6"
    assert str(found["top_k"].origin) == ".env line 7"
    assert (found["top_k"].origin.source, found["top_k"].origin.key) == (".env", "TOP_K")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("TEMPRATURE", "TEMPERATURE"),
        ("temperature", "TEMPERATURE"),
        ("Model_Id", "MODEL_ID"),
        ("MODELID", "MODEL_ID"),
        ("MAX_TOKENS", "MAX_NEW_TOKENS"),
        ("TOPP", "TOP_P"),
        ("HF_TOKENS", "HF_TOKEN"),
    ],
)
def test_a_misspelled_setting_is_reported_with_the_right_name(env_file: Path, key: str, near: str) -> None:
    values, warnings = read(env_file, f"OTHER=1\n{key}=0.1\n")
    assert values == {}
    assert len(warnings) == 1
    assert key in warnings[0]
    assert near in warnings[0]
    assert ".env line 2" in warnings[0]


def test_a_hub_variable_that_would_have_no_effect_is_reported(env_file: Path) -> None:
    _, warnings = read(env_file, "HF_HUB_CACHE=/models\n")
    assert len(warnings) == 1
    assert "HF_HUB_CACHE" in warnings[0]
    assert "environment" in warnings[0]


def test_keys_of_other_programs_are_left_alone(env_file: Path) -> None:
    foreign = (
        "DATABASE_URL SECRET_KEY DEBUG PORT MODEL_DIR OPENAI_API_KEY NODE_ENV TZ PATH REDIS_HOST".split()
    )
    assert read(env_file, "".join(f"{key}=x\n" for key in foreign)) == ({}, ())


def test_a_broken_foreign_line_is_reported_and_skipped(env_file: Path) -> None:
    values, warnings = read(env_file, "FOO BAR=1\nTOP_K=3\n")
    assert values == {"top_k": "3"}
    assert warnings == (".env line 1 cannot be understood and is ignored.",)


@pytest.mark.parametrize(
    "line", ["TOP_K", "TOP_K 3", 'SYSTEM_PROMPT="never closed', "set TOP_K=3", "TOP_K: 3"]
)
def test_a_broken_line_of_ours_is_an_error(env_file: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(env_file, f"\nOTHER=1\n{line}\n")
    assert ".env line 3" in caught.value.message
    assert caught.value.param in line


def test_not_utf8(env_file: Path) -> None:
    for content in ("TOP_K=3\n".encode("utf-16"), "SYSTEM_PROMPT=Grüße".encode("latin-1")):
        with pytest.raises(ConfigError, match=r"\.env is not UTF-8"):
            read(env_file, content)


def test_larger_than_any_settings_file(env_file: Path) -> None:
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        read(env_file, b"#" * (1 << 20) + b"\n")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        from_env_file(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.env cannot be read: No such file"):
        from_env_file(tmp_path / "missing.env")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(env_file: Path) -> None:
    env_file.write_text("TOP_K=3")
    env_file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        from_env_file(env_file)


def test_the_current_directory_wins_over_the_checkout(
    tmp_path: Path, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "src" / "llm_local" / "settings").mkdir(parents=True)
    (checkout / ".env").touch()
    monkeypatch.setattr(sources, "__file__", str(checkout / "src" / "llm_local" / "settings" / "sources.py"))
    assert find_env_file() is None, (
        "an installed package has no pyproject.toml beside it, and reads no stray .env"
    )
    (checkout / "pyproject.toml").touch()
    assert find_env_file() == checkout / ".env"
    env_file.touch()
    assert find_env_file() == Path(".env")


def test_a_virtual_environment_called_dot_env_is_no_settings_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sources, "__file__", "/nowhere/lib/python3/site-packages/llm_local/settings/sources.py"
    )
    env_file.mkdir()
    assert find_env_file() == env_file, "a plain directory is reported when it is read"
    (env_file / "pyvenv.cfg").touch()
    assert find_env_file() is None


def test_environment() -> None:
    found = from_environment({"TOP_K": "3", "TOP_P": "", "SEED": "  ", "PATH": "/bin", "top_k": "9"})
    assert {name: entry.value for name, entry in found.items()} == {"top_k": "3"}
    assert str(found["top_k"].origin) == "environment"


def test_an_alias_is_weaker_than_the_name_and_reported_as_spelled() -> None:
    found = from_environment({"HF_HUB_OFFLINE": "1"})
    assert (found["offline"].value, found["offline"].origin.key) == ("1", "HF_HUB_OFFLINE")
    assert from_environment({"HF_HUB_OFFLINE": "1", "OFFLINE": "0"})["offline"].value == "0"
    assert from_environment({"HF_HUB_OFFLINE": "1", "OFFLINE": ""})["offline"].value == "1"


def test_flags() -> None:
    found = from_flags(
        {"temperature": 0.1, "seed": None, "top_k": UNSET, "system_prompt": "", "use_gpu": False}
    )
    assert {name: entry.value for name, entry in found.items()} == {
        "temperature": 0.1,
        "system_prompt": "",
        "use_gpu": False,
    }
    assert found["temperature"].origin.key == "--temperature"
    assert found["use_gpu"].origin.key == "USE_GPU"


def test_an_unknown_flag() -> None:
    with pytest.raises(ConfigError, match="no setting named 'temprature'") as caught:
        from_flags({"temprature": 0.1})
    assert caught.value.param == "temprature"
