"""Config: which source wins, what is refused and how, what leaves it, and what never does."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_local.config import SETTINGS, Config, load_config
from llm_local.errors import ConfigError
from llm_local.options import BOUNDS, UNSET, GenerationOptions
from llm_local.specs import EngineOptions, ModelSpec

SECRET = "hf_ThisMustNeverBeSeen0123456789"
Write = Callable[[str], Path]


def config_of(**environ: str) -> Config:
    """The settings under an environment, without a `.env`."""
    return load_config(environ=environ, env_file=None)


@pytest.fixture
def dot_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the `.env` of the current directory."""
    monkeypatch.chdir(tmp_path)

    def write(content: str) -> Path:
        Path(".env").write_text(content)
        return Path(".env")

    return write


def test_the_defaults() -> None:
    config = config_of()
    assert config == Config()
    assert dataclasses.asdict(config) | {"origins": {}, "env_file": None, "file_warnings": ()} == {
        "model_id": "Qwen/Qwen2.5-1.5B-Instruct",
        "use_gpu": True,
        "torch_dtype": "auto",
        "device_map": "auto",
        "quantization": "auto",
        "packed_cache_mb": 20_000,
        "kernels": "auto",
        "context_length": None,
        "kv_cache_mb": None,
        "prefix_cache": True,
        "speculation": "off",
        "draft_model": None,
        "system_prompt": None,
        "max_new_tokens": 512,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "do_sample": True,
        "seed": None,
        "api_host": "127.0.0.1",
        "api_port": 8000,
        "api_keys": None,
        "api_allowed_hosts": None,
        "api_cors_origins": None,
        "rate_limit": None,
        "ollama_port": None,
        "grace_s": 30.0,
        "max_loaded_models": 3,
        "model_memory_mb": None,
        "keep_alive_s": 300.0,
        "max_concurrent_requests": 32,
        "max_waiting_requests": 256,
        "queue_timeout_s": 300.0,
        "response_cache_mb": 0,
        "response_cache_url": None,
        "offline": False,
        "hf_home": None,
        "hf_endpoint": None,
        "hf_token": None,
        "plugins": None,
        "log_level": "warning",
        "chat_enter_submits": False,
        "chat_show_thinking": False,
        "origins": {},
        "env_file": None,
        "file_warnings": (),
    }


def test_each_source_beats_the_one_below(dot_env: Write) -> None:
    dot_env("TOP_K=3\nTOP_P=0.3\nMIN_P=0.3\n")
    config = load_config({"min_p": 0.5}, environ={"TOP_P": "0.4", "MIN_P": "0.4"})
    config = config.with_profile({"top_k": 1, "top_p": 0.1, "min_p": 0.1, "temperature": 0.2})
    found = {
        name: (getattr(config, name), config.source(name))
        for name in ("temperature", "top_k", "top_p", "min_p", "seed")
    }
    assert found == {
        "temperature": (0.2, "profile"),
        "top_k": (3, ".env"),
        "top_p": (0.4, "environment"),
        "min_p": (0.5, "flag"),
        "seed": (None, "default"),
    }
    assert [config.is_explicit(name) for name in found] == [False, True, True, True, False]


def test_the_environment_is_this_processes_own_by_default(
    monkeypatch: pytest.MonkeyPatch, dot_env: Write
) -> None:
    monkeypatch.setenv("TOP_K", "7")
    dot_env("SEED=5\n")
    config = load_config()
    assert (config.top_k, config.seed, config.env_file) == (7, 5, Path(".env"))
    assert load_config(env_file=None).seed is None


def test_an_env_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(environ={}, env_file=tmp_path / "other.env")


