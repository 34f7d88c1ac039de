"""The settings that hold, each with where it came from: one frozen object, built once by the door.

Strength: defaults < profile < `.env` < environment < flags. Fields are declared in `settings.declarations`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llm_local.errors import ConfigError
from llm_local.logs import MASK, elide, one_line, redact
from llm_local.options import GenerationOptions
from llm_local.settings.declarations import SETTINGS, Setting, Settings
from llm_local.settings.documents import env_example, settings_markdown
from llm_local.settings.sources import (
    RANK,
    Given,
    Origin,
    Source,
    find_env_file,
    from_env_file,
    from_environment,
    from_flags,
    withheld,
)
from llm_local.specs import DeviceName, EngineOptions, ModelSpec

__all__ = [
    "DEFAULT_ENV_FILE",
    "SETTINGS",
    "Config",
    "Origin",
    "Setting",
    "Source",
    "env_example",
    "load_config",
    "settings_markdown",
]

DEFAULT_ENV_FILE: Final = Path()
"""Stands for "the `.env` that `find_env_file` finds", which is decided when `load_config` is called."""

_DEFAULT_ORIGIN: Final = Origin()
_SHORTEST_SECRET: Final = 4  # a shorter one is no secret, and would mask half of every line
_SHORTEN: Final = reprlib.Repr()
_SHORTEN.maxstring = _SHORTEN.maxother = 80


@dataclass(frozen=True, repr=False)
class Config(Settings):
    """All settings. Values may be given as text; they are read, and checked, on construction.

    `origins` says where the values that are not defaults came from, `env_file` which `.env` was read, and
    `file_warnings` what looked wrong in it.

    Raises:
        ConfigError: values that are not allowed, or that contradict one another; one sentence for each.
    """

    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    env_file: Path | None = field(default=None, compare=False)
    file_warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        problems: dict[str, str] = {}
        for setting in SETTINGS.values():
            try:
                object.__setattr__(self, setting.name, setting.read(getattr(self, setting.name)))
            except ValueError:
                problems[self._key(setting.name)] = self._problem(setting)
        if not problems and not self.use_gpu and self.device_map not in ("auto", "cpu"):
            problems[self._key("device_map")] = (
                f"{self._said('device_map')}, but {self._said('use_gpu')}; change one of the two."
            )
        if problems:
            raise ConfigError(" ".join(problems.values()), param=next(iter(problems)))

    def __repr__(self) -> str:
        changed = (name for name, setting in SETTINGS.items() if getattr(self, name) != setting.default)
        return f"Config({', '.join(f'{name}={self.shown(name)}' for name in changed)})"

    def origin(self, name: str) -> Origin:
        """Where the value of a field came from, in full."""
        return self.origins.get(name, _DEFAULT_ORIGIN)

    def source(self, name: str) -> Source:
        """Where the value of a field came from: default, profile, .env, environment or flag."""
        return self.origin(name).source

    def is_explicit(self, name: str) -> bool:
        """True when the user chose the value: it is neither a default nor a profile's."""
        return self.source(name) not in ("default", "profile")

    def with_profile(self, values: Mapping[str, Any]) -> Config:
        """A copy in which `values` (by field name) replace defaults, and only defaults.

        Raises:
            ConfigError: a name that is no setting, or a value that is not allowed.
        """
        for name in values:
            if name not in SETTINGS:
                raise ConfigError(f"A profile cannot set {name!r}, which is no setting.", param=name)
        origin = Origin("profile", "", "the model's profile")
        taken = {name: value for name, value in values.items() if self.source(name) == "default"}
        return dataclasses.replace(self, **taken, origins={**self.origins, **dict.fromkeys(taken, origin)})

    def generation_options(self) -> GenerationOptions:
        """The settings of section Generation, ready for the generator.

        DO_SAMPLE=false is a way to say temperature 0, so a temperature from a stronger source beats it.
        """
        stronger = RANK[self.source("temperature")] > RANK[self.source("do_sample")]
        return GenerationOptions(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature if self.do_sample or stronger else 0.0,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    def get_device(self) -> DeviceName:
        """The device asked for. "auto" is resolved by the loader, which can see the machine."""
        return self.device_map if self.use_gpu else "cpu"

    def model_spec(self) -> ModelSpec:
        """Which model to load, and how."""
        return ModelSpec(
            ref=self.model_id,
            dtype=self.torch_dtype,
            device=self.get_device(),
            quantization=self.quantization,
            context_length=self.context_length,
            packed_cache_bytes=self.packed_cache_mb << 20,
            kernels=self.kernels,
        )

    def draft_spec(self) -> ModelSpec | None:
        """The model that guesses ahead, where there is one."""
        return (
            None if self.draft_model is None else dataclasses.replace(self.model_spec(), ref=self.draft_model)
        )

    def engine_options(self) -> EngineOptions:
        """How the engine works: its memory beside the weights, what it keeps and guesses."""
        kv_cache_bytes = None if self.kv_cache_mb is None else self.kv_cache_mb * 2**20
        return EngineOptions(
            kv_cache_bytes=kv_cache_bytes,
            prefix_cache=self.prefix_cache,
            speculation=self.speculation,
            kernels=self.kernels,
        )

    def hub_environment(self) -> dict[str, str]:
        """Variables the hub library reads when it is imported; a door puts them into `os.environ` before that.

        Holds only what was set. The token is blanked where it must not follow the endpoint (see `warnings`).
        """
        variables = {}
        if self.hf_home is not None:
            variables["HF_HOME"] = str(self.hf_home)
        if self.hf_endpoint is not None:
            variables["HF_ENDPOINT"] = self.hf_endpoint
        if self.hf_token is not None:
            variables["HF_TOKEN"] = "" if self._token_withheld else self.hf_token
        if self._token_withheld:
            variables["HUGGING_FACE_HUB_TOKEN"] = ""
        if self.source("offline") != "default":
            variables["HF_HUB_OFFLINE"] = str(int(self.offline))
        return variables

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about these settings, one line each."""
        if not self._token_withheld:
            return self.file_warnings
        return (
            *self.file_warnings,
            f"HF_TOKEN (from {self.origin('hf_token')}) is not used, because HF_ENDPOINT comes from "
            f"{self.origin('hf_endpoint')}; set both in the same place.",
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values, for a log that must never contain them. Of several keys in one, each by itself."""
        values = (getattr(self, name) for name, setting in SETTINGS.items() if setting.secrecy == "secret")
        parts = (part for value in values if value for part in re.split(r"[,\s]+|\b(?:admin|user):", value))
        return tuple(part for part in parts if len(part) >= _SHORTEST_SECRET)

    def shown(self, name: str) -> str:
        """The value of a field as text for a log or a screen: secrets masked, private text elided."""
        setting, value = SETTINGS[name], getattr(self, name)
        if value is None:
            return ""
        if setting.secrecy == "secret":
            return MASK
        if setting.secrecy == "private":
            return elide(value)
        return redact(one_line(str(value).lower() if isinstance(value, bool) else str(value)))

    def summary(self) -> str:
        """All settings as an aligned table of key, value and source; nothing secret in it."""
        rows = [(setting.env, self.shown(name), str(self.origin(name))) for name, setting in SETTINGS.items()]
        wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{key:<{wide[0]}}  {value:<{wide[1]}}  {origin}" for key, value, origin in rows)

    @property
    def _token_withheld(self) -> bool:
        """A `.env` may lie in a directory somebody else made: it must not decide who gets the user's own token."""
        same_place = self.source("hf_token") == self.source("hf_endpoint")
        return self.hf_token is not None and self.source("hf_endpoint") == ".env" and not same_place

    def _key(self, name: str) -> str:
        return self.origin(name).key or SETTINGS[name].env

    def _said(self, name: str) -> str:
        return f"{self._key(name)} is {self.shown(name)} (from {self.origin(name)})"

    def _problem(self, setting: Setting) -> str:
        key, origin, must = (
            self._key(setting.name),
            self.origin(setting.name),
            f"must be {setting.kind.allowed}",
        )
        if setting.secrecy != "public":
            return f"{key} (from {origin}, value not shown) {must}."
        return f"{key} is {redact(_SHORTEN.repr(getattr(self, setting.name)))} (from {origin}), but {must}."


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = DEFAULT_ENV_FILE,
) -> Config:
    """Build the settings from everywhere.

    - `flags`: values by field name; None and UNSET mean "not given".
    - `environ`: the environment; this process's own by default.
    - `env_file`: the `.env` to read; None reads none. One that is found, as by default, does not decide which code
      runs: PLUGINS in it is not used, and a warning says so.

    Raises:
        ConfigError: a value that is not allowed, an unknown flag, or a `.env` that cannot be read.
    """
    path = find_env_file() if env_file is DEFAULT_ENV_FILE else env_file
    collected: dict[str, Given] = {}
    file_warnings: tuple[str, ...] = ()
    if path is not None:
        collected, file_warnings = from_env_file(path)
    stronger = from_environment(os.environ if environ is None else environ) | from_flags(flags or {})
    if path is not None and env_file is DEFAULT_ENV_FILE:
        for name in withheld(collected, path):
            given = collected.pop(name)
            if name not in stronger:
                file_warnings += (_withheld_warning(given.origin),)
    collected |= stronger
    values: dict[str, Any] = {name: entry.value for name, entry in collected.items()}
    origins = {name: entry.origin for name, entry in collected.items()}
    return Config(**values, origins=origins, env_file=path, file_warnings=file_warnings)


def _withheld_warning(origin: Origin) -> str:
    return (
        f"{origin.key} (from {origin}) is not used, because a .env does not decide which code runs; set it in the "
        "environment."
    )
