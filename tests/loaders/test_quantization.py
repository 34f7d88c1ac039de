"""Whether weights are packed, and what people are told."""

from __future__ import annotations

import math

import pytest

from llm_local.errors import InsufficientMemory, InvalidRequest
from llm_local.loaders import devices
from llm_local.loaders.quantization import Choice, choose_quantization, describe, estimated_bytes
from llm_local.loaders.safetensors import Tensor, Weights
from llm_local.specs import ModelSpec

GB = 10**9


def weights(*tensors: tuple[str, tuple[int, ...]], dtype: str = "BF16") -> Weights:
    size = {"BF16": 2, "F32": 4}[dtype]
    return Weights((), {name: Tensor(dtype, shape, size * math.prod(shape)) for name, shape in tensors})


LARGE = weights(
    ("model.embed_tokens.weight", (32_000, 4096)),
    ("model.layers.0.mlp.up_proj.weight", (16_384, 4096)),
    ("model.layers.0.norm.weight", (4096,)),
)
SMALL = weights(("model.layers.0.mlp.up_proj.weight", (1024, 4096)))
MOE = weights(("model.layers.0.mlp.experts.0.w1.weight", (16_384, 4096)), ("lm_head.weight", (4096, 4096)))


def choose(found: Weights = LARGE, device: str = "cpu", no_native: str = "", **spec: str) -> Choice:
    return choose_quantization(ModelSpec("m", **spec), device, found, lambda: no_native)  # type: ignore[arg-type]


def test_auto_packs_large_models_on_a_cpu_to_8_bits() -> None:
    assert choose() == Choice("int8")
    assert choose(device="cuda") == choose(device="mps") == choose(SMALL) == Choice("none")


def test_auto_leaves_a_model_that_packing_would_not_shrink() -> None:
    assert choose(MOE) == Choice("none")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_number_format_that_was_asked_for_means_no_quantization_unless_both_are(dtype: str) -> None:
    assert choose(dtype=dtype) == Choice("none")
    both = choose(dtype=dtype, quantization="int4")
    assert both.bits == "int4"
    assert ("is not used" in both.why) is (dtype != "float32")


def test_without_native_code_auto_keeps_the_weights_and_an_explicit_choice_runs_on_torch() -> None:
    auto, explicit = choose(no_native="no compiler"), choose(no_native="no compiler", quantization="int8")
    assert auto.bits == "none"
    assert explicit.bits == "int8"
    for choice in (auto, explicit):
        assert "no compiler" in choice.why
    assert choose(SMALL, no_native="no compiler").why == ""  # it would not have been packed anyway


def test_kernels_that_were_switched_off_are_not_explained_to_who_did_it() -> None:
    assert choose(no_native="KERNELS is off", kernels="off") == Choice("none")


def test_native_code_is_only_asked_for_where_it_matters() -> None:
    def never() -> str:
        raise AssertionError

    for spec, found in ((ModelSpec("m"), SMALL), (ModelSpec("m", quantization="none"), LARGE)):
        assert choose_quantization(spec, "cpu", found, never).bits == "none"


def test_an_unknown_word_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidRequest, match="'int3', but must be one of auto, int8, int4, none") as caught:
        choose(quantization="int3")
    assert caught.value.param == "quantization"


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_packed_weights_on_a_gpu_are_refused(bits: str) -> None:
    with pytest.raises(InvalidRequest, match="run on the CPU, but the device is cuda"):
        choose(device="cuda", quantization=bits)


def test_sizes_are_estimated_from_the_headers() -> None:
    embedding, matrix, norm = 32_000 * 4096, 16_384 * 4096, 4096
    assert estimated_bytes(LARGE, "int8") == (embedding + matrix) * 1088 // 1024 + 4 * norm
    assert estimated_bytes(LARGE, "int4") == embedding * 1088 // 1024 + matrix * 576 // 1024 + 4 * norm
    assert estimated_bytes(MOE, "int8") == 4 * 16_384 * 4096 + 4096 * 4096 * 1088 // 1024


def test_the_choice_and_its_cost_are_one_line() -> None:
    assert describe("int8", 1_640_000_000, 3_090_000_000) == (
        "8-bit weights (1.6 GB instead of 3.1 GB); --quant none for the original."
    )
    assert describe("int4", 35_000_000, 90_000_000).startswith("4-bit weights (35 MB instead of 90 MB)")


def test_memory_is_counted_as_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "no_native", lambda kernels: "")
    have = {"bytes": GB}
    monkeypatch.setattr(devices, "available_bytes", lambda device: have["bytes"])
    placement = devices.place(ModelSpec("m", device="cpu"), LARGE)
    assert placement.bits == "int8"
    assert estimated_bytes(LARGE, "int8") < placement.need_bytes < estimated_bytes(LARGE, "int8") + 2**27
    have["bytes"] = placement.need_bytes - 1
    with pytest.raises(InsufficientMemory, match="as int8") as caught:
        devices.place(ModelSpec("m", device="cpu"), LARGE)
    assert "--quant int4" in caught.value.hint
    assert caught.value.need_bytes == placement.need_bytes
    with pytest.raises(InsufficientMemory) as caught:
        devices.place(ModelSpec("m", device="cpu", quantization="none"), LARGE)
    assert "int8" not in caught.value.hint  # it would not fit either
    have["bytes"] = placement.need_bytes
    with pytest.raises(InsufficientMemory) as caught:
        devices.place(ModelSpec("m", device="cpu", quantization="none"), LARGE)
    assert "--quant int8" in caught.value.hint