def test_not_given_is_not_explicit() -> None:
    config = load_config({"temperature": None, "top_k": UNSET}, environ={"TOP_P": ""}, env_file=None)
    assert not any(config.is_explicit(name) for name in ("temperature", "top_k", "top_p"))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"TEMPERATURE": "hot"},
            "TEMPERATURE is 'hot' (from environment), but must be a number from 0 to 10.",
        ),
        (
            {"TEMPERATURE": "nan"},
            "TEMPERATURE is 'nan' (from environment), but must be a number from 0 to 10.",
        ),
        ({"API_PORT": "0"}, "API_PORT is '0' (from environment), but must be an integer from 1 to 65535."),
        (
            {"DEVICE_MAP": "gpu"},
            "DEVICE_MAP is 'gpu' (from environment), but must be one of auto, cpu, cuda, mps.",
        ),
        (
            {"HF_HUB_OFFLINE": "maybe"},
            "HF_HUB_OFFLINE is 'maybe' (from environment), but must be true or false "
            "(also yes, no, on, off, 1, 0).",
        ),
    ],
)
def test_a_refusal_names_key_value_place_and_what_is_allowed(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(**environ)
    assert str(caught.value) == message
    assert caught.value.param == next(iter(environ))


def test_a_refusal_names_the_line_of_the_file(dot_env: Write) -> None:
    dot_env("\n\nTOP_P=2\n")
    with pytest.raises(
        ConfigError, match=re.escape("TOP_P is '2' (from .env line 3), but must be a number above 0 to 1.")
    ):
        load_config(environ={})


def test_a_refusal_names_the_flag_as_it_is_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"max_new_tokens": 0}, environ={}, env_file=None)
    assert caught.value.message.startswith(
        "--max-tokens is 0 (from command line), but must be an integer from 1"
    )
    assert caught.value.param == "--max-tokens"


def test_a_stronger_good_value_hides_a_weaker_bad_one() -> None:
    assert load_config({"temperature": 0.1}, environ={"TEMPERATURE": "hot"}, env_file=None).temperature == 0.1


def test_all_refusals_come_at_once_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(TOP_K="many", SEED="x\ny", LOG_LEVEL="loud")
    assert all(key in caught.value.message for key in ("TOP_K", "SEED", "LOG_LEVEL"))
    assert "\n" not in str(caught.value)


def test_a_huge_value_makes_a_short_message() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(TOP_K="9" * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [name for name in BOUNDS if name in SETTINGS])
def test_generation_settings_have_the_bounds_of_the_options(name: str) -> None:
    assert SETTINGS[name].kind.allowed == str(BOUNDS[name])
    with pytest.raises(ConfigError):
        config_of(**{SETTINGS[name].env: repr(BOUNDS[name].high + 1)})


def test_a_config_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="TEMPERATURE is 11"):
        Config(temperature=11)
    with pytest.raises(ConfigError, match="MODEL_ID is None"):
        Config(model_id=None)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().top_k = 3  # type: ignore[misc]


def test_words_are_read_in_any_case() -> None:
    config = config_of(LOG_LEVEL="DEBUG", DEVICE_MAP="CPU", TORCH_DTYPE="BFloat16", USE_GPU="FALSE")
    assert (config.log_level, config.device_map, config.torch_dtype, config.use_gpu) == (
        "debug",
        "cpu",
        "bfloat16",
        False,
    )


def test_an_environment_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"SYSTEM_PROMPT \(from environment, value not shown\) must be UTF-8 text"
    ):
        config_of(SYSTEM_PROMPT=b"Gr\xfc\xdfe".decode("utf-8", "surrogateescape"))


# --- profiles ---


def test_a_profile_is_checked_and_named() -> None:
    with pytest.raises(ConfigError, match=r"TOP_P is 3 \(from the model's profile\)"):
        Config().with_profile({"top_p": 3})
    with pytest.raises(ConfigError, match="cannot set 'eos_token_id'"):
        Config().with_profile({"eos_token_id": 3})


def test_a_profile_leaves_the_original_alone_and_a_second_one_changes_nothing() -> None:
    config = Config()
    first = config.with_profile({"top_k": 1})
    assert (config.top_k, config.source("top_k")) == (50, "default")
    assert first.with_profile({"top_k": 2}).top_k == 1


# --- what comes out ---


