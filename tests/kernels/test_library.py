"""The library in a process: checked before use, on torch's threads, absent with a reason."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from llm_local.errors import EngineError
from llm_local.kernels import library
from llm_local.kernels.compiler import BuildFailed
from llm_local.kernels.layout import STRUCTS, LlmLinear, LlmWeightKind
from llm_local.kernels.library import Native, native, status

LIBRARY = native()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=status().reason or "library")
ROWS, COLS = 300, 128


def loaded() -> Native:
    """The library of this process."""
    assert LIBRARY is not None
    return LIBRARY


def product(threads: int, tokens: int = 5) -> torch.Tensor:
    """A fixed product on so many threads."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, COLS, generator=generator)
    x = torch.randn(tokens, COLS, generator=generator)
    out = torch.empty(tokens, ROWS)
    struct = LlmLinear(LlmWeightKind.F32, ROWS, COLS, 0, weight.data_ptr(), None)
    loaded().linear([struct], x, [out], threads)
    torch.testing.assert_close(out, x @ weight.T, rtol=1e-4, atol=1e-4)
    return out


@needs_library
def test_both_sides_agree_on_every_struct() -> None:
    sizes = [loaded()._library.llm_struct_bytes(index) for index in range(len(STRUCTS) + 1)]
    assert sizes == [*(ctypes.sizeof(one) for one in STRUCTS), 0]


@needs_library
def test_status_says_what_runs() -> None:
    told = status()
    assert told.variant in told.usable_variants and "portable" in told.usable_variants
    assert Path(told.library).is_file() and told.reason == ""
    if sys.platform == "linux":
        assert told.threads.startswith("OpenMP of torch")


@needs_library
def test_any_number_of_threads_gives_the_same_bits() -> None:
    one = product(1)
    for threads in (2, 3, 4, 8):
        for _ in range(20):
            assert torch.equal(product(threads), one)


@needs_library
def test_many_python_threads_may_call_at_once() -> None:
    expected = product(1)
    wrong: list[object] = []

    def call() -> None:
        for _ in range(30):
            if not torch.equal(product(2), expected):
                wrong.append("differs")

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert not wrong and not any(caller.is_alive() for caller in callers)


OWN_POOL = """
import ctypes, torch
from tests.kernels.test_library import loaded, product
expected = product(1)
loaded()._library.llm_use_openmp(None, None, None)
for threads in (2, 4, 3, 1, 2):
    for _ in range(50):
        assert torch.equal(product(threads), expected)
print("same")
"""


@needs_library
def test_the_library_has_threads_of_its_own_where_torch_has_none_to_share() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", OWN_POOL],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("same\n", 0), done.stderr


@needs_library
def test_every_variant_of_this_cpu_can_be_chosen_and_no_other() -> None:
    before = loaded().variant
    try:
        for name in loaded().variants:
            loaded().use_variant(name)
            assert loaded().variant == name
            product(2)
        with pytest.raises(Exception, match="no kernel variant 'cray' .*") as caught:
            loaded().use_variant("cray")
        assert "portable" in caught.value.hint  # type: ignore[attr-defined]
    finally:
        loaded().use_variant(before)


@needs_library
def test_a_buffer_that_is_too_small_or_crooked_is_refused() -> None:
    weight = torch.randn(16, 64)
    room = torch.empty(loaded().packed_bytes(LlmWeightKind.Q8, 16, 64) + 128, dtype=torch.uint8)
    with pytest.raises(EngineError, match="too small"):
        loaded().pack(LlmWeightKind.Q8, weight, room[:64])
    crooked = room[1 - room.data_ptr() % 64 :] if room.data_ptr() % 64 else room[1:]
    with pytest.raises(EngineError, match="not aligned"):
        loaded().pack(LlmWeightKind.Q8, weight, crooked)


@needs_library
@pytest.mark.parametrize(
    ("x", "out"),
    [
        (torch.zeros(2, COLS, dtype=torch.float16), torch.zeros(2, ROWS, dtype=torch.float16)),
        (torch.zeros(2, COLS), torch.zeros(2, ROWS, dtype=torch.bfloat16)),
        (torch.zeros(COLS, 2).T, torch.zeros(2, ROWS)),
        (torch.zeros(2, COLS, device="meta"), torch.zeros(2, ROWS)),
        (torch.zeros(2, COLS + 1), torch.zeros(2, ROWS)),
        (torch.zeros(2, COLS), torch.zeros(3, ROWS)),
        (torch.zeros(2, COLS), torch.zeros(2, ROWS - 1)),
        (torch.zeros(COLS), torch.zeros(1, ROWS)),
        (torch.zeros(1, 2, COLS), torch.zeros(1, ROWS)),
    ],
)
def test_tensors_of_another_kind_never_reach_the_library(x: torch.Tensor, out: torch.Tensor) -> None:
    weight = torch.zeros(ROWS, COLS)
    struct = LlmLinear(LlmWeightKind.F32, ROWS, COLS, 0, weight.data_ptr(), None)
    with pytest.raises(EngineError, match="native kernel|Native kernels|shapes of a linear"):
        loaded().linear([struct], x, [out])


@needs_library
def test_a_matrix_without_weights_is_refused() -> None:
    x, out = torch.zeros(2, COLS), torch.zeros(2, ROWS)
    for kind in (*LlmWeightKind, 7):
        with pytest.raises(EngineError, match="bad_argument"):
            loaded().linear([LlmLinear(kind, ROWS, COLS, 0, None, None)], x, [out])


@needs_library
def test_integers_cannot_be_packed() -> None:
    integers = torch.zeros(2, 8, dtype=torch.int32)
    with pytest.raises(EngineError, match="int32 on cpu cannot be packed"):
        loaded().pack(LlmWeightKind.Q8, integers, torch.zeros(9999, dtype=torch.uint8))


@needs_library
def test_a_library_that_does_not_load_is_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = loaded().path
    foreign = tmp_path / "libllm_local.so"
    foreign.write_text("not a library")
    answers = iter([foreign, good])
    monkeypatch.setattr(library, "ensure_built", lambda: next(answers))
    again = library._load.__wrapped__()
    assert isinstance(again, Native) and not foreign.exists()


def test_a_machine_without_a_compiler_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise BuildFailed("there is no C++ compiler", "Install g++ or clang++.")

    monkeypatch.setattr(library, "ensure_built", fail)
    monkeypatch.setattr(library, "_load", library._load.__wrapped__)
    assert native() is None
    reason, mend = "there is no C++ compiler", "Install g++ or clang++."
    assert status() == library.NativeStatus("", (), "", "", reason, mend)
