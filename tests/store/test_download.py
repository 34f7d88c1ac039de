"""Contents on their way to the disk: digested while they come, resumed, and given up on when they only drip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakehub import git_digest
from llm_local.errors import HubUnavailable
from llm_local.store import digests, download
from llm_local.store.digests import RunningDigest, file_matches
from llm_local.store.download import Body, Opener, Place, RemoteFile, open_local
from llm_local.store.retries import Retries, TransientError
from llm_local.store.snapshots import RepoCache

DATA = bytes(range(256)) * 20_000  # 5 MB
FILE = RemoteFile("model.safetensors", len(DATA), hashlib.sha256(DATA).hexdigest(), "key")


def place(folder: Path) -> Place:
    return Place(folder / "final", folder / "final.incomplete", folder / "lock")


def opening(offsets: list[int], data: bytes = DATA, *, stop_at: int | None = None) -> Opener:
    """Sends `data` in pieces and notes where it was asked to begin; breaks off at `stop_at`, the first time."""

    @contextmanager
    def open_at(offset: int) -> Iterator[Body]:
        offsets.append(offset)

        def chunks() -> Iterator[bytes]:
            for begin in range(offset, len(data), 100_000):
                if stop_at is not None and len(offsets) == 1 and begin >= stop_at:
                    raise TransientError("the line broke")
                yield data[begin : begin + 100_000]

        yield Body(offset, chunks())

    return open_at


def fetch(folder: Path, opener: Opener, file: RemoteFile = FILE) -> Path:
    return download.download(place(folder), file, opener, Retries(sleep=lambda s: None), lambda done: None)


@pytest.mark.parametrize("digest", [FILE.digest, git_digest(DATA)], ids=["sha256", "git"])
@pytest.mark.parametrize("stop_at", [None, 2_000_000])
def test_contents_are_digested_while_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, stop_at: int | None
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(RunningDigest, "feed_file", lambda self, path, num_bytes: read.append(path))
    offsets: list[int] = []
    file = RemoteFile(FILE.name, FILE.size, digest, "key")
    assert fetch(tmp_path, opening(offsets, stop_at=stop_at), file).read_bytes() == DATA
    assert offsets == ([0] if stop_at is None else [0, 2_000_000])
    assert read == []  # nothing was read back


def test_what_an_earlier_run_left_is_digested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path).part.write_bytes(DATA[:3_000_000])
    read: list[int] = []
    real = RunningDigest.feed_file

    def spy(self: RunningDigest, path: Path, num_bytes: int) -> None:
        read.append(num_bytes)
        real(self, path, num_bytes)

    monkeypatch.setattr(RunningDigest, "feed_file", spy)
    offsets: list[int] = []
    assert fetch(tmp_path, opening(offsets)).read_bytes() == DATA
    assert (offsets, read) == ([3_000_000], [3_000_000])


def test_a_part_of_other_contents_is_begun_again(tmp_path: Path) -> None:
    place(tmp_path).part.write_bytes(bytes(1_000_000))
    offsets: list[int] = []
    assert fetch(tmp_path, opening(offsets)).read_bytes() == DATA
    assert offsets == [1_000_000, 0]


def test_a_whole_part_is_not_fetched_again(tmp_path: Path) -> None:
    place(tmp_path).part.write_bytes(DATA)
    offsets: list[int] = []
    assert fetch(tmp_path, opening(offsets)).read_bytes() == DATA
    assert offsets == []


def test_a_part_that_is_longer_than_the_file_is_begun_again(tmp_path: Path) -> None:
    place(tmp_path).part.write_bytes(DATA + b"x")
    assert fetch(tmp_path, opening([])).read_bytes() == DATA


def test_next_to_nothing_in_a_while_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_SLOWEST_WINDOW_S", 0.0)

    @contextmanager
    def drip(offset: int) -> Iterator[Body]:
        yield Body(offset, iter([b"x"] * 100))

    with pytest.raises(HubUnavailable, match="too slowly"):
        fetch(tmp_path, drip)
    assert place(tmp_path).part.stat().st_size == 5  # a byte each time, and none is thrown away


def test_contents_of_this_disk_are_copied_from_any_offset(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    place(tmp_path).part.write_bytes(DATA[:1_234_567])
    final = fetch(tmp_path, open_local(source))
    assert final.read_bytes() == DATA and not final.samefile(source)


def test_how_much_is_missing(tmp_path: Path) -> None:
    where = place(tmp_path)
    assert where.missing_bytes(FILE) == len(DATA)
    where.part.write_bytes(DATA[:1000])
    assert where.missing_bytes(FILE) == len(DATA) - 1000
    where.part.replace(where.final)
    assert where.missing_bytes(FILE) == 0
    assert where.missing_bytes(RemoteFile("x", None, "", "x")) == 0


def test_digests_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    assert all(file_matches(path, digest) for digest in (FILE.digest, git_digest(DATA), ""))
    path.write_bytes(DATA[:-1] + b"!")
    assert not any(file_matches(path, digest) for digest in (FILE.digest, git_digest(DATA)))
    assert digests.RunningDigest("", 0).matches()


def test_a_branch_is_set_whole_and_what_a_killed_process_left_is_no_revision(tmp_path: Path) -> None:
    repo = RepoCache(tmp_path, "org/name")
    (repo.root / "refs").mkdir(parents=True)
    (repo.root / "refs" / ".main.new").write_text("aaa")
    repo.point("main", "a" * 40)
    assert repo.commit_of("main") == "a" * 40
    assert [path.name for path in (repo.root / "refs").iterdir()] == ["main"]
    repo.point("feature/x", "b" * 40)
    assert repo.commit_of("feature/x") == "b" * 40