def test_generation_options_carry_every_setting() -> None:
    values: dict[str, Any] = {
        "max_new_tokens": 7,
        "temperature": 0.1,
        "top_p": 0.2,
        "top_k": 3,
        "min_p": 0.4,
        "typical_p": 0.5,
        "repetition_penalty": 1.6,
        "seed": 8,
    }
    config = config_of(**{name.upper(): str(value) for name, value in values.items()})
    assert config.generation_options() == GenerationOptions(**values)


@pytest.mark.parametrize(
    ("file", "environ", "flags", "temperature"),
    [
        ("DO_SAMPLE=false", {}, {}, 0.0),
        ("DO_SAMPLE=false\nTEMPERATURE=0.9", {}, {}, 0.0),
        ("DO_SAMPLE=false", {}, {"temperature": 0.9}, 0.9),
        ("TEMPERATURE=0.9", {"DO_SAMPLE": "no"}, {}, 0.0),
        ("TEMPERATURE=0", {}, {}, 0.0),
        ("DO_SAMPLE=true\nTEMPERATURE=0", {}, {}, 0.0),
        ("", {}, {}, 0.7),
    ],
)
def test_do_sample_false_is_temperature_zero_in_its_own_place(
    dot_env: Write, file: str, environ: dict[str, str], flags: dict[str, Any], temperature: float
) -> None:
    options = load_config(flags, environ=environ, env_file=dot_env(file)).generation_options()
    assert options.temperature == temperature
    assert options.greedy == (temperature == 0)


@pytest.mark.parametrize(
    ("use_gpu", "device_map", "device"),
    [
        ("true", "auto", "auto"),
        ("true", "cuda", "cuda"),
        ("true", "mps", "mps"),
        ("true", "cpu", "cpu"),
        ("false", "auto", "cpu"),
        ("false", "cpu", "cpu"),
    ],
)
def test_get_device(use_gpu: str, device_map: str, device: str) -> None:
    assert config_of(USE_GPU=use_gpu, DEVICE_MAP=device_map).get_device() == device


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_that_is_asked_for_and_forbidden_is_an_error_naming_both(device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"device_map": device}, environ={"USE_GPU": "0"}, env_file=None)
    assert str(caught.value) == (
        f"--device is {device} (from command line), but USE_GPU is false (from environment); change one of the two."
    )


def test_model_spec() -> None:
    spec = config_of(MODEL_ID="org/m", TORCH_DTYPE="float32", USE_GPU="0", CONTEXT_LENGTH="99").model_spec()
    assert (spec.ref, spec.dtype, spec.device, spec.context_length) == ("org/m", "float32", "cpu", 99)
    assert spec.trust_remote_code is False
    spec = config_of(QUANTIZATION="INT8", PACKED_CACHE_MB="0", KERNELS="off").model_spec()
    assert (spec.quantization, spec.packed_cache_bytes, spec.kernels) == ("int8", 0, "off")
    assert config_of().model_spec() == ModelSpec(config_of().model_id)


def test_engine_options_are_in_bytes() -> None:
    options = config_of(KV_CACHE_MB="3", PREFIX_CACHE="no", SPECULATION="NGRAM").engine_options()
    assert options == EngineOptions(kv_cache_bytes=3 * 2**20, prefix_cache=False, speculation="ngram")
    assert config_of().engine_options() == EngineOptions()


def test_no_setting_can_turn_on_remote_code() -> None:
    assert not any("remote" in name or "trust" in name for name in SETTINGS)


def test_hub_environment_holds_only_what_was_set() -> None:
    assert config_of().hub_environment() == {}
    config = config_of(HF_HOME="/models", HF_ENDPOINT="https://mirror", HF_TOKEN=SECRET, OFFLINE="true")
    assert config.hub_environment() == {
        "HF_HOME": "/models",
        "HF_ENDPOINT": "https://mirror",
        "HF_TOKEN": SECRET,
        "HF_HUB_OFFLINE": "1",
    }
    assert config_of(OFFLINE="no").hub_environment() == {"HF_HUB_OFFLINE": "0"}


