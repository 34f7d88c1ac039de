"""Parallel regions: every task once, phases in order, on torch's threads and on the library's own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ctypes import c_int32, c_int64, c_void_p
from pathlib import Path

import pytest
import torch

from llm_local.kernels.build import SOURCES
from llm_local.kernels.compiler import find_compiler

PATIENCE_S = 120


class Counts(ctypes.Structure):
    """What regions.cpp counted: tasks that went wrong, and the size of the last team."""

    _fields_ = [("wrong", c_int64), ("members", c_int32)]


class Regions:
    """regions.cpp over the library's parallel.cpp."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.run_regions.argtypes = [c_int32, c_int32, c_int32, c_int64, c_void_p]
        self._library.run_regions.restype = None
        self._library.llm_use_openmp.argtypes = [c_void_p] * 3

    def use(self, runtime: ctypes.CDLL | None) -> None:
        """Run on an OpenMP runtime, or on the library's own pool."""
        names = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
        pointers = [
            None if runtime is None else ctypes.cast(getattr(runtime, name), c_void_p) for name in names
        ]
        self._library.llm_use_openmp(*pointers)

    def run(self, regions: int, threads: int, phases: int, tasks: int) -> int:
        """Run so many regions, each of so many phases of tasks; the size of the last one's team."""
        counts = Counts()
        self._library.run_regions(regions, threads, phases, tasks, ctypes.byref(counts))
        assert counts.wrong == 0
        return counts.members


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """regions.cpp and parallel.cpp, compiled."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    made = tmp_path_factory.mktemp("regions") / "libregions.so"
    sources = [str(Path(__file__).parent / "regions.cpp"), str(SOURCES / "parallel.cpp")]
    flags = "-std=c++17 -O2 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -pthread -shared -iquote".split()
    compiler.run([*flags, str(SOURCES), *sources, "-o", str(made)])
    return made


def torch_openmp() -> ctypes.CDLL:
    """The OpenMP runtime that torch loaded, where it is GNU's or speaks its language."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*")):
        runtime = ctypes.CDLL(str(path))
        if hasattr(runtime, "GOMP_parallel"):
            return runtime
    pytest.skip("torch brought no OpenMP runtime that can be shared")


@pytest.fixture(params=["own", "openmp"])
def regions(request: pytest.FixtureRequest, library: Path) -> Iterator[Regions]:
    """Regions on each kind of threads."""
    made = Regions(library)
    made.use(torch_openmp() if request.param == "openmp" else None)
    yield made
    made.use(None)


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 4])
def test_every_task_runs_once_and_after_the_phase_before(regions: Regions, threads: int) -> None:
    members = regions.run(regions=20, threads=threads, phases=6, tasks=97)
    assert members == max(threads, 1)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_members_without_a_task_wait(regions: Regions, tasks: int) -> None:
    regions.run(regions=50, threads=4, phases=8, tasks=tasks)


def test_regions_of_any_size_follow_each_other(regions: Regions) -> None:
    for threads in (4, 1, 2, 3, 2, 4) * 30:
        assert regions.run(regions=1, threads=threads, phases=2, tasks=5) == threads


def test_many_python_threads_at_once(regions: Regions) -> None:
    failed: list[BaseException] = []

    def call() -> None:
        try:
            regions.run(regions=20, threads=3, phases=3, tasks=11)
        except BaseException as error:
            failed.append(error)

    callers = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_S)
    assert not failed and not any(caller.is_alive() for caller in callers)


def test_busy_neighbors_do_not_stop_it(regions: Regions) -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    neighbors = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        began = time.monotonic()
        regions.run(regions=20, threads=os.cpu_count() or 1, phases=4, tasks=50)
        assert time.monotonic() - began < PATIENCE_S
    finally:
        for neighbor in neighbors:
            neighbor.kill()
            neighbor.wait()


def in_a_process(program: str, *arguments: str) -> None:
    """Run a program in a fresh process; it has to succeed."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


FORK = """
import os, sys
from pathlib import Path
from tests.kernels.test_parallel import Regions, torch_openmp
regions = Regions(Path(sys.argv[1]))
regions.use(torch_openmp() if sys.argv[2] == "openmp" else None)
regions.run(5, 3, 2, 9)
child = os.fork()
assert regions.run(5, 3, 2, 9) == 3
if child == 0:
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("kind", ["own", "openmp"])
def test_a_forked_process_has_threads_of_its_own(library: Path, kind: str) -> None:
    if kind == "openmp":
        torch_openmp()
    in_a_process(FORK, str(library), kind)


SCARCE = """
import re, resource, sys
from pathlib import Path
from tests.kernels.test_parallel import Regions
regions = Regions(Path(sys.argv[1]))
regions.use(None)
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))  # room for a few stacks
members = regions.run(2, 200, 2, 500)
assert 1 <= members < 200, members
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_system_that_gives_no_more_threads_gets_a_smaller_team(library: Path) -> None:
    in_a_process(SCARCE, str(library))
