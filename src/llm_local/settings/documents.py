"""`.env.example` and `docs/settings.md`, made from the declarations so that they cannot lie."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from llm_local.settings.declarations import SETTINGS, Setting

__all__ = ["env_example", "settings_markdown"]

_ENV_HEADER: Final = """\
# Settings of llm-local. Copy this file to `.env` and remove the `#` in front of what you want to change.
# Stronger than this file: environment variables, then command-line flags. `llm-local config` shows what holds.
# Made by `scripts/generate_docs.py`; do not edit.
"""

_PAGE_HEADER: Final = """\
# Settings

<!-- Made by `scripts/generate_docs.py` from `src/llm_local/settings/declarations.py`; do not edit. -->

Every setting has a default, so nothing needs to be set. A value comes from the strongest of these places:

1. a command-line flag,
2. an environment variable,
3. the file `.env`,
4. the profile of the model (what its makers recommend),
5. the default.

An empty value counts as not set. A value that is not allowed stops the program with exit code 2 and one line that
names the key, the value, where it came from, and what is allowed.

## The file `.env`

llm-local reads one file: `.env` in the current directory or, when there is none and llm-local runs from a checkout of
its repository, `.env` at the top of that checkout. `.env.example` lists every key. The file is UTF-8 text with one
`KEY=value` per line; `export`, quotes and `#` comments are understood; `${NAME}` is not expanded. Keys of other
programs are left alone; a key that looks like a misspelled setting is reported.

Since `.env` belongs to a directory, and not to you, an access token from your environment is never sent to a hub whose
address (`HF_ENDPOINT`) comes from `.env`: put both in the same place. Nor does it decide which code runs: `PLUGINS` in
a `.env` is not used, and one line says so, unless it is the one at the top of the checkout that llm-local runs from.
No setting can allow code of a model to run.

## `llm-local config`

`llm-local config` prints the settings that hold in the current directory and where each came from: a table on a
terminal, `KEY=value  # source` lines (the syntax of `.env`) in a pipe, and one object with `--json`. Access tokens are
always masked; the system prompt is printed in full except in the table, which shows its length.

## All settings
"""


def env_example() -> str:
    """The text of `.env.example`: every setting, commented out, with its help and what is allowed."""
    parts = [_ENV_HEADER]
    for section, settings in groupby(SETTINGS.values(), key=lambda setting: setting.section):
        parts.append(f"\n# --- {section} ---\n")
        parts += [
            f"\n# {_plain(setting.help)}\n# Allowed: {setting.kind.allowed}.\n#{setting.env}={_default(setting)}\n"
            for setting in settings
        ]
    return "".join(parts)


def settings_markdown() -> str:
    """The text of `docs/settings.md`: how settings are found, and a table of them per section."""
    parts = [_PAGE_HEADER]
    for section, settings in groupby(SETTINGS.values(), key=lambda setting: setting.section):
        parts.append(
            f"\n### {section}\n\n| key | flag | default | allowed | meaning |\n|---|---|---|---|---|\n"
        )
        parts += [_row(setting) for setting in settings]
    return "".join(parts)


def _row(setting: Setting) -> str:
    flag = f"`{setting.flag}`" if setting.flag else ""
    default = f"`{_default(setting)}`" if _default(setting) else "not set"
    meaning = setting.help
    if setting.aliases:
        meaning += f" Also read from {' and '.join(f'`{alias}`' for alias in setting.aliases)}."
    return f"| `{setting.env}` | {flag} | {default} | {setting.kind.allowed} | {meaning} |\n"


def _default(setting: Setting) -> str:
    if setting.default is None:
        return ""
    return str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")