# --- secrets ---


@pytest.mark.parametrize("key", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_users_token_does_not_follow_an_endpoint_from_a_file(dot_env: Write, key: str) -> None:
    dot_env("HF_ENDPOINT=https://evil.example\n")
    config = load_config(environ={key: SECRET})
    variables = config.hub_environment()
    assert variables["HF_ENDPOINT"] == "https://evil.example"
    assert (variables["HF_TOKEN"], variables["HUGGING_FACE_HUB_TOKEN"]) == ("", "")
    assert len(config.warnings) == 1
    assert "HF_ENDPOINT comes from .env line 1" in config.warnings[0]


def test_a_token_goes_where_its_own_place_says(dot_env: Write) -> None:
    dot_env(f"HF_ENDPOINT=https://mirror\nHF_TOKEN={SECRET}\n")
    assert load_config(environ={}).hub_environment()["HF_TOKEN"] == SECRET
    dot_env(f"HF_TOKEN={SECRET}\n")
    config = load_config(environ={"HF_ENDPOINT": "https://mirror"})
    assert config.hub_environment()["HF_TOKEN"] == SECRET
    assert config.warnings == ()


def test_a_file_that_happens_to_lie_here_does_not_decide_which_code_runs(dot_env: Write) -> None:
    named = dot_env("PLUGINS=all\nTOP_K=7\n")
    config = load_config(environ={})
    assert (config.plugins, config.top_k, config.source("plugins")) == (None, 7, "default")
    (warning,) = config.warnings
    assert warning.startswith("PLUGINS (from .env line 1) is not used") and "environment" in warning
    config = load_config(environ={"PLUGINS": "mine"})
    assert (config.plugins, config.warnings) == ("mine", ())
    assert load_config(environ={}, env_file=named).plugins == "all", "somebody named that file"


def test_the_token_is_never_shown() -> None:
    config = config_of(HF_TOKEN=SECRET, SYSTEM_PROMPT="my private prompt")
    for text in (repr(config), str(config), config.summary(), f"{config}"):
        assert SECRET[3:15] not in text
        assert "private prompt" not in text
    assert "hf_token=***" in repr(config)
    assert "<17 characters>" in config.summary()
    assert config.secrets == (SECRET,)


def test_a_bad_token_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(HF_TOKEN=f"{SECRET} {SECRET}")
    assert str(caught.value).startswith(
        "HF_TOKEN (from environment, value not shown) must be one access token"
    )
    assert SECRET[3:15] not in str(caught.value)


def test_a_token_in_the_wrong_place_is_not_repeated_either() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(TOP_K=SECRET)
    assert SECRET[3:15] not in str(caught.value)
    assert "user:pass" not in config_of(HF_ENDPOINT="https://user:pass@mirror").summary()


def test_summary_has_every_setting_with_value_and_source() -> None:
    lines = config_of(TOP_K="3", MODEL_ID="a\x1b[2Jb").summary().splitlines()
    assert [line.split()[0] for line in lines] == [setting.env for setting in SETTINGS.values()]
    assert next(line.split() for line in lines if line.startswith("TOP_K")) == ["TOP_K", "3", "environment"]
    assert r"a\x1b[2Jb" in lines[0]
    assert len({line.rindex("  ") for line in lines}) == 1, "the sources stand in one column"


def test_repr_shows_only_what_differs() -> None:
    assert repr(Config()) == "Config()"
    assert repr(config_of(TOP_K="3")) == "Config(top_k=3)"


# --- cost ---


def test_settings_cost_neither_torch_nor_pydantic(tmp_path: Path) -> None:
    program = (
        "import sys; from llm_local.config import load_config; load_config()\n"
        "print({'torch', 'transformers', 'pydantic', 'huggingface_hub', 'numpy', 'asyncio'} & set(sys.modules))"
    )
    shown = subprocess.check_output(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        text=True,
        timeout=60,
    )
    assert shown == "set()\n"
