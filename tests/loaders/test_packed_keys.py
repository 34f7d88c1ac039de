"""Asking the disk for weights before anyone can use them: the right files, and nothing that can fail."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from llm_local.loaders import packed_keys
from llm_local.loaders.configuration import read_config
from llm_local.loaders.packed_keys import pack_key, packed_folder, read_ahead
from llm_local.loaders.safetensors import read_weights
from llm_local.specs import ModelSpec
from tiny_checkpoints import save_checkpoint


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the system was asked for, in order."""
    found: list[str] = []

    def advise(descriptor: int, *_: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(packed_keys.os, "posix_fadvise", advise)
    return found


def ask(folder: Path, quantization: str) -> None:
    """Ask, and wait until the asking is over."""
    before = set(threading.enumerate())
    read_ahead(ModelSpec("m", quantization=quantization), read_config(folder).values, read_weights(folder))
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def test_packed_weights_are_asked_for_where_there_are_any_else_the_models_own(
    tmp_path: Path, asked: list[str]
) -> None:
    folder = save_checkpoint(tmp_path / "model")
    own = str((folder / "model.safetensors").resolve())
    for quantization in ("auto", "int8", "int4", "none"):
        ask(folder, quantization)
    assert asked == [own] * 4
    packed_folder().mkdir(parents=True)
    packed = packed_folder() / f"{pack_key(read_config(folder).values, read_weights(folder), 'int8')}.pack"
    packed.touch()
    asked.clear()
    for quantization in ("auto", "int8", "int4", "none"):
        ask(folder, quantization)
    assert asked == [str(packed.resolve())] * 2 + [own] * 2


def test_nothing_fails_where_the_system_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, raised = save_checkpoint(tmp_path / "model"), []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    for error in (OSError, AttributeError):

        def refuse(*_: int, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr(packed_keys.os, "posix_fadvise", refuse)
        ask(folder, "none")
    assert raised == []
