"""Every setting, declared once: name, default, what is allowed, help, secrecy, command-line flag.

The environment variable of a field is its name in capitals. A new setting is one more field here; `.env.example`,
`docs/settings.md` and `llm-local config` follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from llm_local.options import BOUNDS, Bound
from llm_local.settings.kinds import (
    DIRECTORY,
    HOST,
    HOSTS,
    KEYS,
    NAME,
    NAMES,
    ORIGINS,
    RATE,
    REDIS_URL,
    SWITCH,
    TEXT,
    TOKEN,
    URL,
    Kind,
    choice,
    number,
)
from llm_local.specs import DeviceName, DtypeName, Kernels, Quantization, Speculation

__all__ = ["SETTINGS", "LogLevel", "Secrecy", "Setting", "Settings"]

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
Secrecy = Literal["public", "private", "secret"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One declaration.

    - `aliases`: other environment variables that mean the same, weaker than `env` in the same place.
    - `flag`: how the front-ends spell it, or "" where none has a flag.
    - `secrecy`: `private` is shown only to the person who asks and never logged; `secret` is never shown.
    """

    name: str
    default: Any
    kind: Kind
    help: str
    section: str
    flag: str = ""
    aliases: tuple[str, ...] = ()
    secrecy: Secrecy = "public"

    @property
    def env(self) -> str:
        """The environment variable, which is also the key in `.env`."""
        return self.name.upper()

    def read(self, raw: object) -> Any:
        """The typed value of `raw` (text or a typed value). None is a value only where it is the default.

        Raises:
            ValueError: not a value that is allowed.
        """
        if raw is None and self.default is None:
            return None
        return self.kind.read(raw)


def _setting(default: Any, kind: Kind, help: str, section: str, **details: Any) -> Any:
    metadata = {"kind": kind, "help": help, "section": section, **details}
    return dataclasses.field(default=default, metadata=metadata)


def _generation(name: str, default: Any, help: str, flag: str = "") -> Any:
    return _setting(default, number(BOUNDS[name]), help, "Generation", flag=flag)


