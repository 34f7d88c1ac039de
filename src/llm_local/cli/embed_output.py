"""Where the vectors of `llm-local embed` go, and in which form."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm_local.cli.embed_input import InputText
from llm_local.errors import InvalidRequest, StorageError
from llm_local.terminal.sanitize import replace_surrogates
from llm_local.terminal.streams import AnswerWriter

if TYPE_CHECKING:
    from llm_local.embedder import Embedding

__all__ = ["FORMATS", "VectorWriter", "check_output", "make_writer", "vector_json"]

FORMATS: Final = ("jsonl", "json", "npy")


class _Target(Protocol):
    """Takes the output piece by piece."""

    def write(self, data: str | bytes) -> None:
        """Send or store it at once."""


def check_output(path: str | None, stdin: int) -> None:
    """Refuse an output that cannot be, before a model is loaded for it.

    Raises:
        InvalidRequest: it is a folder, lies in none, or is the input itself.
        StorageError: its folder cannot be written to.
    """
    if path is None:
        return
    place = Path(path)
    if place.is_dir():
        raise InvalidRequest(f"--output {path} is a directory.", "Name a file.", param="output")
    if not place.absolute().parent.is_dir():
        raise InvalidRequest(f"--output {path} lies in no directory.", "Make it first.", param="output")
    if place.is_file():
        if os.path.samestat(place.stat(), os.fstat(stdin)):
            raise InvalidRequest(f"--output {path} is the input.", "Give another --output.", param="output")
        writable = os.access(place, os.W_OK)
    else:
        writable = os.access(place.absolute().parent, os.W_OK)
    if not writable:
        raise StorageError(f"Cannot write {path}: permission denied.")


class _Stdout:
    """Standard output, as every verb has it."""

    def __init__(self, answer: AnswerWriter) -> None:
        self._answer = answer

    def write(self, data: str | bytes) -> None:
        if isinstance(data, str):
            self._answer.write(data)
        else:
            self._answer.write_bytes(data)


class _File:
    """A file that is written as it comes, or, where only the whole is of use, appears when it is whole."""

    def __init__(self, path: str, *, at_once: bool) -> None:
        self._path = Path(path)
        regular = not self._path.exists() or stat.S_ISREG(self._path.stat().st_mode)
        self._fresh = (
            None if at_once or not regular else self._path.with_name(f".{self._path.name}.{os.getpid()}")
        )
        try:
            self._descriptor = os.open(
                self._fresh or self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            raise StorageError(f"Cannot open {path}: {error.strerror}.") from error

    def write(self, data: str | bytes) -> None:
        rest = memoryview(data.encode() if isinstance(data, str) else data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise StorageError(f"Cannot write {self._path}: {error.strerror}.", "Make room.") from error

    def close(self, *, whole: bool) -> None:
        os.close(self._descriptor)
        if self._fresh is None:
            return
        if whole:
            self._fresh.replace(self._path)
        else:
            self._fresh.unlink(missing_ok=True)


class VectorWriter:
    """Writes vectors in one form. Use it as `with`: what is only of use as a whole is kept only when `finish` came."""

    keeps_part: bool = False
    """True when what is written so far is of use if the rest never comes."""

    def __init__(self, answer: AnswerWriter, path: str | None) -> None:
        self._file = None if path is None else _File(path, at_once=self.keeps_part)
        self._target: _Target = _Stdout(answer) if self._file is None else self._file
        self._whole = False

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close(whole=self._whole)

    def begin(self, num_texts: int, dimensions: int) -> None:
        """So many vectors of so many numbers will come."""

    def add(self, given: InputText, found: Embedding) -> None:
        """The vector of the next text."""
        raise NotImplementedError

    def finish(self, summary: dict[str, Any]) -> None:
        """All vectors have come; `summary` is about all of them."""
        self._whole = True


class _JsonLines(VectorWriter):
    """One JSON object a line, each as soon as it is there."""

    keeps_part = True

    def add(self, given: InputText, found: Embedding) -> None:
        self._target.write(_entry(given, found) + "\n")


class _Json(VectorWriter):
    """One JSON object with everything."""

    def __init__(self, answer: AnswerWriter, path: str | None) -> None:
        super().__init__(answer, path)
        self._entries: list[str] = []

    def add(self, given: InputText, found: Embedding) -> None:
        self._entries.append(_entry(given, found))

    def finish(self, summary: dict[str, Any]) -> None:
        rest = _dumped(summary)[1:]
        self._target.write(f'{{"data": [{", ".join(self._entries)}], {rest}\n')
        super().finish(summary)


class _Npy(VectorWriter):
    """A NumPy file of float32 [texts, dimensions]."""

    def begin(self, num_texts: int, dimensions: int) -> None:
        # Late: who asks for help needs no numpy; who has vectors has it already.
        from numpy.lib import format as npy

        header = io.BytesIO()
        npy.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (num_texts, dimensions)}
        )
        self._target.write(header.getvalue())

    def add(self, given: InputText, found: Embedding) -> None:
        self._target.write(found.vector.astype("<f4").tobytes())


def make_writer(form: str, answer: AnswerWriter, path: str | None) -> VectorWriter:
    """What writes that form to the file `path`, or to standard output.

    Raises:
        StorageError: the file cannot be opened.
    """
    return {"jsonl": _JsonLines, "json": _Json, "npy": _Npy}[form](answer, path)


def vector_json(vector: Any) -> str:
    """A float32 vector as JSON: of each number the shortest text that reads as the same float32."""
    return "[" + ", ".join(vector.astype("U32").tolist()) + "]"


def _entry(given: InputText, found: Embedding) -> str:
    facts: dict[str, Any] = {"index": found.index}
    if given.line is not None:
        facts["line"] = given.line
    if given.id is not None:
        facts["id"] = given.id
    facts |= {"prompt_tokens": found.prompt_tokens, "truncated_tokens": found.truncated_tokens}
    return f'{_dumped(facts)[:-1]}, "embedding": {vector_json(found.vector)}}}'


def _dumped(facts: dict[str, Any]) -> str:
    return replace_surrogates(json.dumps(facts, ensure_ascii=False))
