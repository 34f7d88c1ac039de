"""A terminal is given back as it was found."""

from __future__ import annotations

import os
import pty
import select
import termios

import pytest

from llm_local.terminal.terminal_modes import TerminalModes


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def written(master: int) -> bytes:
    return os.read(master, 1000) if select.select([master], [], [], 0.05)[0] else b""


def test_silence_hides_what_is_typed_and_keeps_it(terminal):
    master, slave = terminal
    before = termios.tcgetattr(slave)
    modes = TerminalModes(slave)
    modes.silence()
    silent = termios.tcgetattr(slave)
    assert not silent[3] & termios.ECHO and silent[3] & termios.ICANON and silent[3] & termios.ISIG
    assert silent[6][termios.VSUSP] == b"\0" and silent[6][termios.VINTR] == before[6][termios.VINTR]
    os.write(master, b"typed\n")
    assert written(master) == b""
    modes.restore()
    assert termios.tcgetattr(slave) == before
    assert os.read(slave, 100) == b"typed\n"


def test_who_draws_gets_cursor_wrapping_and_colors_put_right(terminal):
    master, slave = terminal
    modes = TerminalModes(slave)
    modes.silence()
    modes.uses_escapes = True
    modes.restore()
    assert written(master) == b"\x1b[?2004l\x1b[?25h\x1b[?7h\x1b[0m"
    modes.restore()
    modes.silence()
    modes.has_drawing = True
    modes.restore()
    assert written(master).startswith(b"\r\x1b[J\x1b[?2004l")
    modes.restore()
    assert written(master) == b""  # there was nothing to put right


def test_what_is_no_terminal_has_no_modes(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    modes = TerminalModes(descriptor)
    modes.silence()
    modes.restore()
    os.close(descriptor)
    modes.restore()
