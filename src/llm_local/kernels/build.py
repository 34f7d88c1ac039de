"""The native library from its sources: compiled once per machine, found again by the hash of all that made it.

    python -m llm_local.kernels.build                  when llm-local is installed, so that no run waits for it
    python -m llm_local.kernels.build --into FOLDER    for a wheel that ships the library (docs/kernels.md)

Each instruction-set variant is one object with flags of its own; which one runs is decided when the library is
loaded, so a library may travel to any machine of its platform.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from llm_local.errors import LocalLLMError
from llm_local.home import cache_home
from llm_local.kernels.compiler import BuildFailed, Compiler, find_compiler
from llm_local.locks import locked

__all__ = [
    "PREBUILT",
    "build_into",
    "cache_folder",
    "discard",
    "ensure_built",
    "environment_folder",
    "install",
    "main",
    "why_missing",
]

logger = logging.getLogger(__name__)

SOURCES: Final = Path(__file__).parent / "native"
PREBUILT: Final = Path(__file__).parent / "_prebuilt"
LIBRARY: Final = "libllm_local.so"  # also on macOS, whose loader does not mind
CHECKSUM: Final = "libllm_local.sha256"
DIGEST: Final = "sources.sha256"

# No -ffast-math: the order of sums is part of what the kernels promise. Contraction is off for the same reason;
# the sources say where they fuse.
_FLAGS: Final = "-std=c++17 -O3 -fno-math-errno -ffp-contract=off -fPIC -fvisibility=hidden -pthread".split()
_AVX2: Final = "-mavx2 -mfma -mf16c".split()
_AVX512: Final = [*_AVX2, *"-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16".split()]
_X86_VARIANTS: Final[Mapping[str, list[str]]] = {
    "amx": [*_AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
    "avx512": _AVX512,
    "avx2": _AVX2,
    "portable": [],
}
_SHARED_UNITS: Final = ("dispatch", "features", "parallel")

_unusable: Final[set[Path]] = set()

Unit = tuple[str, str, list[str]]  # name of the object, its source, its flags
OnBuild = Callable[[str], None]


def environment_folder() -> Path:
    """Where an installation keeps the library it built: inside its Python environment."""
    return Path(sys.prefix) / "share" / "llm-local" / "kernels"


def cache_folder() -> Path:
    """Where a library built at first use is kept."""
    return cache_home() / "kernels"


def ensure_built(on_build: OnBuild | None = None) -> Path:
    """The library's file: shipped, or built earlier, or built now into the cache.

    Two processes that come at once build once. Where the cache cannot be written, the library goes to a temporary
    folder that disappears with this process. `on_build` is told in one line when a build starts; without one it is a
    warning in the log, for whoever waits should know why.

    Raises:
        BuildFailed: no compiler, or the compiler fails.
    """
    compiler = find_compiler()
    return _find(compiler) or _build_in(cache_folder(), compiler, on_build or logger.warning)


def why_missing() -> str:
    """Why there can be no library here, found out without building one and without torch; "" where there can."""
    try:
        compiler = find_compiler()
    except BuildFailed as error:
        return error.message
    return "" if compiler is not None or _find(None) is not None else "there is no C++ compiler"


def install(on_build: OnBuild | None = None) -> Path:
    """As `ensure_built`, but a build goes into the environment, for all who use it.

    Raises:
        BuildFailed: as `ensure_built`.
    """
    compiler = find_compiler()
    return _find(compiler) or _build_in(environment_folder(), compiler, on_build or logger.info)


def build_into(folder: Path) -> Path:
    """Build the library into `folder`, with the digest of its sources beside it, to be shipped.

    It needs a C++ runtime as new as its compiler's; where it does not load, another is built.

    Raises:
        BuildFailed: as `ensure_built`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _build(_needed(find_compiler()), folder / LIBRARY, logger.info)
    (folder / DIGEST).write_text(_sources_digest(), encoding="utf-8")
    return folder / LIBRARY


def discard(library: Path) -> None:
    """Never give out again, in this process, a library that does not load; delete it where that is allowed.

    The next `ensure_built` makes another. One that was shipped stays: it may be right for other users of the files.
    """
    _unusable.add(library)
    if library.parent != PREBUILT:
        with contextlib.suppress(OSError):
            library.unlink()


