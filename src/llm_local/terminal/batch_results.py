"""The file a batch writes its results to, and finds again what it had answered."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from llm_local.errors import Busy, InvalidRequest, StorageError
from llm_local.locks import try_lock
from llm_local.terminal.batch_lines import BatchLine
from llm_local.terminal.sanitize import replace_surrogates

__all__ = ["ResultFile"]

_ANOTHER = "Give another --output."


class ResultFile:
    """One JSON object a line, for the first lines of the input that have an answer, in their order.

    It is locked while it is open, and appended to: a kill leaves at most the last line torn. What is there is only
    ever changed when all of it is known to be results of this very input.

    Raises (from the constructor):
        InvalidRequest: it is no file, is the input itself, or holds something else than results of this batch.
        StorageError: it cannot be opened or read.
        Busy: another run is writing it.
    """

    def __init__(
        self, path: str, lines: Sequence[BatchLine], settings_digest: str, *, source: os.stat_result
    ) -> None:
        self.path = path
        self.models: set[str] = set()
        """The models that answered what is there."""
        self.failed: list[int] = []
        """The numbers of the lines that have an error as their result."""
        self.done = 0
        """How many lines of the input have a result."""
        self.repaired = False
        """True when the last result was torn and had to go."""
        self._descriptor = self._open()
        try:
            self._hold(source)
            self._find(lines, settings_digest)
        except BaseException:
            self.close()
            raise

    def write(self, text: str) -> None:
        """Append.

        Raises:
            StorageError: the disk refused.
        """
        rest = memoryview(replace_surrogates(text).encode("utf-8"))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            hint = "Make room, and run again with the same --output to go on."
            raise StorageError(f"Cannot write {self.path}: {error.strerror}.", hint) from error

    def close(self) -> None:
        """Close, and let others have it."""
        os.close(self._descriptor)

    def _open(self) -> int:
        # not blocking: a pipe under that name would wait for a reader
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self.path, flags, 0o666)
        except (IsADirectoryError, FileNotFoundError, NotADirectoryError) as error:
            raise InvalidRequest(
                f"--output {self.path} cannot be a file: {error.strerror}.", param="output"
            ) from None
        except OSError as error:
            raise StorageError(f"Cannot open {self.path}: {error.strerror}.") from error

    def _hold(self, source: os.stat_result) -> None:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"--output {self.path} is no file.", "Without it, stdout is used.")
        if os.path.samestat(status, source):
            raise InvalidRequest(f"--output {self.path} is the input.", _ANOTHER, param="output")
        try:
            alone = try_lock(self._descriptor)
        except OSError as error:
            hint = "Choose a place for --output whose file system has locks."
            raise StorageError(f"Cannot lock {self.path}: {error.strerror}.", hint) from error
        if not alone:
            raise Busy(f"Another run is writing {self.path}.", "Wait for its end.")

    def _find(self, lines: Sequence[BatchLine], settings_digest: str) -> None:
        """Read what is there, and drop a torn end."""
        try:
            with open(self._descriptor, "rb", closefd=False) as file:
                data = file.read()
        except OSError as error:
            raise StorageError(f"Cannot read {self.path}: {error.strerror}.") from error
        whole, newline, torn = data.rpartition(b"\n")
        results = whole.split(b"\n") if newline else []
        if len(results) > len(lines):
            raise InvalidRequest(
                f"{self.path} has {len(results)} lines, but the input asks {len(lines)}.",
                _ANOTHER,
                param="output",
            )
        for place, (result, line) in enumerate(zip(results, lines, strict=False), 1):
            self._check(place, result, line, settings_digest)
        self.done = len(results)
        if torn:
            following = lines[self.done].number if self.done < len(lines) else 0
            begin = f'{{"line": {following}, '.encode()
            if not begin.startswith(torn[: len(begin)]):
                raise self._foreign(self.done + 1)
            os.ftruncate(self._descriptor, len(whole) + len(newline))
            self.repaired = True

    def _check(self, place: int, data: bytes, line: BatchLine, settings_digest: str) -> None:
        """Is this the result of that line?"""
        try:
            result: dict[str, Any] = json.loads(data)
            found = (result["line"], result["line_digest"], result["settings_digest"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._foreign(place) from None
        if found[:2] != (line.number, line.digest):
            raise InvalidRequest(
                f"Line {line.number} of the input is not the one that line {place} of {self.path} answers.",
                f"It was edited since. {_ANOTHER}",
                param="output",
            )
        if found[2] != settings_digest:
            raise InvalidRequest(
                f"{self.path} was made with another model or other settings.",
                f"Take the same ones to go on. {_ANOTHER}",
                param="output",
            )
        if "error" in result:
            self.failed.append(line.number)
        elif "model" in result:
            self.models.add(str(result["model"]))

    def _foreign(self, place: int) -> InvalidRequest:
        return InvalidRequest(
            f"Line {place} of {self.path} is no result of a batch.", _ANOTHER, param="output"
        )
