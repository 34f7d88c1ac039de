"""Flags: made from the settings, never guessed, each mistake one clear sentence."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from llm_local.config import load_config
from llm_local.errors import ConfigError, InvalidRequest
from llm_local.options import BOUNDS, GenerationOptions
from llm_local.settings.declarations import SETTINGS
from llm_local.terminal.flags import request_options, setting_flags


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "run_once.py"
    spec = importlib.util.spec_from_file_location("run_once", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parse(script: ModuleType, *words: str) -> argparse.Namespace:
    return script.make_parser().parse(words)


EVERY_VALUE = {
    "--model": ("model_id", "org/name", "org/name"),
    "-m": ("model_id", "starter", "starter"),
    "--quant": ("quantization", "INT4", "int4"),
    "--dtype": ("torch_dtype", "float32", "float32"),
    "--device": ("device_map", "cpu", "cpu"),
    "--context-length": ("context_length", "512", 512),
    "--system-prompt": ("system_prompt", "Be brief.", "Be brief."),
    "-s": ("system_prompt", "Be brief.", "Be brief."),
    "--max-tokens": ("max_new_tokens", "7", 7),
    "--temperature": ("temperature", "0", 0.0),
    "--top-p": ("top_p", "0.5", 0.5),
    "--top-k": ("top_k", "3", 3),
    "--min-p": ("min_p", "0.1", 0.1),
    "--typical-p": ("typical_p", "0.2", 0.2),
    "--repetition-penalty": ("repetition_penalty", "1.3", 1.3),
    "--seed": ("seed", "-5", -5),
}


@pytest.mark.parametrize("flag", EVERY_VALUE)
def test_every_setting_flag_reaches_the_config(flag: str, script: ModuleType) -> None:
    name, text, value = EVERY_VALUE[flag]
    config = load_config(setting_flags(_parse(script, flag, text)), environ={}, env_file=None)
    assert getattr(config, name) == value
    assert config.source(name) == "flag"


def test_flags_not_given_leave_the_environment_alone(script: ModuleType) -> None:
    config = load_config(
        setting_flags(_parse(script, "hi")), environ={"TOP_K": "9", "OFFLINE": "1"}, env_file=None
    )
    assert (config.top_k, config.source("top_k"), config.offline) == (9, "environment", True)
    assert load_config(setting_flags(_parse(script, "--offline")), environ={}, env_file=None).offline


def test_request_flags_reach_the_options(script: ModuleType) -> None:
    words = "--presence-penalty -1 --frequency-penalty 0.5 --stop a --stop b".split()
    options = GenerationOptions().replace(**request_options(_parse(script, *words)))
    assert (options.presence_penalty, options.frequency_penalty, options.stop) == (-1.0, 0.5, ("a", "b"))
    assert request_options(_parse(script, "hi")) == {}


def test_every_generation_number_has_a_flag(script: ModuleType) -> None:
    dests = set(vars(_parse(script)))
    assert set(BOUNDS) - {"top_logprobs"} <= dests


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temprature", "1"], "There is no flag --temprature. Did you mean --temperature?"),
        (["--temp", "1"], "There is no flag --temp."),
        (["--stop"], "--stop: expected one argument"),
        (["what", "is", "up"], "Only one prompt is taken, but 'is' is left over. Put the prompt in quotes"),
        (
            ["--presence-penalty", "2.5", "hi"],
            "--presence-penalty is '2.5', but must be a number from -2 to 2.",
        ),
        (
            ["--frequency-penalty", "nan", "hi"],
            "--frequency-penalty is 'nan', but must be a number from -2 to 2.",
        ),
        (["--frequency-penalty", "many", "hi"], "--frequency-penalty is 'many', but must be"),
        (["--json=1", "hi"], "--json"),
    ],
)
def test_a_mistake_is_named(words: list[str], message: str, script: ModuleType) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _parse(script, *words)
    assert message in str(caught.value)


def test_a_setting_out_of_bounds_names_flag_value_and_bound(script: ModuleType) -> None:
    parsed = _parse(script, "--top-p", "0")
    with pytest.raises(ConfigError, match=r"--top-p is '0' .* must be a number above 0 to 1\."):
        load_config(setting_flags(parsed), environ={}, env_file=None)


@pytest.mark.parametrize("prompt", ["-", "-5 + 3 = ?", "- item", "Why --temperature 3?", ""])
def test_prompts_that_look_odd(prompt: str, script: ModuleType) -> None:
    assert _parse(script, prompt, "--seed", "1").prompt == prompt
    assert _parse(script, "--seed", "1", prompt).prompt == prompt


def test_a_prompt_after_two_dashes(script: ModuleType) -> None:
    assert _parse(script, "--json", "--", "--help").prompt == "--help"


def test_help_shows_every_flag_with_its_bounds(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    text = script.make_parser().format_help()
    for name in setting_flags(_parse(script)):
        assert SETTINGS[name].flag in text
    for name in set(BOUNDS) - {"top_logprobs"}:
        assert str(BOUNDS[name]) in text
    monkeypatch.setenv("COLUMNS", "1")
    assert "--temperature" in script.make_parser().format_help()
