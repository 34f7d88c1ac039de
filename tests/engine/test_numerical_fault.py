"""Logits that are no numbers: the engine's error names the damaged weight, or says that the weights are sound."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine_driving import drain, request, run
from llm_local.engine import numerical_fault
from llm_local.engine.factory import make_engine
from llm_local.engine.numerical_fault import NumericalFault
from llm_local.errors import ModelCorrupt, NumericalError
from llm_local.generation.engines import engine_for
from llm_local.kernels.layout import LlmWeightKind
from llm_local.loaders.finite_weights import find_bad_weight, is_finite
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.specs import EngineOptions, ModelInfo, ModelSpec, Quantization
from tiny_checkpoints import save_checkpoint
from tiny_models import CONTEXT_LENGTH, packed_variant, random_prompt, tiny_variant

# One for each runner.
TIERS = [("llama", "auto"), ("llama", "linears"), ("llama", "off"), ("mamba", "auto")]


def info_of(model, path="", quantization="none"):
    """What a loader would say of a model."""
    dtype = str(model.dtype).removeprefix("torch.")
    return ModelInfo("tiny", str(path), "x", 1, 1, dtype, "cpu", CONTEXT_LENGTH, 1, False, quantization)


def failure(model, kernels="auto", names="a", **facts):
    """The error of the last of some requests, of whose engine the fault is the model's."""
    engine = make_engine(model, context_length=CONTEXT_LENGTH, kernels=kernels)
    engine.explain = NumericalFault(model, info_of(model, **facts)).explain
    for name in names:
        engine.submit(request(name, random_prompt(9)))
    steps = drain(engine)
    assert engine.stats()["kv_used_bytes"] == 0
    return steps[names[-1]][-1].error


def damaged(model_type, value, dtype=torch.float32):
    """A tiny model with one bad value in a matrix of its second layer, and the name of that matrix."""
    model = copy.deepcopy(tiny_variant(model_type)).to(dtype)
    name, weight = next(
        (name, one) for name, one in model.named_parameters() if ".1." in name and "proj" in name
    )
    weight.data.view(-1)[77] = value
    return model, name


@pytest.mark.parametrize(("model_type", "kernels"), TIERS)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_damaged_weight_is_named_by_every_runner(model_type: str, kernels: str, value: float) -> None:
    model, name = damaged(model_type, value)
    error = failure(model, kernels)
    assert isinstance(error, ModelCorrupt) and f"{name} has values that are infinite" in error.message
    assert "fetch it again" in error.hint and isinstance(error.__cause__, NumericalError)


def damage(folder: Path, name: str, value: float) -> str:
    """Put a bad value into a stored tensor; the name of its file."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            tensors[name].view(-1)[17] = value
            save_file(tensors, path, {"format": "pt"})
            return path.name
    raise AssertionError(name)


NAME = "model.layers.2.mlp.down_proj.weight"


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_product_names_the_file_of_a_damaged_weight(tmp_path: Path, quantization: Quantization) -> None:
    """Through the doors; packed weights are looked at while they are packed."""
    folder = save_checkpoint(tmp_path / "m", shard_size="100KB")
    file = damage(folder, NAME, torch.nan)
    spec = ModelSpec(str(folder), quantization=quantization, device="cpu")
    with pytest.raises(ModelCorrupt, match=f"^{file} is damaged: {NAME} has") as caught:
        loaded = load_tokenizer_and_model(spec)
        run(engine_for(loaded, EngineOptions(), None), request("a", random_prompt(9)))
    assert caught.value.file == file
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_what_is_no_module_is_looked_for_in_its_files(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m")
    info = info_of(tiny_variant("llama"), folder)
    error = NumericalError("The logits are not finite.")
    assert isinstance(NumericalFault(object(), info).explain(error), NumericalError)
    damage(folder, NAME, torch.inf)
    found = NumericalFault(object(), info).explain(error)
    assert isinstance(found, ModelCorrupt) and found.file == "model.safetensors" and NAME in found.message


def test_a_weight_that_overflows_when_it_is_loaded_is_not_called_damaged(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m")
    damage(folder, NAME, 1e6)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    error = failure(model, path=folder)
    assert isinstance(error, NumericalError) and error.hint == "Try --dtype float32."
    assert f"in float16 {NAME} is out of range" in error.message


@pytest.mark.parametrize(
    ("dtype", "hint"), [(torch.bfloat16, "Try --dtype float32."), (torch.float32, "leaves them finite")]
)
@pytest.mark.parametrize("kernels", ["auto", "linears", "off"])
def test_sound_weights_that_overflow_are_not_called_damaged(
    dtype: torch.dtype, hint: str, kernels: str
) -> None:
    model = copy.deepcopy(tiny_variant("llama")).to(dtype)
    model.lm_head.weight.data.fill_(3e38)
    error = failure(model, kernels)
    assert isinstance(error, NumericalError) and hint in error.hint
    assert "Its stored weights are" in error.message and str(dtype).removeprefix("torch.") in error.message


def test_a_packed_model_is_told_to_go_without_packing() -> None:
    model = copy.deepcopy(packed_variant("llama", LlmWeightKind.Q8))
    model.model.norm.weight.data.fill_(3e38)
    error = failure(model, quantization="int8")
    assert isinstance(error, NumericalError) and error.hint == "Try --quant none."


def test_the_weights_are_read_once_and_only_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    plain = find_bad_weight
    monkeypatch.setattr(numerical_fault, "find_bad_weight", lambda model: (looked.append(1), plain(model))[1])
    assert failure(tiny_variant("llama")) is None and not looked
    model, name = damaged("llama", float("nan"))
    error = failure(model, names="abc")
    assert name in error.message and len(looked) == 1


def test_weights_that_cannot_be_looked_at_leave_the_first_error() -> None:
    error = NumericalError("The logits are not finite.")
    broken = torch.nn.Module()
    broken.named_parameters = None  # type: ignore[assignment]
    assert NumericalFault(broken, info_of(tiny_variant("llama"))).explain(error) is error


def test_a_buffer_may_hold_infinity_but_no_nan() -> None:
    model = torch.nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    model.register_buffer("table", torch.tensor(torch.nan), persistent=False)
    model.register_buffer("small", torch.ones(3).to(torch.float8_e4m3fn))
    assert find_bad_weight(model) is None
    model.register_buffer("scale", torch.tensor(torch.nan))
    assert find_bad_weight(model) == "scale"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2]
)
def test_one_bad_value_among_many_is_found_wherever_it_is(dtype: torch.dtype) -> None:
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in (0, 1234, 4999):
            numbers = torch.linspace(-3, 3, 5000)
            assert is_finite(numbers.to(dtype))
            numbers[place] = value
            assert not is_finite(numbers.to(dtype).view(50, 100))
    assert is_finite(torch.empty(0, 3, dtype=dtype)) and is_finite(torch.tensor(1.0, dtype=dtype))
    assert is_finite(torch.tensor([1, 2]))
