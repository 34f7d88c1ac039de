"""Every test has a home of its own, settings that come from nowhere, and no network but loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_local.config import SETTINGS
from llm_local.errors import LocalLLMError
from llm_local.kernels.build import install

SOURCE = Path(__file__).resolve().parent.parent / "src"

# Libraries read some of these once, when they are imported: what they see must not be the person's own.
_OUTSIDE = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "PYTHONWARNINGS",
)
for _name in _OUTSIDE:
    os.environ.pop(_name, None)
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "llm-local-tests-have-no-hub-cache")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# What nohup, or a shell without job control, ignores for us is ignored by the programs that tests start, which are to
# react to it. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# Every setting of llm-local under each of its names, and what changes how a terminal program speaks.
_SETTINGS = [key for setting in SETTINGS.values() for key in (setting.name.upper(), *setting.aliases)]
_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES")


@pytest.fixture(autouse=True, scope="session")
def kernels_are_built() -> None:
    """Build the native library once into the environment, where every test's fresh home finds it."""
    with contextlib.suppress(LocalLLMError):  # without a compiler the tests of the kernels are skipped
        install()


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home, cache and settings for each test; returns the home."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (*_OUTSIDE, *_SETTINGS, *_TERMINAL):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("LLM_LOCAL_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("LLM_LOCAL_HOME", str(home / "llm-local"))
    monkeypatch.setenv(
        "PYTHONPATH", str(SOURCE)
    )  # for what a test starts, where the package is not installed
    return home


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Fail a test that opens a connection to anything but this machine; yields what was tried."""
    strangers: list[object] = []

    class LoopbackSocket(socket.socket):
        """A socket that connects to loopback or not at all."""

        def connect(self, address: Any) -> None:
            """Connect, unless the address is another machine's."""
            self._refuse_strangers(address)
            super().connect(address)

        def connect_ex(self, address: Any) -> int:
            """Connect, unless the address is another machine's."""
            self._refuse_strangers(address)
            return super().connect_ex(address)

        def _refuse_strangers(self, address: Any) -> None:
            host = address[0] if isinstance(address, tuple) else "localhost"  # a path is a Unix socket
            if not (str(host).startswith("127.") or host in ("localhost", "::1", "")):
                strangers.append(address)
                raise ConnectionRefusedError(f"tests stay on this machine, but one asked for {address}")

    monkeypatch.setattr(socket, "socket", LoopbackSocket)
    yield strangers
    assert not strangers, f"the test tried to reach {strangers}"
