"""Pulls that are killed, and pulls that meet: real processes of the command line, against a hub on a slow line.

KILL_ROUNDS=50 pytest -s tests/store/test_interrupted_pulls.py     as many kills as the fault table asks for
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakehub import FakeHub, Request, chosen_hub
from hub_faults import FILES, MODEL, REF, weights
from llm_local.store.snapshots import cache_folder, find_local, local_models

ROUNDS = int(os.environ.get("KILL_ROUNDS", "4"))
BYTES_PER_S = 8_000_000
# So large that the kills are spread over it: most come while weights are on their way.
LARGE = {**FILES, MODEL: weights(ROUNDS * 400_000)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub whose line is slow enough to be cut, with one model."""
    with chosen_hub(monkeypatch, REF, LARGE) as hub:
        hub.bytes_per_s = BYTES_PER_S
        yield hub


@contextlib.contextmanager
def pulling(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """`llm-local pull` in a process of its own, which is ended in any case."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_local.cli.main", "pull", "--device", "cpu", *flags, REF],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def downloading(hub: FakeHub, seen: int) -> None:
    """Wait until a request for weights has come after the first `seen` ones."""
    end = time.monotonic() + 60
    while not any(map(_is_for_weights, hub.requests[seen:])):
        assert time.monotonic() < end
        time.sleep(0.01)


def _is_for_weights(request: Request) -> bool:
    """Not for their header alone."""
    return MODEL in request.path and not request.headers.get("range", "").startswith("bytes=0-")


def whole() -> bool:
    folder = find_local(REF)
    return folder is not None and (folder / MODEL).read_bytes() == LARGE[MODEL]


def test_kills_at_random_instants_lose_next_to_nothing(hub: FakeHub) -> None:
    chance = random.Random(20)
    lengths = [0]
    for _ in range(ROUNDS):
        seen = len(hub.requests)
        with pulling("-q") as process:
            # Some before the first byte, most within the weights.
            if chance.random() < 0.85:
                downloading(hub, seen)
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        assert find_local(REF) is None, "a model that is not whole is found"
        parts = [
            path.stat().st_size for path in cache_folder().rglob("*.incomplete") if path.stat().st_size > 1000
        ]
        lengths.append(max(parts, default=lengths[-1]))
        assert lengths[-1] >= lengths[-2], "what was there is gone"
    with pulling("-q") as process:
        assert process.wait(240) == 0
    assert whole()
    assert not list(cache_folder().rglob("*.incomplete")) and not list(cache_folder().rglob(".*.new"))
    size = sum(len(data) for name, data in LARGE.items() if name != "README.md")
    print(
        f"{ROUNDS} kills: {hub.sent_bytes} bytes sent for {size}, {hub.sent_bytes / size:.3f} times as much"
    )
    assert hub.sent_bytes <= 1.2 * size
    assert local_models() == [REF]


def test_two_processes_download_once(hub: FakeHub) -> None:
    with pulling("-q") as one, pulling() as other:
        assert (one.wait(120), other.wait(120)) == (0, 0)
        assert one.stdout is not None and other.stdout is not None
        assert one.stdout.read() == other.stdout.read() == f"{find_local(REF)}\n"
    assert whole()
    assert hub.sent_bytes <= 1.05 * sum(map(len, LARGE.values()))


def test_a_follower_takes_over_from_a_leader_that_is_killed(hub: FakeHub) -> None:
    hub.bytes_per_s = 200_000  # the leader is not to be done before the follower has come
    with pulling("-q") as leader:
        downloading(hub, 0)
        with pulling("-q") as follower:
            while (
                len(hub.asked("/config.json")) < 3
            ):  # for the look before, by each, and by the leader for good
                assert follower.poll() is None and leader.poll() is None
                time.sleep(0.01)
            time.sleep(0.5)
            hub.bytes_per_s = 50_000_000
            num_before = len(hub.asked(MODEL))
            leader.send_signal(signal.SIGKILL)
            began = time.monotonic()
            while len(hub.asked(MODEL)) == num_before and time.monotonic() - began < 10:
                time.sleep(0.01)
            assert len(hub.asked(MODEL)) > num_before, "nobody went on within ten seconds"
            assert follower.wait(120) == 0
    assert whole()
    assert hub.sent_bytes <= 1.1 * sum(map(len, LARGE.values()))


def test_ctrl_c_keeps_what_came(hub: FakeHub) -> None:
    with pulling() as process:
        downloading(hub, 0)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert "interrupted" in said and "Traceback" not in said
    assert [path.stat().st_size > 0 for path in cache_folder().rglob("*.incomplete")] == [True]


def test_real_files_into_a_folder_are_resumed_too(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pulling("-q", "--output", str(folder)) as process:
        downloading(hub, 0)
        time.sleep(0.2)
        process.kill()
    assert not (folder / MODEL).exists()
    with pulling("-q", "--output", str(folder)) as process:
        assert process.wait(120) == 0
    found = {path.name: path for path in folder.iterdir()}
    assert set(found) == {*LARGE} - {"README.md"}
    assert not any(path.is_symlink() for path in found.values())
    assert found[MODEL].read_bytes() == LARGE[MODEL]
    assert hub.sent_bytes <= 1.2 * sum(map(len, LARGE.values()))
