"""What is told of a model before it is here is what loading then decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llm_local.errors import InsufficientMemory, ModelCorrupt, UnsupportedTask
from llm_local.loaders import devices
from llm_local.loaders.configuration import read_config
from llm_local.loaders.estimate import best_form, cpu_form, form_of, forms, kv_bytes_per_token
from llm_local.loaders.remote_headers import remote_config, remote_weights
from llm_local.loaders.safetensors import Tensor, Weights, read_weights
from llm_local.specs import DtypeName, ModelSpec, Quantization
from llm_local.store.download import RemoteFile
from tiny_checkpoints import save_checkpoint

CONFIG = {"num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 1536}


def weights(dtype: str, millions: int) -> Weights:
    """A head, an embedding and a matrix, each a third."""
    size = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    shape = (millions * 1000 // 3, 1000)
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight")
    return Weights((), {name: Tensor(dtype, shape, shape[0] * shape[1] * size) for name in names})


@pytest.mark.parametrize("have", [10**9, 2 * 10**9, 10**11])
@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("quantization", ["auto", "int8", "int4", "none"])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize(("stored", "millions"), [("BF16", 30), ("BF16", 600), ("F32", 600), ("F16", 90)])
def test_it_is_what_loading_decides(
    stored: str, millions: int, dtype: DtypeName, quantization: Quantization, bfloat16: bool, have: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("llm_local.loaders.estimate.computes_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(devices, "computes_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(devices, "host_bytes", lambda: have)
    monkeypatch.setattr(devices, "no_native", lambda kernels: "")
    spec = ModelSpec("org/name", dtype=dtype, quantization=quantization, device="cpu")
    found = weights(stored, millions)
    form = form_of(found, {}, cpu_form(spec, found, lambda: "", have), 4096)
    try:
        placed = devices.place(spec, found)
    except InsufficientMemory as error:
        assert (form.need_bytes, form.need_bytes > have) == (error.need_bytes, True)
        return
    name = placed.bits if placed.bits != "none" else str(placed.dtype).removeprefix("torch.")
    assert (form.name, form.need_bytes) == (name, placed.need_bytes)


def test_without_native_code_nothing_is_packed_by_itself() -> None:
    found = weights("BF16", 600)
    spec = ModelSpec("org/name")
    assert cpu_form(spec, found, lambda: "", 10**11) == "int8"
    assert cpu_form(spec, found, lambda: "there is no C++ compiler", 10**11) in ("float32", "bfloat16")


def test_keys_and_values_are_counted_as_the_engine_lays_them_out(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from llm_local.engine.kv_cache import kv_layout

    for model_type in ("llama", "gpt2", "gemma3_text", "deepseek_v3"):
        folder = save_checkpoint(tmp_path / model_type, model_type, tokenizer=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        values = read_config(folder).values
        assert kv_bytes_per_token(values, "float32") == kv_layout(model).bytes_per_token, model_type


def test_keys_and_values_beside_packed_weights_take_half() -> None:
    assert kv_bytes_per_token(CONFIG, "float32") == 28 * 2 * 128 * 2 * 4
    assert (
        kv_bytes_per_token(CONFIG, "int8") == kv_bytes_per_token(CONFIG, "bfloat16") == 28 * 2 * 128 * 2 * 2
    )
    assert kv_bytes_per_token({}, "int8") == 0
    assert kv_bytes_per_token({"text_config": CONFIG}, "int8") == kv_bytes_per_token(CONFIG, "int8")
    assert kv_bytes_per_token({**CONFIG, "num_hidden_layers": "28"}, "int8") == 0


def test_a_token_reads_all_but_the_table_of_embeddings_and_idle_experts() -> None:
    found = weights("BF16", 300)
    assert form_of(found, {}, "bfloat16", 0).read_bytes == 2 * found.num_bytes // 3
    tied = Weights((), {name: one for name, one in found.tensors.items() if "head" not in name})
    assert form_of(tied, {}, "bfloat16", 0).read_bytes == tied.num_bytes
    expert = Tensor("BF16", (1000, 1000), 2_000_000)
    mixture = Weights((), {f"layers.0.mlp.experts.{n}.up_proj.weight": expert for n in range(8)})
    config = {"num_experts": 8, "num_experts_per_tok": 2}
    assert form_of(mixture, config, "bfloat16", 0).read_bytes == 2 * expert.num_bytes


def test_the_best_form_is_the_most_exact_that_fits() -> None:
    found = weights("BF16", 600)
    large, half, eight, four = forms(found, {}, 0)
    assert large.need_bytes > half.need_bytes > eight.need_bytes > four.need_bytes
    assert best_form(eight, (large, half, eight, four), 10**11) == eight
    assert best_form(large, (large, half, eight, four), half.need_bytes) == half
    assert best_form(large, (large, half, eight, four), four.need_bytes) == four
    assert best_form(large, (large, half, eight, four), four.need_bytes - 1) is None


def test_headers_from_the_hub_are_those_of_the_disk(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, shard_size="100KB")
    asked: list[int] = []

    def read_start(file: RemoteFile, num_bytes: int) -> bytes:
        asked.append(num_bytes)
        return (folder / file.name).read_bytes()[:num_bytes]

    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(names) > 1
    files = [RemoteFile(name, (folder / name).stat().st_size, "", name) for name in names]
    assert remote_weights(files, read_start).tensors == read_weights(folder).tensors
    assert len(asked) == len(names)


def test_a_header_longer_than_usual_is_read_to_its_end() -> None:
    names = [f"model.layers.{n}.a_name_that_makes_the_header_long.weight" for n in range(2000)]
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(4 * len(names))
    file = RemoteFile("model.safetensors", len(data), "", "k")
    found = remote_weights([file], lambda file, count: data[:count])
    assert len(found.tensors) == len(names)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 100, b"version https://git-lfs.github.com/spec/v1", b"<html>" * 20]
)
def test_damage_is_found_before_the_download(data: bytes) -> None:
    file = RemoteFile("model.safetensors", len(data), "", "k")
    with pytest.raises(ModelCorrupt, match="model.safetensors"):
        remote_weights([file], lambda file, count: data[:count])


def test_a_configuration_is_judged_like_one_on_the_disk() -> None:
    assert remote_config(b'{"model_type": "llama", "auto_map": {}}').has_own_code
    with pytest.raises(UnsupportedTask, match="quantized"):
        remote_config(b'{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}')
    for data in (b"", b"[]", b"{", b"{}", b"[" * 100_000):
        with pytest.raises(ModelCorrupt, match=r"config\.json"):
            remote_config(data)
