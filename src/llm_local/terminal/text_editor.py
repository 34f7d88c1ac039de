"""Editing a text in the program that a person likes for it: `VISUAL`, `EDITOR`, or what is there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llm_local.errors import InvalidRequest

__all__ = ["edit_text"]

_USUAL: Final = ("nano", "vim", "vi", "emacs")


def edit_text(text: str, environ: Mapping[str, str] | None = None) -> str:
    """What becomes of `text`; the last line end that editors add is left out. It takes the terminal meanwhile.

    Raises:
        InvalidRequest: there is no editor, or it failed; the text is as it was.
    """
    command = _command(os.environ if environ is None else environ)
    # a folder and a file that nobody else can look into
    with tempfile.TemporaryDirectory(prefix="llm-local-") as folder:
        path = Path(folder) / "message.md"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([*command, str(path)], check=False)  # noqa: S603 - the user's own editor, and no shell
            edited = path.read_bytes()
        except OSError as error:
            raise _failed(command, os.strerror(error.errno) if error.errno else str(error)) from error
    if done.returncode:
        raise _failed(command, f"it ended with {done.returncode}")
    return edited.decode("utf-8", "replace").removesuffix("\n")


def _command(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("VISUAL") or environ.get("EDITOR") or ""
    try:
        words = shlex.split(named)
    except ValueError:
        words = [named]
    if words:
        return words
    usual = next((name for name in _USUAL if shutil.which(name)), None)
    if usual is None:
        raise InvalidRequest("There is no editor.", "Set EDITOR to the command of one.", param="EDITOR")
    return [usual]


def _failed(command: list[str], reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The editor {command[0]!r} did not do its work: {reason}.",
        "Set EDITOR to the command of another.",
        param="EDITOR",
    )
