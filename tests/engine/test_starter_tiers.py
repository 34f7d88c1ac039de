"""The tiers on a model that has learned something: the starter."""

from __future__ import annotations

import pytest

from engine_driving import run
from llm_local.engine.factory import make_engine
from llm_local.engine.protocol import TokenRequest
from llm_local.kernels.library import native
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.options import GenerationOptions
from llm_local.specs import ModelSpec

pytestmark = pytest.mark.skipif(native() is None, reason="there is no compiler for the native library")

QUESTIONS = (
    "Hello",
    "Who are you?",
    "Write a short story about a dog.",
    "What is 2 + 3?",
    "Explain rain.",
    "List three colors.",
    "How do I install this?",
    "Why is the sky blue?",
)


@pytest.mark.parametrize(
    "numbers",
    [
        {"dtype": "float32", "quantization": "none"},
        {"dtype": "bfloat16", "quantization": "none"},
        {"quantization": "int8"},
        {"quantization": "int4"},
    ],
    ids=lambda numbers: "-".join(numbers.values()),
)
def test_greedy_replies_are_the_same_on_both_native_tiers(numbers):
    """Measured on 32 prompts and 1,387 tokens: no difference, in no format.

    Torch's own bfloat16 (`KERNELS=off`) gave another reply to one of the 32: it rounds the residual stream.
    """
    loaded = load_tokenizer_and_model(ModelSpec(ref="starter", packed_cache_bytes=0, **numbers))
    options = GenerationOptions(temperature=0, max_new_tokens=48)
    requests = [
        TokenRequest(question, tuple(_prompt(loaded.tokenizer, question)), options, loaded.end_token_ids)
        for question in QUESTIONS
    ]
    step, linears = (
        run(make_engine(loaded.model, context_length=512, kernels=kernels), *requests)
        for kernels in ("auto", "linears")
    )
    assert step == linears
    assert len(set(map(tuple, step.values()))) > len(QUESTIONS) // 2


def _prompt(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
