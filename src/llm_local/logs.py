"""Structured logging to stderr: one record is one line, with a request id, and without secrets.

Law: text of prompts and replies is logged at DEBUG only. Where a record above DEBUG must mention such a text,
it logs `elide(text)`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

__all__ = [
    "MASK",
    "adopt_library_logs",
    "configure_logging",
    "current_request_id",
    "elide",
    "one_line",
    "redact",
    "request_scope",
]

MASK: Final = "***"
_NOISY_LIBRARIES: Final = (
    "accelerate", "filelock", "hf_xet", "httpcore", "httpx", "httpx2", "huggingface_hub", "py.warnings",
    "torch", "transformers", "urllib3",
)  # fmt: skip

_request_id: ContextVar[str] = ContextVar("request_id", default="")

# Line breaks of every kind, terminal escapes, marks that reorder text, and halves of surrogate pairs.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRETS: Final = (
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), MASK),
    (re.compile(r"\bsk-[\w-]{8,}"), MASK),
    # After the name of a header any value is secret; elsewhere "basic" and "bearer" are also plain words.
    (re.compile(r"(?i)\b(authorization\W{1,4})(?:(?:bearer|basic)\s+)?[\w.~+/=-]+"), rf"\1{MASK}"),
    (re.compile(r"\b((?i:bearer|basic))\s+(?=\S*[\dA-Z])[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (
        re.compile(
            r"(?i)\b((?:hf_|access_|refresh_|auth_)?token|(?:x-)?api[-_]?key|password|passwd|secret)"
            r"(\"?'?\s*[=:]\s*)(?!\d+\b)[\"']?[^\s\"',;&]+"
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), MASK),
)
# Without one of these none of the above is in a text: one quick look instead of six, at every field of every record.
_SUSPICIOUS: Final = re.compile(r"(?i)hf_|sk-|authorization|bearer|basic|token|key|passw|secret|://")
_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


def one_line(text: str) -> str:
    """`text` with every control character spelled out (`\\n`, `\\x1b`), so that it is one harmless line."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without anything that looks like a token, key or password, and without the given `secrets`."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def elide(text: str) -> str:
    """What may be said above DEBUG about a text that belongs to the user: its length in characters."""
    return f"<{len(text)} characters>"


def current_request_id() -> str:
    """The id of the request this code runs for, or ""."""
    return _request_id.get()


@contextmanager
def request_scope(request_id: str | None = None) -> Iterator[str]:
    """Give every record logged inside a request id (a fresh one by default), also across `await`."""
    token = _request_id.set(request_id or os.urandom(16).hex())
    try:
        yield _request_id.get()
    finally:
        _request_id.reset(token)


class _LineFormatter(logging.Formatter):
    """For people: time, level, logger, message, fields, request id; then the traceback, on the same line."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        entry = self._entry(record)
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        parts = [when, entry.pop("level"), f"{entry.pop('logger')}:", entry.pop("message")]
        entry.pop("time")
        return " ".join(parts + [f"{name}={value}" for name, value in entry.items()])

    def _entry(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record as clean values: what every format of a record is made of."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(record.getMessage()),
        }
        if current_request_id():
            entry["request_id"] = self._clean(current_request_id())
        for name, value in record.__dict__.items():
            if name not in _STANDARD_ATTRIBUTES:
                plain = value is None or isinstance(value, (bool, int, float))
                entry[name] = value if plain else self._clean(str(value))
        if record.exc_info:
            entry["exception"] = self._clean(self.formatException(record.exc_info))
        return entry

    def _clean(self, text: str) -> str:
        return one_line(redact(text, self._secrets))


class _JsonFormatter(_LineFormatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self._entry(record))


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring twice replaces it and leaves the handlers of others alone."""


def configure_logging(
    level: str, *, json_lines: bool = False, stream: TextIO | None = None, secrets: Sequence[str] = ()
) -> None:
    """Send the records of the whole process to stderr (or `stream`), one line each.

    `level` is a LOG_LEVEL word; `secrets` are texts that never appear. Libraries that talk a lot are silent below
    ERROR unless `level` is debug. Call it before they are imported: some read the environment on import.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter((_JsonFormatter if json_lines else _LineFormatter)(secrets))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    library_level = "debug" if level == "debug" else "critical" if level == "critical" else "error"
    for name in _NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(library_level.upper())
    adopt_library_logs()
    # These two set their own level on import, from the environment.
    os.environ["TRANSFORMERS_VERBOSITY"] = library_level
    os.environ["HF_HUB_VERBOSITY"] = library_level


def adopt_library_logs() -> None:
    """Take away the handlers that libraries give themselves on import, which write past our format and redaction.

    Called once more after the import of a library that does so.
    """
    for name in _NOISY_LIBRARIES:
        library = logging.getLogger(name)
        for handler in list(library.handlers):
            library.removeHandler(handler)
        library.propagate = True
