"""Models loaded with packed weights: the same model, fewer bytes, and never a wrong one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llm_local.errors import InvalidRequest, ModelCorrupt
from llm_local.events import Progress
from llm_local.kernels.library import native
from llm_local.kernels.linear import PackedEmbedding, PackedLinear
from llm_local.loaders import devices, quantization, quantized_lm
from llm_local.model_loader import LoadedModel, load_tokenizer_and_model
from llm_local.specs import ModelSpec
from tiny_checkpoints import edit_json, save_checkpoint
from tiny_models import ARCHITECTURES, random_prompt

needs_native = pytest.mark.skipif(native() is None, reason="no native kernels here")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny qwen2, whose attention has biases."""
    return save_checkpoint(tmp_path / "qwen2", "qwen2")


def load(folder: Path, bits: str = "int8", **spec: Any) -> LoadedModel:
    return load_tokenizer_and_model(ModelSpec(str(folder), quantization=bits, device="cpu", **spec))  # type: ignore[arg-type]


def logits(loaded: LoadedModel, prompt: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0].float()


def error(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).std() / other.std())


def packed_files(home: Path) -> list[Path]:
    return sorted((home / "llm-local" / "packed").glob("*.pack"))


# Every architecture


@needs_native
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_runs_packed_and_the_second_load_is_the_first(
    tmp_path: Path, model_type: str
) -> None:
    folder = save_checkpoint(tmp_path / "m", model_type)
    plain, first, second = load(folder, "none"), load(folder), load(folder)
    prompt = random_prompt(24, seed=3)
    expected, found = logits(plain, prompt), logits(first, prompt)
    assert torch.equal(found, logits(second, prompt))
    assert error(found, expected) < 0.6  # far from 1.4, which is what another model gives; experts may flip
    assert first.info == second.info
    assert first.info.num_parameters == plain.info.num_parameters
    assert first.info.weight_bytes < 0.95 * plain.info.weight_bytes
    assert (first.info.quantization, first.info.dtype) == ("int8", "float32")
    buffers = dict(plain.model.named_buffers())
    for name, buffer in second.model.named_buffers():
        if name in buffers:
            assert torch.equal(buffer, buffers[name]), name


@pytest.mark.parametrize("model_type", ["qwen2", "deepseek_v3", "gemma3_text", "mamba", "gpt2"])
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_without_native_code_torch_computes_low_bits(tmp_path: Path, model_type: str, bits: str) -> None:
    folder = save_checkpoint(tmp_path / "m", model_type)
    plain, packed = load(folder, "none"), load(folder, bits, kernels="off")
    prompt = random_prompt(24, seed=3)
    assert error(logits(packed, prompt), logits(plain, prompt)) < {"int8": 0.6, "int4": 1.3}[bits]
    assert packed.info.num_parameters == plain.info.num_parameters
    assert packed.info.weight_bytes < 0.96 * plain.info.weight_bytes
    assert any("KERNELS is off" in notice for notice in packed.notices)


# What becomes what


@needs_native
def test_linear_layers_are_packed_and_ends_are_at_8_bits(checkpoint: Path) -> None:
    model = load(checkpoint, "int4").model
    left = [name for name, module in model.named_modules() if type(module) in (nn.Linear, nn.Embedding)]
    assert left == []
    kinds = {
        name: module.kind.name for name, module in model.named_modules() if hasattr(module, "num_weights")
    }
    assert {name for name, kind in kinds.items() if kind == "Q8"} == {"model.embed_tokens", "lm_head"}
    assert kinds["model.layers.0.self_attn.q_proj"] == "Q4"


