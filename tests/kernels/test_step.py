"""The native decoder step against transformers, architecture by architecture, and against itself."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernel_matrices import matrix
from kernel_stores import Store, segments_of
from llm_local.engine.description import describe
from llm_local.engine.families import FAMILIES
from llm_local.engine.kv_cache import KVLayout, kv_layout
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmBatch, LlmWeightKind
from llm_local.kernels.library import Native
from llm_local.kernels.linear import PackedEmbedding, PackedLinear
from tiny_models import ARCHITECTURES, random_prompt, tiny_model, tiny_variant

TINY = sorted(FAMILIES.keys() & ARCHITECTURES.keys())

# Long enough for two blocks of keys and several tiles of queries; windows of the tiny models are shorter.
PROMPTS = tuple(random_prompt(length, seed=length) for length in (290, 37, 1))
CAPACITY = 320


class Decoder:
    """A tiny model on the native step, one variant."""

    def __init__(self, library: Native, model: Any, stored: torch.dtype | None = None) -> None:
        self.library = library
        layout = kv_layout(model)
        self.layout: KVLayout = replace(layout, dtype=stored or layout.dtype)
        self.native = describe(model, self.layout, library)
        self.native.reach(CAPACITY)
        self.scratch = library.new_scratch()

    def new_sequence(self, capacity: int = CAPACITY) -> list[Store]:
        """Empty stores, a layer each."""
        heads, dim, dtype = self.layout.heads, self.layout.key_dim, self.layout.dtype
        return [Store.poisoned(heads, capacity, dim, dtype) for _ in self.layout.windows]

    def run(
        self,
        sequences: Sequence[list[Store]],
        pasts: Sequence[int],
        chunks: Sequence[Sequence[int]],
        kept: Sequence[int] | None = None,
        threads: int = 2,
        layers: Sequence[tuple[int, int]] = ((0, 0),),
    ) -> torch.Tensor:
        """Logits `[kept, vocab]` of one step; `kept` None: of every row. `layers` (first, number) of each call."""
        ids = [token for chunk in chunks for token in chunk]
        rows = range(len(ids)) if kept is None else kept
        logits = torch.full((len(rows), self.native.vocab_size), torch.nan)
        batch = LlmBatch(
            (ctypes.c_int32 * len(ids))(*ids),
            segments_of(sequences, pasts, [len(chunk) for chunk in chunks]),
            (ctypes.c_int32 * len(rows))(*rows),
            logits.data_ptr(),
            len(ids),
            len(chunks),
            len(rows),
        )
        for batch.first_layer, batch.num_layers in layers:
            self.library.step(self.native.struct, batch, self.scratch, threads)
        return logits


@functools.cache
def reference_logits(model_type: str) -> torch.Tensor:
    """Logits of all prompts one behind the other, from transformers' plain attention."""
    model = tiny_variant(model_type)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([prompt])).logits[0] for prompt in PROMPTS])


@pytest.mark.parametrize("model_type", TINY)
def test_logits_are_those_of_transformers(kernels: Native, model_type: str) -> None:
    """Several sequences in one step, every row kept: norms, rotations, scales, windows and caps are the model's."""
    decoder = Decoder(kernels, tiny_model(model_type))
    sequences = [decoder.new_sequence() for _ in PROMPTS]
    logits = decoder.run(sequences, [0, 0, 0], PROMPTS)
    reference = reference_logits(model_type)
    assert (logits - reference).abs().max() <= 1e-4 * reference.abs().max()


@pytest.mark.parametrize("model_type", TINY)
def test_chunks_batches_and_threads_change_no_bit(kernels: Native, model_type: str) -> None:
    decoder = Decoder(kernels, tiny_model(model_type))
    whole = decoder.run([decoder.new_sequence()], [0], [PROMPTS[0]], threads=1)
    first, second = decoder.new_sequence(), decoder.new_sequence()
    decoder.run([first], [0], [PROMPTS[0][:100]], kept=[], threads=1)
    mixed = decoder.run([second, first], [0, 100], [PROMPTS[1], PROMPTS[0][100:288]], kept=[40, 41, 224])
    decoded = [decoder.run([first], [at], [PROMPTS[0][at : at + 1]], threads=3) for at in (288, 289)]
    assert torch.equal(mixed, whole[[103, 104, 287]])
    assert torch.equal(torch.cat(decoded), whole[288:])


@pytest.mark.parametrize("model_type", TINY)
def test_a_step_in_several_calls_is_the_same_step(kernels: Native, model_type: str) -> None:
    decoder = Decoder(kernels, tiny_model(model_type))
    whole = decoder.run([decoder.new_sequence()], [0], [PROMPTS[0]])
    num_layers = decoder.native.struct.num_layers
    for layers in ([(at, 1) for at in range(num_layers)], [(0, 1), (1, 0)], [(0, num_layers)]):
        parts = decoder.run([decoder.new_sequence()], [0], [PROMPTS[0]], layers=layers)
        assert torch.equal(parts, whole)


def test_layers_that_are_not_there_are_refused(kernels: Native) -> None:
    decoder = Decoder(kernels, tiny_model("llama"))
    end = decoder.native.struct.num_layers
    for layers in ((-1, 1), (end, 0), (0, end + 1), (1, end), (0, -1), (1, 2**31 - 1)):
        with pytest.raises(EngineError):
            decoder.run([decoder.new_sequence()], [0], [PROMPTS[1]], layers=[layers])


