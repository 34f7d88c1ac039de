"""Reading text: what each kind takes, what it refuses, and that it takes its own typed values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from llm_local.options import Bound
from llm_local.settings.kinds import DIRECTORY, HOST, NAME, SWITCH, TEXT, TOKEN, URL, Kind, choice, number

WHOLE = number(Bound(1, 65535, integer=True))
REAL = number(Bound(0.0, 2.0))
WORD = choice("auto", "cpu")

GOOD: list[tuple[Kind, object, object]] = [
    *((SWITCH, word, True) for word in ("1", "true", "YES", " on ", "True", True)),
    *((SWITCH, word, False) for word in ("0", "false", "No", "off", False)),
    *((WHOLE, text, 8080) for text in ("8080", " 8080 ", "+8080", "08080", 8080)),
    *((REAL, text, 0.5) for text in ("0.5", ".5", "5e-1", "+0.50", " 0.5\t", 0.5)),
    (REAL, "2", 2.0),
    (REAL, 2, 2.0),
    (WORD, "CPU", "cpu"),
    (WORD, " Auto ", "auto"),
    (TEXT, " keeps its spaces ", " keeps its spaces "),
    (TEXT, "", ""),
    (NAME, " org/name ", "org/name"),
    (DIRECTORY, "models/here", Path("models/here")),
    (DIRECTORY, Path("/models"), Path("/models")),
    (HOST, "127.0.0.1", "127.0.0.1"),
    (HOST, "::1", "::1"),
    (HOST, "my-box.local", "my-box.local"),
    (URL, "https://hub.example/hf", "https://hub.example/hf"),
    (URL, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    (TOKEN, "hf_abcDEF123", "hf_abcDEF123"),
    (TOKEN, "eyJh.eyJz-_~+/==", "eyJh.eyJz-_~+/=="),
]
BAD: list[tuple[Kind, object]] = [
    *((SWITCH, raw) for raw in ("2", "y", "t", "enabled", "", 1, 0, None, 1.0)),
    *(
        (WHOLE, raw)
        for raw in ("0", "65536", "80.0", "8_0", "0x50", "1e3", "٣", "", "9" * 5000, True, 80.0, None)
    ),
    *((REAL, raw) for raw in ("hot", "nan", "inf", "-0.1", "2.1", "0,7", "1_0.0", "1e999", "", True, None)),
    *((REAL, raw) for raw in (math.nan, math.inf, 10**400, [1.0])),
    *((WORD, raw) for raw in ("gpu", "", "auto,cpu", None, 1)),
    *((TEXT, raw) for raw in (b"bytes", None, "half a pair \ud800", "\udcff")),
    *((NAME, raw) for raw in ("", "  ", None, "\udcff")),
    *((DIRECTORY, raw) for raw in ("", "~nobody-has-this-name/x", 1)),
    *((HOST, raw) for raw in ("", "a b", "http://x", "x/y", None)),
    *(
        (URL, raw)
        for raw in ("hub.example", "ftp://hub", "https://", "https:///path", "https://a b", "javascript:x")
    ),
    *((TOKEN, raw) for raw in ("", "two words", "line\nbreak", "***", "'quoted'", "schlüssel", None)),
]


@pytest.mark.parametrize(("kind", "raw", "value"), GOOD, ids=repr)
def test_what_is_allowed_is_read(kind: Kind, raw: object, value: Any) -> None:
    read = kind.read(raw)
    assert read == value
    assert type(read) is type(value)
    assert kind.read(read) == value, "a value that was read can be read again"


@pytest.mark.parametrize(("kind", "raw"), BAD, ids=lambda part: repr(part)[:40])
def test_what_is_not_allowed_is_refused(kind: Kind, raw: object) -> None:
    with pytest.raises(ValueError):
        kind.read(raw)


def test_a_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert DIRECTORY.read("~/models") == Path("/home/ada/models")


def test_words_for_what_is_allowed() -> None:
    assert WHOLE.allowed == "an integer from 1 to 65535"
    assert REAL.allowed == "a number from 0 to 2"
    assert WORD.allowed == "one of auto, cpu"
