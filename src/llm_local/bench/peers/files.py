"""The model that is measured as files that other programs can load, kept from run to run (`kept_files`)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_local.bench.peers.kept_files import KeptFiles
from llm_local.bench.peers.process import HelperProcess, own_environment
from llm_local.bench.peers.vocabulary import byte_vocabulary
from llm_local.bench.subjects import Subject
from llm_local.errors import StorageError
from llm_local.home import cache_home
from llm_local.loaders.published_shapes import PUBLISHED_SHAPES
from llm_local.model_loader import resolve_model
from llm_local.specs import ModelSpec
from llm_local.store.names import STARTER

__all__ = ["GGUF_FORMATS", "cache_folder", "gguf_file", "model_folder"]

GGUF_FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_0")

# Part of every file's name: another number when the same model would be written otherwise.
_VERSION = 2


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where models for other programs are kept; everything in it can be deleted at any time.

    Raises:
        StorageError: it cannot be made.
    """
    folder = cache_home(environ) / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made: {error.strerror}.",
            "Set LLM_LOCAL_HOME to a folder that can be written.",
        ) from None
    return folder


def model_folder(subject: Subject) -> Path:
    """A folder with the subject's weights: its own, or one with the random weights of its published shape.

    Raises:
        EngineError: it could not be written.
    """
    if subject.published in PUBLISHED_SHAPES:
        dtype = _stored_dtype(subject)

        def make(folder: Path) -> None:
            question = {"folder": str(folder), "shape": subject.published, "dtype": dtype}
            _ask_once(sys.executable, "llm_local.bench.peers.shape_folder", own_environment(), question)

        num_bytes = subject.info.num_parameters * (4 if dtype == "float32" else 2)
        return KeptFiles(cache_folder()).have(f"{subject.published}-{dtype}-v{_VERSION}", num_bytes, make)
    if subject.published == STARTER:
        return resolve_model(ModelSpec(STARTER), explicit=True).path
    return Path(subject.info.path)


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder of weights, and a name that changes when they do."""

    folder: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def num_bytes(self) -> int:
        return sum(one.stat().st_size for one in self.files)

    @property
    def key(self) -> str:
        facts = [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in self.files]
        return f"{self.folder.name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def gguf_file(subject: Subject, form: str, python: str, threads: int) -> Path:
    """The subject's weights as GGUF in one of GGUF_FORMATS, with a vocabulary as large as its own.

    Raises:
        EngineError: llama.cpp knows no such architecture, or it could not be written.
        MissingPackage: `python` lacks what it takes.
    """
    source = _Source(model_folder(subject))

    def make(path: Path) -> None:
        tokens, merges = byte_vocabulary(subject.shape["vocab_size"])
        question = {
            "folder": str(source.folder),
            "format": form,
            "path": str(path),
            "threads": threads,
            "tokens": tokens,
            "merges": merges,
        }
        _ask_once(python, "gguf_writer", {}, question)

    # The quantizer reads a plain copy that is deleted afterwards.
    return KeptFiles(cache_folder()).have(f"{source.key}-{form}-v{_VERSION}.gguf", 2 * source.num_bytes, make)


def _stored_dtype(subject: Subject) -> str:
    """What the makers of a model publish: 16 bits, unless 32 were asked for."""
    return "bfloat16" if subject.info.quantization != "none" else subject.info.dtype


def _ask_once(python: str, module: str, environ: Mapping[str, str], question: Mapping[str, Any]) -> None:
    process = HelperProcess(python, module, environ)
    try:
        process.ask(**question)
    finally:
        process.close()
