"""A server in a process of its own, on a free port of this machine, that ends with us."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_local.bench.sse_client import HOST, status_of
from llm_local.errors import EngineError

__all__ = ["ServerProcess", "free_port"]

_WATCHED: Final = Path(__file__).with_name("watched.py")
_POLL_S: Final = 0.1
_START_S: Final = 600.0
_END_S: Final = 5.0
_LAST_WORDS: Final = 300


class ServerProcess:
    """`module` with `arguments` at work; `name` is how errors call it."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (until `close`)
        self._process = subprocess.Popen(  # noqa: S603  (a module of our own Python)
            [sys.executable, str(_WATCHED), module, *arguments],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            env={**os.environ, **environ},
            start_new_session=True,  # Ctrl-C is ours; we end it
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def wait_ready(self, port: int, path: str) -> None:
        """Wait until `path` is answered with 200.

        Raises:
            EngineError: the server ended, or takes ten minutes.
        """
        end = time.monotonic() + _START_S
        while asyncio.run(status_of(port, path)) != 200:
            if self._process.poll() is not None:
                raise EngineError(
                    f"{self._name} ended with status {self._process.returncode}: {self.last_words()}"
                )
            if time.monotonic() > end:
                raise EngineError(
                    f"{self._name} was not ready after {_START_S / 60:.0f} minutes: {self.last_words()}"
                )
            time.sleep(_POLL_S)

    def last_words(self) -> str:
        """The last line that it wrote."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-_LAST_WORDS:] if lines else "it said nothing"

    def close(self) -> None:
        """End the process, gently for a few seconds. Harmless when repeated."""
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(_END_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._said):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def free_port() -> int:
    """A port that nobody listens on just now."""

    async def find() -> int:
        async with await asyncio.start_server(lambda *_: None, HOST, 0) as server:
            return int(server.sockets[0].getsockname()[1])

    return asyncio.run(find())
