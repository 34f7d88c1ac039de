"""SIGINT and SIGTERM, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, sys, time
from llm_local.terminal import signals
from llm_local.terminal.streams import Messages
messages = Messages.on_stderr()
stop = signals.StopSignals(messages)
stop.install()
how = sys.argv[1]
asked = []
if how != "starting":
    stop.on_stop = lambda: asked.append(1)
    signals.GRACE_S = 0.2 if how == "stuck" else 60
os.write(1, b"ready\\n")
until = time.monotonic() + 20
while time.monotonic() < until:
    if how == "stuck":
        os.read(0, 1)  # a handler that returns lets this call go on
    time.sleep(0.005)
    if how == "gentle" and asked:
        stop.announce()
        sys.exit(stop.code)
"""


def _run(how: str, number: int, *, times: int = 1, ignored: bool = False) -> tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.02)  # signals that come together count as one
        if ignored:
            process.send_signal(signal.SIGTERM)
        code = process.wait(15)
        return code, process.stderr.read()


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
@pytest.mark.parametrize("how", ["starting", "gentle", "stuck"])
def test_each_signal_has_its_code_and_one_line(how: str, number: int, code: int, word: str) -> None:
    assert _run(how, number) == (code, word + "\n")


def test_a_second_signal_does_not_wait() -> None:
    code, said = _run("deaf", signal.SIGINT, times=20)
    assert (code, said) == (130, "interrupted\n")


def test_an_ignored_signal_stays_ignored() -> None:
    assert _run("starting", signal.SIGINT, ignored=True) == (143, "terminated\n")
