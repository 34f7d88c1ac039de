"""The fault table: every way in which a hub, a network or a disk fails a pull, its exit code, and what it leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakehub import FakeHub, chosen_hub, redirect, running_hub, without_waiting
from hub_faults import ABSENT, FILES, KEPT, MODEL, NEEDED, REF, TABLE, WHOLE, Row
from llm_local.cli import fit_check
from llm_local.cli.main import main
from llm_local.store.snapshots import cache_folder, find_local

PAGE = Path(__file__).parents[2] / "docs" / "downloads.md"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running hub with one model, and an environment that points at it."""
    with chosen_hub(monkeypatch, REF, FILES) as hub:
        yield hub


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No test waits for a retry, or measures the memory; the seconds that would have passed are kept."""
    slept = without_waiting(monkeypatch)
    monkeypatch.setattr(fit_check, "memory_bytes_per_s", lambda: 1e10)
    return slept


def state() -> str:
    """What is on the disk."""
    folder, parts = find_local(REF), list(cache_folder().rglob("*.incomplete"))
    if folder is None:
        return KEPT if parts else ABSENT
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert found == NEEDED
    assert not parts
    return WHOLE


def outside(root: Path) -> dict[Path, bytes | None]:
    """Everything under `root` but the cache."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if cache_folder() not in (path, *path.parents) and path not in cache_folder().parents
    }


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.behavior)
def test_a_fault_ends_as_the_table_says(
    row: Row, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    row.arrange(hub, monkeypatch)
    before = outside(tmp_path)
    code = main(["pull", REF])
    out, err = capfd.readouterr()
    error = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, state()) == (row.code, row.state), err
    assert len(error) == (row.code != 0)
    assert row.says in "".join(error)
    assert "Traceback" not in err
    assert out == (f"{find_local(REF)}\n" if row.code == 0 else "")
    assert outside(tmp_path) == before


@pytest.mark.parametrize("row", [row for row in TABLE if row.state == KEPT], ids=lambda row: row.behavior)
def test_what_was_kept_is_gone_on_with(row: Row, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        row.arrange(hub, patched)
        assert main(["pull", "-q", REF]) == row.code
    hub.faults.clear()
    hub.requests.clear()
    hub.sent_bytes = 0
    assert main(["pull", "-q", REF]) == 0
    assert state() == WHOLE
    assert hub.sent_bytes < 0.5 * len(FILES[MODEL])


def test_retry_after_is_waited_for(hub: FakeHub, quick: list[float]) -> None:
    row = next(row for row in TABLE if row.behavior.startswith("429 with Retry-After"))
    row.arrange(hub, None)
    assert main(["pull", "-q", REF]) == 0
    assert quick == [7.0]


def test_gated_is_not_tried_again(hub: FakeHub, quick: list[float]) -> None:
    for row in TABLE[:2]:
        row.arrange(hub, None)
        assert main(["pull", "-q", REF]) == 4
    assert quick == []


def test_credentials_stay_with_the_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with running_hub() as stranger:
        stranger.add(REF, FILES)
        where = f"{stranger.url}/plain/{REF}/{MODEL}"
        hub.faults[MODEL] += [redirect(where), redirect(where.replace("http:", ""))]
        assert main(["pull", "-q", REF]) == 0
        assert len(stranger.requests) == 2
        assert not any({"authorization", "cookie"} & one.headers.keys() for one in stranger.requests)
    assert {one.headers.get("authorization") for one in hub.requests} == {"Bearer hf_secretsecret"}
    assert state() == WHOLE


def test_a_mirror_gets_no_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with running_hub() as mirror:
        mirror.add(REF, FILES)
        assert main(["pull", "-q", "--mirror", mirror.url, REF]) == 0
        assert mirror.requests and not any("authorization" in one.headers for one in mirror.requests)
    assert hub.requests == []
    assert "HF_TOKEN is not sent to the mirror" in capfd.readouterr().err


def test_every_behavior_of_the_table_is_named_once() -> None:
    names = [row.behavior for row in TABLE]
    assert len(set(names)) == len(names)
    assert len([row for row in TABLE if row.fault in ("F30", "F31", "F32", "F33", "F34")]) >= 24


def test_the_page_has_the_same_rows() -> None:
    rows = re.findall(
        r"^\| (F\d\d|T\d\d|) *\| (.+?) \| (\d+) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert rows == [(row.fault, row.behavior, str(row.code), row.state) for row in TABLE]
