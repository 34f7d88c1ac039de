"""Building the native library: once, whole or not at all, and never in the way. A script stands for the compiler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_local.kernels import build
from llm_local.kernels.build import (
    CHECKSUM,
    LIBRARY,
    build_into,
    cache_folder,
    discard,
    ensure_built,
    install,
    why_missing,
)
from llm_local.kernels.compiler import BuildFailed, find_compiler

# Writes what it was told into a log, waits where asked, and makes the file after -o.
COMPILER = """#!/bin/sh
echo "$@" >>"{log}"
sleep {wait}
while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then echo made >"$2"; fi
  shift
done
exit {status}
"""


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No library of this environment is found, so that each test starts from nothing."""
    monkeypatch.setattr(build, "environment_folder", lambda: tmp_path / "environment")
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")


class FakeCompiler:
    """A compiler in $CXX that logs how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "fake-c++"
        self.log = folder / "compiler.log"
        monkeypatch.setenv("CXX", str(self.path))
        self.behave()

    def behave(self, status: int = 0, wait: float = 0) -> None:
        """What it does from here on."""
        self.path.write_text(COMPILER.format(log=self.log, status=status, wait=wait))
        self.path.chmod(0o755)

    @property
    def links(self) -> int:
        """How often a library was linked."""
        return (
            sum("-shared" in line for line in self.log.read_text().splitlines()) if self.log.exists() else 0
        )


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    """A compiler that works."""
    return FakeCompiler(tmp_path, monkeypatch)


def test_a_library_is_built_once_and_found_again(compiler: FakeCompiler) -> None:
    said: list[str] = []
    library = ensure_built(said.append)
    assert library.is_relative_to(cache_folder()) and library.read_text() == "made\n"
    assert ensure_built(said.append) == library
    assert compiler.links == 1 and len(said) == 1
    assert {path.name for path in library.parent.iterdir() if path.name != "lock"} == {LIBRARY, CHECKSUM}


@pytest.mark.parametrize("damage", [b"", b"mad", b"other\n"])
def test_a_truncated_or_changed_library_is_built_again(compiler: FakeCompiler, damage: bytes) -> None:
    library = ensure_built()
    library.write_bytes(damage)
    assert ensure_built() == library and library.read_text() == "made\n"
    assert compiler.links == 2


def test_each_variant_has_its_own_flags(compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    build._sources_digest.cache_clear()
    ensure_built()
    lines = compiler.log.read_text().splitlines()
    portable = next(line for line in lines if "-DLLM_VARIANT=portable" in line)
    assert "-mavx" not in portable and "-march" not in "".join(lines) and "-ffast-math" not in "".join(lines)
    assert "-mavx512vnni" in next(line for line in lines if "-DLLM_VARIANT=avx512" in line)
    build._sources_digest.cache_clear()


def test_an_arm_machine_builds_the_portable_variant_only(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    build._sources_digest.cache_clear()
    ensure_built()
    assert compiler.log.read_text().count("-DLLM_VARIANT=") == 1
    build._sources_digest.cache_clear()


def test_another_compiler_builds_another_library(compiler: FakeCompiler) -> None:
    first = ensure_built()
    compiler.behave(wait=0.001)  # another file: another version
    assert ensure_built() != first
    assert first.is_file()


def test_without_a_compiler_a_library_built_before_serves(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = ensure_built()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_compiler() is None
    assert why_missing() == ""
    assert ensure_built() == library


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(BuildFailed, match="no C\\+\\+ compiler") as caught:
        ensure_built()
    assert "Install g++" in caught.value.hint
    assert why_missing() == "there is no C++ compiler"
    monkeypatch.setenv("CXX", "'unclosed")
    assert "not a command" in why_missing()


def test_a_failing_compiler_leaves_nothing_and_is_tried_again(compiler: FakeCompiler) -> None:
    compiler.behave(status=1)
    with pytest.raises(BuildFailed, match="failed"):
        ensure_built()
    assert not list(cache_folder().rglob(LIBRARY)) and not list(cache_folder().rglob("build-*"))
    compiler.behave()
    assert ensure_built().is_file()


def test_what_a_killed_build_left_is_removed_by_the_next(compiler: FakeCompiler) -> None:
    compiler.behave(wait=30)
    child = subprocess.Popen([sys.executable, "-c", _BUILD], start_new_session=True)
    deadline = time.monotonic() + 20
    while not list(cache_folder().rglob("build-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    folder = next(cache_folder().rglob("build-*")).parent
    compiler.behave()
    os.utime(compiler.path)
    ensure_built()
    fresh = folder.parent / ensure_built().parent.name
    assert not list(fresh.glob("build-*"))


_BUILD = (
    "from pathlib import Path; from llm_local.kernels import build\n"
    "build.environment_folder = lambda: Path('/nonexistent/environment')\n"
    "print(build.ensure_built())"
)


def test_two_processes_at_once_build_one_library(compiler: FakeCompiler) -> None:
    compiler.behave(wait=0.2)
    children = [
        subprocess.Popen([sys.executable, "-c", _BUILD], stdout=subprocess.PIPE, text=True) for _ in "12"
    ]
    told = {child.communicate(timeout=60)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(told) == 1 and compiler.links == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LLM_LOCAL_HOME", str(tmp_path / "file"))
    library = ensure_built()
    assert library.read_text() == "made\n" and not library.is_relative_to(tmp_path / "file")


def test_a_shipped_library_serves_while_it_fits_the_sources(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = build_into(tmp_path / "prebuilt")
    assert ensure_built() == shipped and compiler.links == 1
    (tmp_path / "prebuilt" / build.DIGEST).write_text("of other sources")
    assert ensure_built() != shipped


def test_a_shipped_library_that_does_not_load_here_is_built_here(
    compiler: FakeCompiler, tmp_path: Path
) -> None:
    shipped = build_into(tmp_path / "prebuilt")
    discard(shipped)
    built = ensure_built()
    assert built.is_relative_to(cache_folder()) and ensure_built() == built
    assert shipped.is_file() and compiler.links == 2


def test_a_library_that_does_not_load_and_cannot_be_deleted_is_passed_over(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = install()
    monkeypatch.setattr(Path, "unlink", _refuse)
    discard(stuck)
    assert ensure_built().is_relative_to(cache_folder())


def _refuse(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_compiler_with_arguments_in_its_variable(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"{compiler.path} --wrapped")
    ensure_built()
    assert all(line.startswith("--wrapped ") for line in compiler.log.read_text().splitlines())


def test_a_cxx_that_is_no_command_is_a_reason_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'g++ --sysroot=/my folder")
    with pytest.raises(BuildFailed, match="CXX is not a command") as caught:
        ensure_built()
    assert "unset it" in caught.value.hint


@pytest.mark.parametrize("missing", ["clang++-99", "/nowhere/c++ --wrapped", "ccache-that-is-not-here g++"])
def test_a_cxx_that_is_not_installed_is_said_to_be_passed_over(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (compiler.path.parent / "c++").symlink_to(compiler.path)
    monkeypatch.setenv("PATH", f"{compiler.path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", missing)
    said: list[str] = []
    ensure_built(said.append)
    assert len(said) == 1
    assert said[0].endswith(f"with {compiler.path.parent}/c++: CXX names {missing}, which is not installed")


def test_a_cxx_that_is_installed_is_the_one_that_builds(compiler: FakeCompiler) -> None:
    found = find_compiler()
    assert found is not None and found.command == (str(compiler.path),) and not found.instead_of
    unset = find_compiler({"PATH": os.environ["PATH"]})
    assert unset is None or not unset.instead_of
