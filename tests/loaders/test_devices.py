"""Where a model goes, in which format, and when it is refused for want of memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm_local.errors import InsufficientMemory, InvalidRequest
from llm_local.loaders import devices
from llm_local.loaders.safetensors import Tensor, Weights
from llm_local.specs import ModelSpec

GB = 10**9


def weights(dtype: str, numbers: int) -> Weights:
    size = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}[dtype]
    half = numbers // 2
    return Weights((), {name: Tensor(dtype, (half,), half * size) for name in ("a", "b")})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine made of plain values."""
    is_ = SimpleNamespace(memory=100 * GB, bfloat16=True, gpus=[], mps=False, gpu_bfloat16=True)
    monkeypatch.setattr(devices, "host_bytes", lambda: is_.memory)
    monkeypatch.setattr(devices, "computes_bfloat16", lambda: is_.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(is_.gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(is_.gpus))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index=0: (is_.gpus[index], is_.gpus[index]))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: is_.gpu_bfloat16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: is_.mps)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 20 * GB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 0)
    return is_


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"), [([], False, "cpu"), ([GB], False, "cuda"), ([], True, "mps")]
)
def test_auto_takes_a_gpu_where_there_is_one(machine, gpus, mps: bool, expected: str) -> None:
    machine.gpus, machine.mps = gpus, mps
    assert devices.resolve_device("auto") == expected
    assert devices.resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(machine, asked: str) -> None:
    with pytest.raises(InvalidRequest, match=asked) as caught:
        devices.resolve_device(asked)
    assert caught.value.param == "device"


@pytest.mark.parametrize(
    ("stored", "billions", "bfloat16", "expected"),
    [
        ("BF16", 1.5, True, torch.bfloat16),
        ("BF16", 1.5, False, torch.float32),
        ("F16", 1.5, True, torch.bfloat16),
        ("F16", 1.5, False, torch.float32),
        ("F32", 1.5, True, torch.float32),
        ("F64", 1.5, True, torch.float32),
        ("BF16", 0.005, True, torch.float32),  # the starter: exact costs nothing
    ],
)
def test_auto_on_the_cpu(
    machine, stored: str, billions: float, bfloat16: bool, expected: torch.dtype
) -> None:
    machine.bfloat16 = bfloat16
    assert devices.resolve_dtype(ModelSpec("m"), "cpu", weights(stored, int(billions * GB))) == expected


@pytest.mark.parametrize(
    ("stored", "bfloat16", "expected"),
    [
        ("BF16", True, torch.bfloat16),
        ("BF16", False, torch.float16),
        ("F16", True, torch.float16),
        ("F32", True, torch.float32),
    ],
)
def test_auto_on_a_gpu(machine, stored: str, bfloat16: bool, expected: torch.dtype) -> None:
    machine.gpu_bfloat16 = bfloat16
    assert devices.resolve_dtype(ModelSpec("m"), "cuda", weights(stored, GB)) == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_asked_for_is_what_is_taken(machine, dtype: str) -> None:
    machine.bfloat16 = False
    placement = devices.place(ModelSpec("m", dtype=dtype), weights("BF16", GB))
    assert placement.dtype == getattr(torch, dtype)
    assert placement.notice == ""


def test_a_format_changed_by_auto_is_said(machine) -> None:
    machine.bfloat16 = False
    assert "bfloat16 and run as float32" in devices.place(ModelSpec("m"), weights("BF16", GB)).notice
    machine.bfloat16 = True
    assert devices.place(ModelSpec("m"), weights("BF16", GB)).notice == ""
    assert "float16 and run as bfloat16" in devices.place(ModelSpec("m"), weights("F16", GB)).notice
    assert devices.place(ModelSpec("m"), weights("BF16", 1000)).notice == ""


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(machine) -> None:
    machine.memory = 10 * GB
    with pytest.raises(
        InsufficientMemory, match=r"org/big needs 14\.1 GB .* 10\.0 GB are free on cpu"
    ) as caught:
        devices.place(ModelSpec("org/big"), weights("BF16", 7 * GB))
    assert caught.value.need_bytes > 14 * GB
    assert caught.value.have_bytes == 10 * GB


def test_without_room_for_float32_auto_takes_half_and_an_explicit_format_does_not(machine) -> None:
    machine.bfloat16, machine.memory = False, 20 * GB
    placement = devices.place(ModelSpec("m"), weights("BF16", 7 * GB))
    assert placement.dtype == torch.bfloat16
    with pytest.raises(InsufficientMemory, match="bfloat16"):
        devices.place(ModelSpec("m", dtype="float32"), weights("BF16", 7 * GB))


def test_conversion_counts_the_tensor_that_is_there_twice(machine) -> None:
    same = devices.place(ModelSpec("m"), weights("BF16", GB)).need_bytes
    converted = devices.place(ModelSpec("m"), weights("F16", GB)).need_bytes
    assert converted - same == GB // 2 * 2


def test_several_gpus_share_what_one_does_not_hold(machine) -> None:
    machine.gpus = [10 * GB, 10 * GB]
    assert not devices.place(ModelSpec("m"), weights("BF16", 4 * GB)).spread
    assert devices.place(ModelSpec("m"), weights("BF16", 7 * GB)).spread
    with pytest.raises(InsufficientMemory, match=r"20\.0 GB are free on cuda"):
        devices.place(ModelSpec("m"), weights("BF16", 12 * GB))


def test_a_container_limit_bounds_the_memory(tmp_path: Path) -> None:
    def have() -> int:
        return devices.host_bytes(lambda: 50, cgroup=tmp_path)

    assert have() == 50
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("30\n")
    assert have() == 50
    (tmp_path / "memory.max").write_text("60\n")
    assert have() == 30
    (tmp_path / "memory.stat").write_text("anon 20\ninactive_file 5\n")
    assert have() == 35
    (tmp_path / "memory.max").write_text("10\n")
    assert have() == 0


def test_an_old_container_limit_bounds_it_too(tmp_path: Path) -> None:
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.usage_in_bytes").write_text("30")
    (old / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert devices.host_bytes(lambda: 50, cgroup=tmp_path) == 50
    (old / "memory.limit_in_bytes").write_text("45")
    assert devices.host_bytes(lambda: 50, cgroup=tmp_path) == 15


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx512f avx512_bf16", True), ("asimd bf16", True), ("avx2", False)]
)
def test_bfloat16_is_read_from_the_flags(flags: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse\n")
    assert devices.computes_bfloat16.__wrapped__(tmp_path / "cpuinfo") is expected


def test_this_machine_has_memory() -> None:
    assert 0 < devices.available_bytes("cpu") < 1 << 60
