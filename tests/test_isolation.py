"""The surroundings that conftest.py gives every test really are what it says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llm_local.config import load_config


def test_another_machine_cannot_be_reached(loopback_only: list[object]) -> None:
    with (
        socket.socket() as stranger,
        pytest.raises(ConnectionRefusedError, match="tests stay on this machine"),
    ):
        stranger.connect(("192.0.2.1", 80))
    assert loopback_only == [("192.0.2.1", 80)]
    loopback_only.clear()  # or this very test would fail


def test_this_machine_can_be_reached(loopback_only: list[object]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername() == server.getsockname()
    assert loopback_only == []


def test_home_and_caches_are_fresh(isolated_home: Path) -> None:
    assert Path.home() == isolated_home
    assert Path(os.environ["HF_HOME"]).is_relative_to(isolated_home)
    assert list(isolated_home.iterdir()) == []


def test_no_setting_comes_from_outside() -> None:
    assert load_config().source("temperature") == "default"
    assert "HF_TOKEN" not in os.environ
