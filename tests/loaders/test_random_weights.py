"""Random weights of a published shape: the real sizes, one copy of what is shared, and sane numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_local.errors import InsufficientMemory, InvalidRequest, UnsupportedTask
from llm_local.kernels.library import native
from llm_local.loaders import random_weights
from llm_local.loaders.architectures import config_class
from llm_local.loaders.published_shapes import PUBLISHED_SHAPES
from llm_local.loaders.random_weights import random_model
from llm_local.specs import PackedBits

TINY = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        # as the hub counts the weights of the real models
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("llama-3.2-1b", 1_235_814_400),
    ],
)
def test_the_shapes_are_the_published_ones(name: str, num_parameters: int) -> None:
    shape = PUBLISHED_SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_class(shape["model_type"]).from_dict(dict(shape)))
    assert sum(one.numel() for one in model.parameters()) == num_parameters


def test_a_model_that_runs() -> None:
    model, info = random_model("tiny", TINY, dtype="float32", device="cpu")
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 2, 3], [4, 5, 6]])).logits
    assert logits.isfinite().all()
    assert logits.std() > 1e-4
    assert not torch.equal(logits[0], logits[1])
    assert (info.ref, info.architecture, info.dtype, info.device) == (
        "tiny",
        "Qwen2ForCausalLM",
        "float32",
        "cpu",
    )
    assert (info.context_length, info.vocab_size) == (128, 97)
    assert info.weight_bytes == 4 * info.num_parameters


def test_every_parameter_is_there_once_and_tables_are_kept() -> None:
    model, _ = random_model("tiny", TINY, dtype="float32", device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(one.is_meta or one.requires_grad for one in model.parameters())
    plain = AutoModelForCausalLM.from_config(model.config)
    assert torch.equal(model.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
    assert torch.equal(model.model.norm.weight, torch.ones(64))
    assert not model.model.layers[0].self_attn.q_proj.bias.any()


def test_weights_are_the_same_at_every_call() -> None:
    one, other = (random_model("tiny", TINY, device="cpu")[0] for _ in range(2))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_weights, "available_bytes", lambda device: 1000)
    with pytest.raises(InsufficientMemory) as caught:
        random_model("tiny", TINY, dtype="float32", device="cpu")
    assert caught.value.have_bytes == 1000
    assert caught.value.need_bytes > 1000


def test_a_shape_that_generates_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedTask):
        random_model("x", {"model_type": "bert", "architectures": ["BertForMaskedLM"]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        random_model("tiny", TINY, device="cuda")


@pytest.mark.skipif(native() is None, reason="no native kernels here")
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_random_weights_are_packed_like_real_ones(bits: PackedBits) -> None:
    shape = {
        **PUBLISHED_SHAPES["qwen2.5-0.5b"],
        "num_hidden_layers": 2,
        "vocab_size": 1000,
        "hidden_size": 896,
    }
    plain, plain_info = random_model("m", shape, dtype="float32", device="cpu")
    packed, info = random_model("m", shape, device="cpu", bits=bits)
    assert (info.quantization, info.dtype) == (bits, "float32")
    assert info.num_parameters == plain_info.num_parameters
    assert info.weight_bytes < {"int8": 0.28, "int4": 0.16}[bits] * plain_info.weight_bytes
    library = native()
    assert library is not None
    weight = plain.model.layers[1].mlp.down_proj.weight
    back = library.unpack(packed.model.layers[1].mlp.down_proj.as_struct())
    assert float((back - weight).norm() / weight.norm()) < {"int8": 0.01, "int4": 0.1}[bits]
    with torch.inference_mode():
        assert packed(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()