def _find(compiler: Compiler | None) -> Path | None:
    """A library of exactly these sources. Without a compiler, whoever's: it ran here once."""
    with contextlib.suppress(OSError):
        shipped = PREBUILT / LIBRARY
        if (PREBUILT / DIGEST).read_text(encoding="utf-8") == _sources_digest() and _is_usable(shipped):
            return shipped
    for root in (environment_folder(), cache_folder()):
        made = root / _sources_digest()
        if compiler is not None:
            library = made / _digest(compiler.identity) / LIBRARY
            if _is_usable(library):
                return library
        else:
            with contextlib.suppress(OSError):
                for library in filter(_is_usable, sorted(made.glob(f"*/{LIBRARY}"))):
                    return library
    return None


def _is_usable(library: Path) -> bool:
    """True for a library as it was built. The system's loader crashes on a truncated one."""
    if library in _unusable:
        return False
    try:
        checksum = (library.parent / CHECKSUM).read_text(encoding="utf-8")
        return hashlib.sha256(library.read_bytes()).hexdigest() == checksum
    except (OSError, UnicodeDecodeError):
        return False


def _build_in(root: Path, compiler: Compiler | None, report: OnBuild) -> Path:
    compiler = _needed(compiler)
    library = root / _sources_digest() / _digest(compiler.identity) / LIBRARY
    try:
        with locked(library.parent / "lock"):
            if not _is_usable(library):  # somebody else may have built it while we waited
                _build(compiler, library, report)
        return library
    except OSError as error:
        logger.info("native kernels are built for this run only: %s", error)
    return _build_for_this_process(compiler, report)


def _needed(compiler: Compiler | None) -> Compiler:
    if compiler is None:
        raise BuildFailed("there is no C++ compiler", "Install g++ or clang++.")
    return compiler


def _build_for_this_process(compiler: Compiler, report: OnBuild) -> Path:
    # Late: only a machine without a writable cache needs it.
    import atexit

    try:
        folder = Path(tempfile.mkdtemp(prefix="llm-local-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _build(compiler, folder / LIBRARY, report)
    except OSError as error:
        raise BuildFailed(f"there is no place to build: {error}") from error
    return folder / LIBRARY


def _build(compiler: Compiler, library: Path, report: OnBuild) -> None:
    """Compile in a folder of its own; the library appears whole or not at all."""
    began = time.monotonic()
    report(f"building the native kernels, once on this machine (about half a minute){_choice(compiler)}")
    for left in library.parent.glob("build-*"):  # of one that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as name:
        work = Path(name)
        units = _units()
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda unit: _compile(compiler, unit, work), units))
        made = work / LIBRARY
        objects = [str(work / f"{unit}.o") for unit, _, _ in units]
        compiler.run(["-shared", "-pthread", *objects, "-o", str(made)])
        checksum = work / CHECKSUM
        checksum.write_text(hashlib.sha256(made.read_bytes()).hexdigest(), encoding="utf-8")
        os.replace(checksum, library.parent / CHECKSUM)
        os.replace(made, library)
    _unusable.discard(library)
    logger.info("native kernels built in %.1f s by %s", time.monotonic() - began, compiler.command[0])


def _choice(compiler: Compiler) -> str:
    """What to say where $CXX could not be obeyed."""
    if not compiler.instead_of:
        return ""
    return f" with {compiler.command[0]}: CXX names {compiler.instead_of}, which is not installed"


def _compile(compiler: Compiler, unit: Unit, work: Path) -> None:
    name, source, flags = unit
    compiler.run([*_FLAGS, *flags, "-c", str(SOURCES / source), "-o", str(work / f"{name}.o")])


def _units() -> list[Unit]:
    """Every object; the slowest first."""
    machine = platform.machine().lower()
    variants = _X86_VARIANTS if machine in ("x86_64", "amd64") else {"portable": []}
    compiled = [
        (f"variant_{name}", "variant.cpp", [f"-DLLM_VARIANT={name}", *flags])
        for name, flags in variants.items()
    ]
    return [*compiled, *((unit, f"{unit}.cpp", []) for unit in _SHARED_UNITS)]


@functools.cache
def _sources_digest() -> str:
    """Of all that a library is made from and for, but the compiler."""
    files = sorted(path for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp"))
    texts = [f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in files]
    flags = [" ".join((name, *flags)) for name, _, flags in _units()]
    return _digest(sys.platform, platform.machine(), *_FLAGS, *flags, *texts)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def main() -> int:
    """Build, and print where the library is; 1 with one line when it cannot be built."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--into", type=Path, help="build there, to be shipped, instead of into this environment"
    )
    folder = parser.parse_args().into
    try:
        library = install(_say) if folder is None else build_into(folder)
    except LocalLLMError as error:
        _say(f"no native kernels: {error.message}. {error.hint}".rstrip())
        return 1
    sys.stdout.write(f"{library}\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
