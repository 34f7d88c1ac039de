"""The native library from its sources: compiled once per machine, found again by the hash of all that made it.

    python -m llm_local.kernels.build --into FOLDER      for a wheel that ships the library

Each instruction-set variant is one object with flags of its own; which one runs is decided when the library is
loaded, so a library may travel to any machine of its platform.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.errors import LocalLLMError

__all__ = ["BuildFailed", "Compiler", "build_key", "cache_folder", "ensure_built", "find_compiler"]

logger = logging.getLogger(__name__)

SOURCES: Final = Path(__file__).parent / "native"
PREBUILT: Final = Path(__file__).parent / "_prebuilt"
LIBRARY: Final = "libllm_local.so"  # also on macOS, whose loader does not mind
TIME_LIMIT_S: Final = 600
LOCK_POLL_S: Final = 0.1

# No -ffast-math: the order of sums is part of what the kernels promise. Contraction is off for the same reason;
# the sources say where they fuse.
_FLAGS: Final = "-std=c++17 -O3 -fno-math-errno -ffp-contract=off -fPIC -fvisibility=hidden -pthread".split()
_AVX2: Final = "-mavx2 -mfma -mf16c".split()
_AVX512: Final = (*_AVX2, *"-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16".split())
_X86_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "amx": (*_AVX512, "-mamx-tile", "-mamx-int8"),
    "avx512": _AVX512,
    "avx2": tuple(_AVX2),
    "portable": (),
}
_SHARED_UNITS: Final = ("dispatch", "features", "parallel")


class BuildFailed(LocalLLMError):
    """The native library cannot be made here; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler and what it says its version is."""

    command: tuple[str, ...]
    version: str


def find_compiler(environ: Mapping[str, str] | None = None) -> Compiler | None:
    """The first of $CXX, c++, g++ and clang++ that runs; None when there is none."""
    env = os.environ if environ is None else environ
    named = [shlex.split(env["CXX"])] if env.get("CXX", "").strip() else []
    for words in (*named, ["c++"], ["g++"], ["clang++"]):
        path = shutil.which(words[0], path=env.get("PATH"))
        if path is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(  # noqa: S603 - the user's own compiler
                [path, *words[1:], "--version"], capture_output=True, text=True, timeout=30, check=True
            )
            return Compiler((path, *words[1:]), told.stdout.partition("\n")[0].strip())
    return None


def build_key(compiler: Compiler) -> str:
    """What tells one library from another: its sources, compiler, flags and platform."""
    return _digest(_sources_digest(), *compiler.command, compiler.version, platform.machine(), sys.platform)


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where built libraries are kept: `kernels` under LLM_LOCAL_HOME, else under the user's cache directory."""
    env = os.environ if environ is None else environ
    home = env.get("LLM_LOCAL_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "llm-local")
    return Path(home).expanduser() / "kernels"


def ensure_built(on_progress: Callable[[str], None] | None = None) -> Path:
    """The library's file, built now if it is nowhere.

    Two processes that come at once build once. Where the cache cannot be written, the library goes to a temporary
    folder that disappears with this process.

    Raises:
        BuildFailed: no compiler, or the compiler fails.
    """
    shipped = PREBUILT / LIBRARY
    with contextlib.suppress(OSError):
        if (PREBUILT / "sources.sha256").read_text() == _sources_digest() and shipped.is_file():
            return shipped
    compiler = find_compiler()
    if compiler is None:
        raise BuildFailed("there is no C++ compiler", "Install g++ or clang++.")
    folder = cache_folder() / build_key(compiler)
    library = folder / LIBRARY
    if library.is_file():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not library.is_file():  # somebody else may have built it while we waited
                _build(compiler, library, on_progress or logger.info)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR):
            raise BuildFailed(f"the library cannot be stored: {error}") from error
        logger.info("native kernels are built for this run only: %s", error)
        return _build_for_this_process(compiler, on_progress or logger.info)
    return library


def build_into(folder: Path) -> Path:
    """Build the library into `folder`, with the digest of its sources beside it, to be shipped.

    Raises:
        BuildFailed: as `ensure_built`.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildFailed("there is no C++ compiler", "Install g++ or clang++.")
    folder.mkdir(parents=True, exist_ok=True)
    _build(compiler, folder / LIBRARY, logger.info)
    (folder / "sources.sha256").write_text(_sources_digest())
    return folder / LIBRARY


def _build_for_this_process(compiler: Compiler, report: Callable[[str], None]) -> Path:
    # Late: only a machine without a writable cache needs it.
    import atexit

    try:
        folder = Path(tempfile.mkdtemp(prefix="llm-local-kernels-"))
    except OSError as error:
        raise BuildFailed(f"there is no place to build: {error}") from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _build(compiler, folder / LIBRARY, report)
    return folder / LIBRARY


def _build(compiler: Compiler, library: Path, report: Callable[[str], None]) -> None:
    """Compile in a folder of its own; the library appears whole or not at all."""
    began = time.monotonic()
    report("building native kernels, once on this machine")
    with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as name:
        work = Path(name)
        units = _units()
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda unit: _compile(compiler, unit, work), units))
        made = work / LIBRARY
        objects = [str(work / f"{unit}.o") for unit, _, _ in units]
        _run([*compiler.command, "-shared", "-pthread", *objects, "-o", str(made)])
        os.replace(made, library)
    logger.info("native kernels built in %.1f s with %s", time.monotonic() - began, compiler.version)


def _units() -> list[tuple[str, str, tuple[str, ...]]]:
    """Every object: its name, its source and its flags; the slowest first."""
    machine = platform.machine().lower()
    variants = _X86_VARIANTS if machine in ("x86_64", "amd64") else {"portable": ()}
    compiled = [
        (f"variant_{name}", "variant.cpp", (f"-DLLM_VARIANT={name}", *flags))
        for name, flags in variants.items()
    ]
    return compiled + [(unit, f"{unit}.cpp", ()) for unit in _SHARED_UNITS]


def _compile(compiler: Compiler, unit: tuple[str, str, tuple[str, ...]], work: Path) -> None:
    name, source, flags = unit
    _run([*compiler.command, *_FLAGS, *flags, "-c", str(SOURCES / source), "-o", str(work / f"{name}.o")])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{command[0]} took longer than {TIME_LIMIT_S} s") from None
    if done.returncode != 0:
        logger.debug("%s\n%s", shlex.join(command), done.stderr)
        lines = [
            line for line in done.stderr.splitlines() if "error" in line.lower()
        ] or done.stderr.splitlines()
        raise BuildFailed(f"{command[0]} failed: {(lines or ['no message'])[0].strip()[:300]}")


def _sources_digest() -> str:
    files = sorted(path for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp"))
    flags = [" ".join(flags) for _, _, flags in _units()]
    return _digest(*_FLAGS, *flags, *(f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in files))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`. The system frees it when its holder dies."""
    # Late: not on every platform, and only a build needs it.
    import fcntl

    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    """The command line of a wheel's maker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, help="put the library here instead of into this user's cache")
    args = parser.parse_args()
    library = ensure_built() if args.into is None else build_into(args.into)
    sys.stdout.write(f"{library}\n")


if __name__ == "__main__":
    main()
