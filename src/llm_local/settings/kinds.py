"""Kinds of values a setting can have: how one is read, and how what is allowed is said to a person."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_local.options import Bound

__all__ = [
    "DIRECTORY",
    "HOST",
    "HOSTS",
    "KEYS",
    "NAME",
    "NAMES",
    "ORIGINS",
    "RATE",
    "REDIS_URL",
    "SWITCH",
    "TEXT",
    "TOKEN",
    "URL",
    "Kind",
    "choice",
    "number",
]

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(
    r"[+-]?\d{1,30}", re.ASCII
)  # 30 digits: past every bound, far from int()'s own limit
_SWITCH_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`allowed` completes the sentence "must be ..."; `read` takes text or a typed value, or raises ValueError."""

    allowed: str
    read: Callable[[object], Any]


def number(bound: Bound) -> Kind:
    """A number inside `bound`: an int where the bound is of integers, else a float."""

    def read(raw: object) -> int | float:
        value = raw
        if isinstance(raw, str) and (_INTEGER if bound.integer else _NUMBER).fullmatch(raw.strip()):
            value = int(raw) if bound.integer else float(raw)
        if not isinstance(value, (int, float)) or not bound.allows(value):
            raise ValueError(raw)
        return value if bound.integer else float(value)

    return Kind(str(bound), read)


def choice(*words: str) -> Kind:
    """One of some lower-case words, read in any case."""

    def read(raw: object) -> str:
        word = raw.strip().lower() if isinstance(raw, str) else ""
        if word not in words:
            raise ValueError(raw)
        return word

    return Kind(f"one of {', '.join(words)}", read)


def _read_switch(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    value = _SWITCH_WORDS.get(raw.strip().lower()) if isinstance(raw, str) else None
    if value is None:
        raise ValueError(raw)
    return value


def _read_text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(raw)
    raw.encode(
        "utf-8"
    )  # an environment variable that is not UTF-8 arrives as lone surrogates, which this refuses
    return raw


def _read_name(raw: object) -> str:
    text = _read_text(raw).strip()
    if not text:
        raise ValueError(raw)
    return text


def _read_directory(raw: object) -> Path:
    path = raw if isinstance(raw, Path) else Path(_read_name(raw))
    try:
        return path.expanduser()
    except RuntimeError as error:  # `~somebody` who does not exist
        raise ValueError(raw) from error


def _matching(pattern: str, allowed: str) -> Kind:
    """Text that matches the whole of `pattern`, spaces around it dropped."""
    compiled = re.compile(pattern, re.ASCII)

    def read(raw: object) -> str:
        text = raw.strip() if isinstance(raw, str) else ""
        if not compiled.fullmatch(text):
            raise ValueError(raw)
        return text

    return Kind(allowed, read)


SWITCH: Final = Kind("true or false (also yes, no, on, off, 1, 0)", _read_switch)
TEXT: Final = Kind("UTF-8 text", _read_text)
NAME: Final = Kind("a name or a path", _read_name)
DIRECTORY: Final = Kind("the path of a directory", _read_directory)
HOST: Final = _matching(r"[\w.:%-]+", "a host name or an IP address")
URL: Final = _matching(r"https?://[^\s/?#]+[^\s]*", "a URL that starts with https:// or http://")
NAMES: Final = _matching(r"[\w.-]+(\s*,\s*[\w.-]+)*", "names with commas between")
# RFC 6750 section 2.1: whatever can stand behind "Bearer"; keeps line breaks out of a request's header.
TOKEN: Final = _matching(r"[\w.~+/-]+=*", "one access token, without spaces or quotes")
KEYS: Final = _matching(r"[!-~]+(\s*,\s*[!-~]+)*", "keys without spaces, with commas between")
HOSTS: Final = _matching(
    r"(\*|(\*\.)?[\w.-]+)(\s*,\s*(\*|(\*\.)?[\w.-]+))*", "host names with commas between, *.example.com, or *"
)
_ORIGIN: Final = r"(\*|[a-z][a-z0-9+.-]*://[^\s,/]+)"
ORIGINS: Final = _matching(
    rf"{_ORIGIN}(\s*,\s*{_ORIGIN})*", "origins such as https://chat.example.com with commas between, or *"
)
REDIS_URL: Final = _matching(
    r"rediss?://([^\s/?#@]*@)?([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/\d{1,4})?|unix:///[^\s?#]+",
    "redis://host:port/number, rediss:// for TLS, or unix:///path of a socket",
)
RATE: Final = _matching(r"[1-9]\d{0,8}/(second|minute|hour|day)", "a number per time, such as 60/minute")
