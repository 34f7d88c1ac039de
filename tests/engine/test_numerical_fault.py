"""Logits that are no numbers: the engine's error names the damaged weight, or says that the weights are sound."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from engine_driving import drain, request
from llm_local.engine import numerical_fault
from llm_local.engine.factory import make_engine
from llm_local.engine.numerical_fault import NumericalFault
from llm_local.errors import ModelCorrupt, NumericalError
from llm_local.kernels.layout import LlmWeightKind
from llm_local.loaders.finite_weights import damaged_weight, find_bad_weight, is_finite, weight_files
from tiny_checkpoints import save_checkpoint
from tiny_models import CONTEXT_LENGTH, packed_variant, random_prompt, tiny_variant

# One for each runner.
TIERS = [("llama", "auto"), ("llama", "linears"), ("llama", "off"), ("mamba", "auto")]


def failure(model, kernels="auto", names="a"):
    """The error of the last of some requests, of whose engine the fault is the model's."""
    engine = make_engine(model, context_length=CONTEXT_LENGTH, kernels=kernels)
    engine.explain = NumericalFault(model).explain
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


def test_the_file_of_a_damaged_weight_is_named(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m", shard_size="100KB")
    model = AutoModelForCausalLM.from_pretrained(folder)
    files = weight_files(model)
    assert len(files) > 1
    model.model.layers[2].mlp.down_proj.weight.data[3, 5] = torch.inf
    error = failure(model)
    assert isinstance(error, ModelCorrupt) and error.file in {path.name for path in files}
    assert error.message.startswith(f"{error.file} is damaged: model.layers.2.mlp.down_proj.weight has")


@pytest.mark.parametrize("name", ["transformer.h.0.w", "h.0.w", "0.w"])
def test_a_prefix_that_the_model_puts_before_a_stored_name_does_not_matter(tmp_path: Path, name: str) -> None:
    for file, tensors in (("a", {"wte.w": torch.zeros(1)}), ("b", {"h.0.w": torch.zeros(1)})):
        save_file(tensors, tmp_path / file)
    assert damaged_weight(name, [tmp_path / "a", tmp_path / "b"]).file == "b"
    assert damaged_weight("w", [tmp_path / "a", tmp_path / "b"]).file is None


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
    assert "all its weights are" in error.message and str(dtype).removeprefix("torch.") in error.message


def test_a_packed_model_is_told_to_go_without_packing() -> None:
    model = copy.deepcopy(packed_variant("llama", LlmWeightKind.Q8))
    model.model.norm.weight.data.fill_(3e38)
    error = failure(model)
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
    assert NumericalFault(SimpleNamespace(named_parameters=None)).explain(error) is error


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
