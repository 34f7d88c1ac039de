"""What benchmarks keep for other programs: made once, bounded, and never deleted while somebody uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_local.bench.peers import files, kept_files
from llm_local.bench.peers.files import gguf_file, model_folder
from llm_local.bench.peers.kept_files import KeptFiles
from llm_local.bench.subjects import Subject
from llm_local.errors import EngineError
from llm_local.specs import EngineOptions, ModelInfo

# Another benchmark: has what the first argument names, says so, and goes on until it is killed or its stdin ends.
OTHER = """
import sys
from pathlib import Path
from llm_local.bench.peers.kept_files import KeptFiles
folder, name = Path(sys.argv[1]), sys.argv[2]
def make(path):
    print("makes", flush=True)
    sys.stdin.readline()
    path.write_bytes(bytes(100))
KeptFiles(folder, 250).have(name, 100, make)
print("has", flush=True)
sys.stdin.readline()
"""


def file_of(num_bytes: int) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(bytes(num_bytes)), None)[1]


def folder_of(num_bytes: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "weights").write_bytes(bytes(num_bytes))

    return make


def never(path: Path) -> None:
    raise AssertionError(f"{path} is there already")


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets go of everything, as the end of a process does."""
    held: dict[Path, int] = {}
    monkeypatch.setattr(kept_files, "_in_use", held)

    def end() -> None:
        for handle in held.values():
            os.close(handle)
        held.clear()

    return end


@pytest.fixture
def kept(tmp_path: Path) -> KeptFiles:
    """Room for two and a half files of 100 bytes."""
    folder = tmp_path / "bench"
    folder.mkdir()
    return KeptFiles(folder, 250)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "bench").iterdir() if path.name != "lock")


def test_what_is_there_is_not_made_again(kept: KeptFiles, tmp_path: Path) -> None:
    path = kept.have("a", 100, file_of(100))
    assert path == tmp_path / "bench" / "a" and kept.have("a", 100, never) == path


def test_the_least_recently_used_goes_first(
    kept: KeptFiles, tmp_path: Path, ended: Callable[[], None]
) -> None:
    for moment, (name, make) in enumerate({"old": file_of(100), "new": folder_of(100)}.items()):
        os.utime(kept.have(name, 100, make), (moment, moment))
    ended()
    kept.have("old", 100, never)  # used again
    ended()
    kept.have("third", 100, file_of(100))
    assert names(tmp_path) == ["old", "third"]
    ended()
    kept.have("large", 1000, file_of(300))  # what is needed is made, and all else goes
    assert names(tmp_path) == ["large"]


def test_what_this_run_uses_stays_beyond_the_limit(kept: KeptFiles, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        kept.have(name, 100, file_of(100))
    assert names(tmp_path) == ["a", "b", "c", "d"]


def test_what_another_process_uses_stays_and_what_it_leaves_can_go(kept: KeptFiles, tmp_path: Path) -> None:
    (tmp_path / "bench" / "theirs").write_bytes(bytes(100))
    command = [sys.executable, "-c", OTHER, str(tmp_path / "bench"), "theirs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "has\n"
        kept.have("mine", 200, file_of(200))
        assert names(tmp_path) == ["mine", "theirs"]
        other.kill()
    kept.have("more", 100, file_of(100))
    assert names(tmp_path) == ["mine", "more"]


def test_two_that_want_the_same_make_it_once(
    kept: KeptFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path / "bench"), "both"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "makes\n"
        warn = kept_files.logger.warning

        def told(*words: object) -> None:
            warn(*words)  # type: ignore[arg-type]
            other.stdin.write("\n")  # type: ignore[union-attr]
            other.stdin.flush()  # type: ignore[union-attr]

        monkeypatch.setattr(kept_files.logger, "warning", told)
        assert kept.have("both", 100, never).stat().st_size == 100
        assert caplog.text.count("waiting for another benchmark") == 1
        other.kill()


def test_what_a_killed_run_left_goes(kept: KeptFiles, tmp_path: Path) -> None:
    (tmp_path / "bench" / "shape.part").mkdir()
    for name in ("x.part", "x.plain"):
        (tmp_path / "bench" / name).write_bytes(bytes(100))
    kept.have("a", 100, file_of(100))
    assert names(tmp_path) == ["a"]


def test_a_failure_leaves_the_place_free(kept: KeptFiles, tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise EngineError("the disk is full")

    with pytest.raises(EngineError):
        kept.have("a", 100, broken)
    kept.have("a", 100, file_of(1))
    assert names(tmp_path) == ["a"]


def test_a_file_system_without_locks_is_bounded_too(
    kept: KeptFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("llm_local.locks.try_lock", refuse)
    monkeypatch.setattr(kept_files, "try_lock", refuse)
    for moment, name in enumerate(("a", "b", "c")):
        os.utime(kept.have(name, 100, file_of(100)), (moment, moment))
    assert names(tmp_path) == ["b", "c"]


def test_the_files_of_a_bench_are_kept_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A published shape and its GGUF, by a writer that leaves a mark."""
    asked: list[str] = []

    def write(python: str, module: str, environ: object, question: dict[str, Any]) -> None:
        asked.append(module.rpartition(".")[2])
        if asked[-1] == "shape_folder":
            folder_of(10)(Path(question["folder"]))
            (Path(question["folder"]) / "weights").rename(Path(question["folder"]) / "model.safetensors")
        else:
            Path(question["path"]).write_bytes(bytes(5))

    monkeypatch.setattr(files, "_ask_once", write)
    info = ModelInfo("x", "", "x", 100, 200, "float32", "cpu", 1, 1, False, "none")
    subject = Subject(None, info, EngineOptions(), {"vocab_size": 300}, "qwen2.5-0.5b")
    for _ in range(2):
        made = gguf_file(subject, "Q4_0", sys.executable, 1)
        assert made.parent == files.cache_folder() == model_folder(subject).parent
    assert asked == ["shape_folder", "gguf_writer"]
    assert model_folder(subject) in kept_files._in_use and made in kept_files._in_use