def test_kept_rows_come_in_the_order_asked_for(kernels: Native) -> None:
    decoder = Decoder(kernels, tiny_model("llama"))
    every = decoder.run([decoder.new_sequence() for _ in PROMPTS], [0, 0, 0], PROMPTS)
    kept = [327, 5, 6, 7, 289, 290, 5]
    some = decoder.run([decoder.new_sequence() for _ in PROMPTS], [0, 0, 0], PROMPTS, kept)
    assert torch.equal(some, every[kept])


def test_bfloat16_weights_agree_with_transformers_in_bfloat16_steps(kernels: Native) -> None:
    """bfloat16 weights, keys and values; the residual stream stays float32, so it is nearer to exact than torch's."""
    exact = tiny_variant("qwen2").bfloat16().float()  # the same weights, computed in float32
    decoder = Decoder(kernels, tiny_variant("qwen2").bfloat16())
    assert decoder.layout.dtype == torch.bfloat16
    logits = decoder.run([decoder.new_sequence()], [0], [PROMPTS[1]])
    with torch.inference_mode():
        reference = exact(torch.tensor([PROMPTS[1]])).logits[0]
    assert (logits - reference).square().mean() <= (0.03 * reference.std()) ** 2


def quantized_model(library: Native, kinds: tuple[LlmWeightKind, LlmWeightKind]) -> torch.nn.Module:
    """A tiny Qwen2 whose matrices are packed, the values in the second kind, table and head in 8 bits."""
    model = tiny_variant("qwen2")
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            kind = LlmWeightKind.Q8 if name == "lm_head" else kinds[name.endswith("v_proj")]
            packed = matrix(library, kind, module.weight)
            model.set_submodule(name, PackedLinear(kind, packed.memory, *module.weight.shape, module.bias))
    table = model.model.embed_tokens.weight
    packed = matrix(library, LlmWeightKind.Q8, table)
    model.model.embed_tokens = PackedEmbedding(packed.memory, *table.shape)
    return model


@pytest.mark.parametrize(
    "kinds",
    [
        (LlmWeightKind.Q8, LlmWeightKind.Q8),
        (LlmWeightKind.Q4, LlmWeightKind.Q4),
        (LlmWeightKind.Q4, LlmWeightKind.Q8),
    ],
    ids=["8 bits", "4 bits", "mixed"],
)
def test_quantized_weights_keep_the_same_bits_in_any_company(
    kernels: Native, kinds: tuple[LlmWeightKind, LlmWeightKind]
) -> None:
    model = quantized_model(kernels, kinds)
    decoder = Decoder(kernels, model)
    assert decoder.layout.dtype == torch.bfloat16
    whole = decoder.run([decoder.new_sequence()], [0], [PROMPTS[0]], threads=1)
    first, second = decoder.new_sequence(), decoder.new_sequence()
    decoder.run([first], [0], [PROMPTS[0][:130]], kept=[])
    mixed = decoder.run([second, first], [0, 130], [PROMPTS[1], PROMPTS[0][130:289]], kept=[195])
    last = decoder.run([first], [289], [PROMPTS[0][289:]])
    assert torch.equal(mixed[0], whole[288])
    assert torch.equal(last[0], whole[289])


def test_a_quantized_step_agrees_with_its_linears_under_transformers(kernels: Native) -> None:
    """The same weights and number formats; what differs is rounding, which now and then moves an input by a step."""
    model = quantized_model(kernels, (LlmWeightKind.Q4, LlmWeightKind.Q8))
    decoder = Decoder(kernels, model, stored=torch.float32)
    logits = decoder.run([decoder.new_sequence()], [0], [PROMPTS[0]])
    with torch.inference_mode():
        reference = model(torch.tensor([PROMPTS[0]])).logits[0]
    assert (logits - reference).square().mean() <= (0.03 * reference.std()) ** 2


def test_stores_outside_the_new_places_are_untouched(kernels: Native) -> None:
    decoder = Decoder(kernels, tiny_model("llama"))
    sequence = decoder.new_sequence()
    decoder.run([sequence], [0], [PROMPTS[1]])
    for store in sequence:
        for rows in (store.keys, store.values):
            assert rows[:, : len(PROMPTS[1])].isfinite().all()
            assert rows[:, len(PROMPTS[1]) :].isnan().all()


@pytest.mark.parametrize("token", [-1, 199, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_refused(kernels: Native, token: int) -> None:
    decoder = Decoder(kernels, tiny_model("llama"))
    sequence = decoder.new_sequence()
    with pytest.raises(EngineError):
        decoder.run([sequence], [0], [[5, token]])
    assert all(store.keys.isnan().all() for store in sequence)


def test_what_does_not_fit_together_is_refused(kernels: Native) -> None:
    decoder = Decoder(kernels, tiny_model("llama"))
    with pytest.raises(EngineError):  # no room for the last token
        decoder.run([decoder.new_sequence(capacity=4)], [0], [[3, 4, 5, 6, 7]])
    with pytest.raises(EngineError):  # a row that is not there
        decoder.run([decoder.new_sequence()], [0], [[3, 4]], kept=[2])
    with pytest.raises(EngineError):  # a negative past
        decoder.run([decoder.new_sequence()], [-1], [[3, 4]])
    decoder.native.struct.head.rows -= 1
    with pytest.raises(EngineError):  # a head of another vocabulary
        decoder.run([decoder.new_sequence()], [0], [[3, 4]])
