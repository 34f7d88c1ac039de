"""`llm-local config`: the settings that hold, and where each came from."""

from __future__ import annotations

import argparse
import json
import os
import re
from typing import Any, Final

from llm_local.config import SETTINGS, Config, load_config
from llm_local.terminal.streams import STDOUT, AnswerWriter, Messages

__all__ = ["add_flags", "as_object", "env_lines", "run"]

_BARE: Final = re.compile(r"[\w./:@%+*-]*", re.ASCII)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the settings: a table on a terminal, `KEY=value  # source` lines in a pipe, or JSON.

    Raises:
        ConfigError: a setting cannot be used.
        StorageError: stdout refused.
    """
    config = load_config()
    for warning in config.warnings:
        messages.note(f"warning: {warning}")
    if args.json:
        text = json.dumps(as_object(config), indent=2)
    else:
        text = config.summary() if os.isatty(STDOUT) else env_lines(config)
    answer.write(text + "\n")


def as_object(config: Config) -> dict[str, Any]:
    """For programs. Secrets are masked; a value that is not set is null."""
    settings = {
        setting.env: {
            "value": _value(config, name),
            "source": config.source(name),
            "from": str(config.origin(name)),
        }
        for name, setting in SETTINGS.items()
    }
    env_file = None if config.env_file is None else str(config.env_file)
    return {"settings": settings, "env_file": env_file, "warnings": list(config.warnings)}


def env_lines(config: Config) -> str:
    """One line per setting, in the syntax of `.env`, with the source as a comment; a masked secret is all comment."""
    return "\n".join(
        f"{'# ' if setting.secrecy == 'secret' and getattr(config, name) else ''}"
        f"{setting.env}={_quoted(_value(config, name))}  # {config.origin(name)}"
        for name, setting in SETTINGS.items()
    )


def _value(config: Config, name: str) -> str | int | float | bool | None:
    """The value in full, as JSON knows it; of a secret, the mask."""
    value = getattr(config, name)
    if SETTINGS[name].secrecy == "private" or isinstance(value, (bool, int, float)):
        return value
    return config.shown(name) or None


def _quoted(value: str | int | float | bool | None) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else f'"{text.translate(_ESCAPES)}"'
