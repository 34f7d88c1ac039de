"""A helper process that answers questions in JSON, and what becomes of it when it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import llm_local
from llm_local.errors import EngineError

__all__ = ["HelperProcess", "MissingPackage", "own_environment"]

_SERVING: Final = Path(__file__).with_name("serving.py")
_LAST_WORDS: Final = 300


class MissingPackage(EngineError):
    """The helper's Python lacks a package. `package` is its name."""

    def __init__(self, package: str, python: str) -> None:
        super().__init__(f"The Python at {python} has no package {package}.", f"Install {package} there.")
        self.package = package


class HelperProcess:
    """`module` at work in a process of its own, under `python`; see `serving.py`."""

    def __init__(self, python: str, module: str, environ: Mapping[str, str] | None = None) -> None:
        self._python, self._module = python, module
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (until `close`)
        try:
            self._process = subprocess.Popen(  # noqa: S603  (our own file, the user's Python)
                [python, str(_SERVING), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **(environ or {})},
                start_new_session=True,  # Ctrl-C is ours; we end it
            )
        except OSError as error:
            self._said.close()
            raise EngineError(f"{python} cannot be started: {error.strerror}.", "Name a Python 3.") from None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question, however long it takes.

        Raises:
            MissingPackage: its Python lacks something.
            EngineError: it failed or died; what it said last is in the message.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EngineError(f"{self._module} has no pipes.")
        with suppress(OSError):  # it is gone: there will be no answer either
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise EngineError(f"{self._module} ended with {self._end()}: {self._last_words()}")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise EngineError(f"{self._module} answered {line[:_LAST_WORDS]!r}, which is not JSON.") from None
        if "missing" in reply:
            raise MissingPackage(str(reply["missing"]), self._python)
        if "error" in reply:
            raise EngineError(f"{self._module} failed: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _end(self) -> str:
        status = self._process.wait()
        return f"status {status}" if status >= 0 else signal.Signals(-status).name

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-_LAST_WORDS:] if lines else "it said nothing"


def own_environment(num_threads: int | None = None) -> dict[str, str]:
    """What a helper under our own Python needs to find us, and to use that many threads."""
    root = str(Path(llm_local.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
    return {"PYTHONPATH": os.pathsep.join(paths), **threads}
