"""The settings, and what they let out of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from llm_local.cli.checks.check import Check
from llm_local.config import SETTINGS, Config
from llm_local.errors import ConfigError, HubUnavailable
from llm_local.privacy import PRIVACY_DEFAULTS
from llm_local.store.endpoint import hub_endpoint, is_offline, loggable, origin

__all__ = ["check_privacy", "check_settings"]

_ON = ("1", "true", "yes", "on")


def check_settings(config: Config) -> Iterator[Check]:
    """Where the settings come from, and what is odd about them."""
    changed = [
        f"{setting.env} from {config.origin(name)}"
        for name, setting in SETTINGS.items()
        if config.is_explicit(name)
    ]
    yield Check("settings", ", ".join(changed) or "all defaults")
    for warning in config.warnings:
        yield Check("settings", warning, "warn", "`llm-local config` shows what holds.")
    yield Check("device", config.get_device())
    yield Check("quantization", config.quantization)


def check_privacy(config: Config, environ: Mapping[str, str] | None = None) -> Iterator[Check]:
    """The hub, who may hear of us, and who may run code of theirs."""
    env = os.environ if environ is None else environ
    yield _hub(config)
    if config.hf_token is not None:
        yield Check("hub token", f"from {config.origin('hf_token')}, sent to the hub alone")
    proxies = sorted(name for name in env if name.lower() in ("https_proxy", "http_proxy", "all_proxy"))
    if proxies and not config.offline:
        yield Check("proxy", ", ".join(f"{name}: {_host(env[name])}" for name in proxies))
    switched = [name for name in PRIVACY_DEFAULTS if env.get(name, PRIVACY_DEFAULTS[name]).lower() not in _ON]
    if switched:
        told = ", ".join(f"{name}={env[name]}" for name in switched)
        yield Check("telemetry", f"of the libraries, not switched off: {told}", "warn", "Unset it.")
    else:
        yield Check(
            "telemetry", f"ours: there is none; of the libraries: off ({', '.join(PRIVACY_DEFAULTS)})"
        )
    yield Check("plug-ins", config.plugins or "none may be loaded")


def _hub(config: Config) -> Check:
    if config.offline or is_offline():
        who = config.origin("offline") if config.offline else "the environment"
        return Check("hub", f"off (offline, by {who})")
    try:
        where = loggable(config.hf_endpoint or hub_endpoint())
    except (ConfigError, HubUnavailable) as error:
        return Check("hub", error.message, "fail", error.hint or "Mend HF_ENDPOINT.")
    return Check("hub", f"{where}, asked only for models that are not on this disk")


def _host(address: str) -> str:
    """Scheme, host and port of a proxy, whose address may hold a password."""
    try:
        where = origin(address if "//" in address else f"http://{address}")
    except HubUnavailable:
        return "an address that makes no sense"
    return f"{where.scheme}://{where.host}:{where.port}"
