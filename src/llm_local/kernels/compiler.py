"""The C++ compiler of this machine: which one, and how it is called."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.errors import LocalLLMError

__all__ = ["BuildFailed", "Compiler", "find_compiler"]

logger = logging.getLogger(__name__)

TIME_LIMIT_S: Final = 600
_ANOTHER: Final = "Set CXX to another C++ compiler, or a newer one."


class BuildFailed(LocalLLMError):
    """The native library cannot be made here; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler's command; `identity` changes when another version is installed in its place.

    `instead_of` is what $CXX names where that is not installed, else empty: whoever builds or reports says so.
    """

    command: tuple[str, ...]
    identity: str
    instead_of: str = ""

    def run(self, arguments: Sequence[str]) -> None:
        """Call it.

        Raises:
            BuildFailed: it reports an error, takes more than ten minutes, or does not start.
        """
        command = [*self.command, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own compiler, and no shell
                command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BuildFailed(f"{self.command[0]} took longer than {TIME_LIMIT_S} s", _ANOTHER) from None
        except OSError as error:
            raise BuildFailed(f"{self.command[0]} does not start: {error.strerror}", _ANOTHER) from error
        if done.returncode != 0:
            logger.debug("%s\n%s", shlex.join(command), done.stderr)
            lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in lines if "error" in line.lower()), lines[0])
            raise BuildFailed(f"{self.command[0]} failed: {first.strip()[:300]}", _ANOTHER)


def find_compiler(environ: Mapping[str, str] | None = None) -> Compiler | None:
    """The first of $CXX, c++, g++ and clang++ that is installed; None when there is none.

    Raises:
        BuildFailed: $CXX is not a command.
    """
    env = os.environ if environ is None else environ
    try:
        chosen = shlex.split(env.get("CXX", ""))
    except ValueError as error:
        raise BuildFailed(
            f"CXX is not a command ({error})", "Set it to a C++ compiler, or unset it."
        ) from None
    instead_of = ""
    for words in (chosen, ["c++"], ["g++"], ["clang++"]):
        path = shutil.which(words[0], path=env.get("PATH", os.defpath)) if words else None
        if path is None:
            instead_of = instead_of or " ".join(chosen)
            continue
        with contextlib.suppress(OSError):
            # its own version would take a process to ask
            file = Path(path).resolve()
            stat = file.stat()
            identity = f"{file} {shlex.join(words[1:])} {stat.st_size} {stat.st_mtime_ns}"
            return Compiler((path, *words[1:]), identity, instead_of)
    return None