@needs_native
def test_biases_and_norms_are_the_stored_ones_as_float32(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m", "qwen2")
    stored = {name: one.bfloat16() for name, one in load_file(folder / "model.safetensors").items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(folder).model
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, stored[name].float()), name
    assert "model.layers.0.self_attn.q_proj.bias" in dict(model.named_parameters())


@needs_native
def test_weights_come_back_within_half_a_step(checkpoint: Path) -> None:
    stored, model = load_file(checkpoint / "model.safetensors"), load(checkpoint).model
    library = native()
    assert library is not None
    layers = [
        (name, one) for name, one in model.named_modules() if isinstance(one, (PackedLinear, PackedEmbedding))
    ]
    assert len(layers) == 3 * 7 + 2
    for name, layer in layers:
        weight = stored[f"{name}.weight"]
        back = library.unpack(layer.as_struct())
        padded = nn.functional.pad(weight, (0, -weight.shape[1] % 32))
        step = (
            padded.view(len(weight), -1, 32).abs().amax(2).repeat_interleave(32, 1)[:, : weight.shape[1]]
            / 127
        )
        assert bool(((back - weight).abs() <= 0.51 * step + 1e-8).all()), name


@needs_native
def test_an_embedding_looks_up_what_the_library_unpacks(checkpoint: Path) -> None:
    table, library = load(checkpoint).model.model.embed_tokens, native()
    assert library is not None
    whole = library.unpack(table.as_struct())
    ids = torch.tensor([[0, 5, 198], [17, 16, 15]])
    assert torch.equal(table(ids), whole[ids])


@needs_native
def test_tied_weights_are_one_table(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m", "qwen2")
    stored = load_file(folder / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", tie_word_embeddings=True)
    for loaded in (load(folder), load(folder), load(folder, kernels="off")):
        model = loaded.model
        tables = [next(iter(one.buffers())) for one in (model.lm_head, model.model.embed_tokens)]
        assert tables[0].data_ptr() == tables[1].data_ptr()
        assert loaded.info.num_parameters == sum(tensor.numel() for tensor in stored.values())


@needs_native
@pytest.mark.parametrize(
    "model_type", ["mixtral", "qwen2_moe", "granitemoe", "gpt_oss", "deepseek_v3", "phimoe"]
)
def test_what_decides_and_experts_stay_as_they_are_and_that_is_said(tmp_path: Path, model_type: str) -> None:
    loaded = load(save_checkpoint(tmp_path / "m", model_type))
    kept = dict(loaded.model.named_parameters())
    for name, module in loaded.model.named_modules():
        if name.rpartition(".")[2] in ("gate", "router", "shared_expert_gate"):
            assert not isinstance(module, PackedLinear), name
    assert any("experts" in name and parameter.ndim == 3 for name, parameter in kept.items())
    (notice,) = [notice for notice in loaded.notices if "cannot pack" in notice]
    assert "%" in notice


@needs_native
def test_a_layer_of_another_class_is_left_and_that_is_said(tmp_path: Path) -> None:
    loaded = load(save_checkpoint(tmp_path / "m", "gpt2"))  # its Conv1D has its matrix the other way around
    assert isinstance(loaded.model.transformer.wte, PackedEmbedding)
    assert "in layers that llm-local cannot pack" in loaded.notices[0]


def test_nobody_can_multiply_with_packed_bytes_by_mistake(checkpoint: Path) -> None:
    layer = load(checkpoint, kernels="off").model.lm_head
    assert (layer.weight.shape, layer.weight.dtype) == ((199, 64), torch.float32)
    with pytest.raises(AttributeError):
        torch.zeros(1, 64) @ layer.weight.T
    with pytest.raises(TypeError):
        nn.functional.linear(torch.zeros(1, 64), layer.weight)


# The cache


@needs_native
def test_the_second_load_reads_no_weight(checkpoint: Path, isolated_home: Path, monkeypatch) -> None:
    seen: list[Progress] = []
    load_tokenizer_and_model(
        ModelSpec(str(checkpoint), quantization="int8", device="cpu"), on_progress=seen.append
    )
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert len(seen) > 20
    assert seen[-1].done == seen[-1].total
    monkeypatch.setattr(quantized_lm, "load_weights", None)
    seen.clear()
    load_tokenizer_and_model(
        ModelSpec(str(checkpoint), quantization="int8", device="cpu"), on_progress=seen.append
    )
    assert len(seen) == 2
    assert len(packed_files(isolated_home)) == 1


@needs_native
def test_changed_weights_are_packed_anew(checkpoint: Path, isolated_home: Path) -> None:
    prompt = random_prompt(9, seed=1)
    before = logits(load(checkpoint), prompt)
    stored = load_file(checkpoint / "model.safetensors")
    stored["lm_head.weight"] = stored["lm_head.weight"] * 2
    save_file(stored, checkpoint / "model.safetensors", metadata={"format": "pt"})
    after = logits(load(checkpoint), prompt)
    assert torch.allclose(after, 2 * before, rtol=0.02, atol=0.02 * float(before.abs().max()))
    assert len(packed_files(isolated_home)) == 2


@needs_native
def test_a_damaged_pack_is_made_anew(checkpoint: Path, isolated_home: Path, caplog) -> None:
    expected = logits(load(checkpoint), random_prompt(9, seed=1))
    (path,) = packed_files(isolated_home)
    data = bytearray(path.read_bytes())
    data[-5000] ^= 255
    path.write_bytes(data)
    assert torch.equal(logits(load(checkpoint), random_prompt(9, seed=1)), expected)
    assert "was changed" in caplog.text
    assert path.read_bytes() != bytes(data)


@needs_native
def test_a_pack_of_another_model_under_the_name_is_not_believed(
    checkpoint: Path, tmp_path: Path, isolated_home: Path
) -> None:
    expected = logits(load(checkpoint), random_prompt(9, seed=1))
    (path,) = packed_files(isolated_home)
    load(save_checkpoint(tmp_path / "other", "gemma"))
    (other,) = [one for one in packed_files(isolated_home) if one != path]
    path.write_bytes(other.read_bytes())
    assert torch.equal(logits(load(checkpoint), random_prompt(9, seed=1)), expected)


@needs_native
def test_where_nothing_can_be_kept_the_model_runs_and_that_is_said(
    checkpoint: Path, isolated_home: Path
) -> None:
    (isolated_home / "llm-local").write_text("a file where the directory should be")
    loaded = load(checkpoint)
    assert logits(loaded, random_prompt(9, seed=1)).isfinite().all()
    assert sum("not kept" in notice for notice in loaded.notices) == 1


@needs_native
def test_a_disk_that_gets_full_in_the_middle_does_not_stop_the_model(
    checkpoint: Path, isolated_home: Path, monkeypatch
) -> None:
    expected = logits(load(checkpoint, packed_cache_bytes=0), random_prompt(9, seed=1))
    real, calls = os.pwrite, []

    def pwrite(*arguments: Any) -> int:
        calls.append(1)
        if len(calls) > 10:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    loaded = load(checkpoint)
    assert torch.equal(logits(loaded, random_prompt(9, seed=1)), expected)
    assert any("No space left on device" in notice for notice in loaded.notices)
    assert packed_files(isolated_home) == []


@needs_native
def test_a_bound_of_zero_keeps_nothing_and_says_nothing(checkpoint: Path, isolated_home: Path) -> None:
    assert load(checkpoint, packed_cache_bytes=0).notices == ()
    assert not (isolated_home / "llm-local" / "packed").exists()


# Refusals


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_weights_that_are_no_numbers_are_named(
    checkpoint: Path, isolated_home: Path, bad: float, name: str, kernels: str
) -> None:
    if kernels == "auto" and native() is None:
        pytest.skip("no native kernels here")
    stored = load_file(checkpoint / "model.safetensors")
    stored[name].view(-1)[40] = bad
    save_file(stored, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelCorrupt, match=f"model.safetensors is damaged: {name} has values") as caught:
        load(checkpoint, kernels=kernels)
    assert caught.value.file == "model.safetensors"
    assert packed_files(isolated_home) == []


def test_an_unknown_quantization_is_refused_before_anything_is_loaded(checkpoint: Path) -> None:
    with pytest.raises(InvalidRequest, match="must be one of auto, int8, int4, none"):
        load(checkpoint, "int3")


# The choice


def test_a_small_model_is_left_alone_by_auto(checkpoint: Path) -> None:
    loaded = load(checkpoint, "auto")
    assert (loaded.info.quantization, loaded.notices) == ("none", ())


@needs_native
def test_auto_packs_a_larger_one_and_says_so(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr(quantization, "SMALL_BYTES", 0)
    loaded = load(checkpoint, "auto")
    assert loaded.info.quantization == "int8"
    assert "8-bit weights (" in loaded.notices[0]
    assert load(checkpoint, "auto", dtype="float32").info.quantization == "none"
    assert load(checkpoint, "int8", dtype="bfloat16").notices[0].endswith("--dtype bfloat16 is not used.")


def test_auto_without_native_code_keeps_the_original_and_says_why(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr(quantization, "SMALL_BYTES", 0)
    monkeypatch.setattr(devices, "no_native", lambda kernels: "there is no compiler")
    loaded = load(checkpoint, "auto")
    assert loaded.info.quantization == "none"
    assert "there is no compiler" in loaded.notices[0]


# Memory

_MEASURE = """
import json, sys
import torch, transformers
from transformers import PreTrainedModel
import llm_local.loaders.quantized_lm, llm_local.loaders.causal_lm
from transformers.models.llama import modeling_llama
from llm_local.kernels.library import native
native()
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.specs import ModelSpec
before = peak()
spec = ModelSpec(sys.argv[1], quantization="int8", device="cpu", packed_cache_bytes=int(sys.argv[2]))
loaded = load_tokenizer_and_model(spec)
print(json.dumps([peak() - before, loaded.info.weight_bytes]))
"""


@needs_native
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_loading_takes_the_packed_weights_and_a_piece_of_the_original(tmp_path: Path) -> None:
    """Law: no second copy of the weights at any time. Original 134 MB, packed 71 MB."""
    folder = save_checkpoint(tmp_path / "m", tokenizer=True)
    config = json.loads((folder / "config.json").read_text()) | {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 4,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    stored = sum(parameter.nbytes for parameter in model.parameters())
    del model
    for bound in ("0", "1000000000", "1000000000"):  # in memory, while packing into a file, from the file
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(folder), bound], capture_output=True, text=True, check=True
        )
        grown, packed = json.loads(done.stdout.splitlines()[-1])
        assert packed < 0.55 * stored
        assert grown < packed + (64 << 20), bound