@dataclass(frozen=True)
class Settings:
    """The values alone, each with its default."""

    model_id: str = _setting(
        "Qwen/Qwen2.5-1.5B-Instruct",
        NAME,
        "The model: org/name on the hub, a directory, or `starter` (the tiny one that ships with llm-local).",
        "Model",
        flag="--model",
        aliases=("LLM_CURRENT_MODEL",),
    )
    use_gpu: bool = _setting(
        True, SWITCH, "Use a GPU when the machine has one; false means the CPU always.", "Model"
    )
    device_map: DeviceName = _setting(
        "auto",
        choice(*get_args(DeviceName)),
        "Where the model runs; auto takes the best.",
        "Model",
        flag="--device",
    )
    torch_dtype: DtypeName = _setting(
        "auto",
        choice(*get_args(DtypeName)),
        "Number format of the weights in memory; auto takes what suits the device and the model.",
        "Model",
        flag="--dtype",
    )
    quantization: Quantization = _setting(
        "auto",
        choice(*get_args(Quantization)),
        "Weights packed to 8 or 4 bits, on a CPU; auto packs large models to 8 bits there, unless TORCH_DTYPE is set.",
        "Model",
        flag="--quant",
    )
    packed_cache_mb: int = _setting(
        20_000,
        number(Bound(0, 100_000_000, integer=True)),
        "Disk space for packed weights and quick starts of all models, in MiB; the least recently used go first; "
        "0 keeps none.",
        "Model",
    )
    kernels: Kernels = _setting(
        "auto",
        choice(*get_args(Kernels)),
        "What native code computes on a CPU: auto whole steps where it can, linears only linear layers and attention, "
        "off nothing.",
        "Model",
    )
    context_length: int | None = _setting(
        None,
        number(Bound(1, 10_000_000, integer=True)),
        "Window for prompt and reply together, in tokens; not set means what the model declares.",
        "Model",
        flag="--context-length",
    )
    kv_cache_mb: int | None = _setting(
        None,
        number(Bound(1, 100_000_000, integer=True)),
        "Memory for keys and values of all sequences, in MiB; not set means half of what is free after loading.",
        "Model",
    )
    prefix_cache: bool = _setting(
        True,
        SWITCH,
        "Keep what finished requests computed, in up to half of KV_CACHE_MB, so that a next turn reads only "
        "what is new.",
        "Model",
    )
    speculation: Speculation = _setting(
        "off",
        choice(*get_args(Speculation)),
        "Guess tokens ahead and confirm several at once; ngram looks for repetitions. Never changes the answer.",
        "Model",
    )
    draft_model: str | None = _setting(
        None,
        NAME,
        "A smaller model with the same vocabulary that guesses ahead for MODEL_ID, named like it. Never changes the "
        "answer.",
        "Model",
    )
    system_prompt: str | None = _setting(
        None, TEXT, "Instruction put before every conversation.", "Generation",
        flag="--system-prompt", secrecy="private",
    )  # fmt: skip
    max_new_tokens: int = _generation("max_new_tokens", 512, "Longest reply, in tokens.", "--max-tokens")
    do_sample: bool = _setting(
        True,
        SWITCH,
        "false always takes the most likely token: it means temperature 0, "
        "unless a stronger source sets TEMPERATURE.",
        "Generation",
    )
    temperature: float = _generation(
        "temperature",
        0.7,
        "How freely tokens are drawn; 0 always takes the most likely one.",
        "--temperature",
    )
    top_p: float = _generation(
        "top_p", 0.9, "Draw from the most likely tokens that make up this probability; 1 is off.", "--top-p"
    )
    top_k: int = _generation("top_k", 50, "Draw from this many most likely tokens; 0 is off.", "--top-k")
    min_p: float = _generation(
        "min_p", 0.0, "Drop tokens less likely than this share of the most likely one; 0 is off.", "--min-p"
    )
    typical_p: float = _generation(
        "typical_p",
        1.0,
        "Draw from the most typical tokens that make up this probability; 1 is off.",
        "--typical-p",
    )
    repetition_penalty: float = _generation(
        "repetition_penalty",
        1.0,
        "Above 1 makes tokens already used less likely; 1 is off.",
        "--repetition-penalty",
    )
    seed: int | None = _generation(
        "seed", None, "Makes sampling repeatable; not set draws a fresh seed for every request.", "--seed"
    )
    chat_enter_submits: bool = _setting(
        False,
        SWITCH,
        "In the rich chat, Enter sends and Alt+Enter begins a line; false: the other way round. A command is sent by "
        "Enter in any case.",
        "Chat",
    )
    chat_show_thinking: bool = _setting(
        False,
        SWITCH,
        "In a chat, show the model's reasoning, as --show-thinking does; false hides it.",
        "Chat",
    )
    api_host: str = _setting("127.0.0.1", HOST, "Address the API server listens on.", "Server", flag="--host")
    api_port: int = _setting(
        8000,
        number(Bound(1, 65535, integer=True)),
        "Port the API server listens on.",
        "Server",
        flag="--port",
    )
    api_keys: str | None = _setting(
        None,
        KEYS,
        "Keys that clients of the server need: KEY or admin:KEY for everything, user:KEY for all but changing models; "
        "not set means those of `llm-local keys`, and none where there are none.",
        "Server",
        flag="--api-key",
        secrecy="secret",
    )
    api_allowed_hosts: str | None = _setting(
        None,
        HOSTS,
        "Names by which clients may call the server, beside localhost, this machine's name and every IP address.",
        "Server",
    )
    api_cors_origins: str | None = _setting(
        None,
        ORIGINS,
        "Origins whose web pages may use the server, beside those of this machine, Tauri and VS Code.",
        "Server",
    )
    rate_limit: str | None = _setting(
        None,
        RATE,
        "Requests that one key may make, or one address where no key is needed; not set means any number.",
        "Server",
    )
    ollama_port: int | None = _setting(
        None,
        number(Bound(1, 65535, integer=True)),
        "A second port for programs that look for Ollama, which is at 11434; not set opens none.",
        "Server",
        flag="--ollama-port",
    )
    grace_s: float = _setting(
        30.0,
        number(Bound(0, 3600)),
        "Seconds that running answers have to finish when the server is told to stop.",
        "Server",
    )
    max_loaded_models: int = _setting(
        3,
        number(Bound(1, 1000, integer=True)),
        "Models the server holds in memory at once; who wants one more waits until one of them is idle, which then "
        "goes.",
        "Server",
    )
    model_memory_mb: int | None = _setting(
        None,
        number(Bound(1, 100_000_000, integer=True)),
        "Memory for all models of the server together, in MiB; not set means what is free.",
        "Server",
    )
    keep_alive_s: float = _setting(
        300.0,
        number(Bound(-1, 1e9)),
        "Seconds the server keeps a model that nobody uses; -1 keeps it until another needs its room, 0 not at all. "
        "MODEL_ID stays unless this is set.",
        "Server",
    )
    max_concurrent_requests: int = _setting(
        32,
        number(Bound(1, 4096, integer=True)),
        "Requests that one model of the server answers at once; the others wait in line.",
        "Server",
    )
    max_waiting_requests: int = _setting(
        256,
        number(Bound(0, 100_000, integer=True)),
        "Requests that may wait in line for one model; who comes when it is full is told to try again later.",
        "Server",
    )
    queue_timeout_s: float = _setting(
        300.0,
        number(Bound(0.001, 1e6)),
        "Longest wait in line, in seconds.",
        "Server",
    )
    response_cache_mb: int = _setting(
        0,
        number(Bound(0, 1_000_000, integer=True)),
        "Memory for replies to requests that can only have one (temperature 0, or a seed), kept and given again to who "
        "asked, in MiB; 0 keeps none.",
        "Server",
    )
    response_cache_url: str | None = _setting(
        None,
        REDIS_URL,
        "A Redis that keeps such replies instead, for a day; not set keeps them in memory. One on another machine gets "
        "their texts, so a .env cannot set it.",
        "Server",
        secrecy="secret",
    )
    offline: bool = _setting(
        False,
        SWITCH,
        "Never contact the hub; only models already on this machine.",
        "Hub",
        flag="--offline",
        aliases=("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    )
    hf_home: Path | None = _setting(
        None, DIRECTORY, "Where downloaded models are kept; not set means ~/.cache/huggingface.", "Hub"
    )
    hf_endpoint: str | None = _setting(
        None, URL, "Address of the model hub or of a mirror; not set means https://huggingface.co.", "Hub"
    )
    hf_token: str | None = _setting(
        None,
        TOKEN,
        "Access token of the hub, for gated and private models.",
        "Hub",
        aliases=("HUGGING_FACE_HUB_TOKEN",),
        secrecy="secret",
    )
    plugins: str | None = _setting(
        None,
        NAMES,
        "Plug-ins that may be loaded, by name, or `all` that are installed; not set means none. "
        "`llm-local plugins` lists them. Not read from a .env, but for that of llm-local's own checkout.",
        "Plug-ins",
    )
    log_level: LogLevel = _setting(
        "warning", choice(*get_args(LogLevel)), "Least severe log records that are shown.", "Logging"
    )


SETTINGS: Final[Mapping[str, Setting]] = {
    field.name: Setting(name=field.name, default=field.default, **field.metadata)
    for field in dataclasses.fields(Settings)
}
