"""Engines over tiny models, and how tests drive them."""

from __future__ import annotations

from collections import defaultdict

from llm_local.engine.factory import make_engine
from llm_local.engine.protocol import TokenRequest, TokenStep
from llm_local.options import GenerationOptions
from tiny_models import CONTEXT_LENGTH, END_TOKEN, tiny_model

GREEDY = GenerationOptions(temperature=0, max_new_tokens=24)


def engine_for(model_type="llama", kv_limit_bytes=None):
    return make_engine(tiny_model(model_type), context_length=CONTEXT_LENGTH, kv_limit_bytes=kv_limit_bytes)


def request(sequence_id, prompt_ids, options=GREEDY, **fields):
    return TokenRequest(sequence_id, tuple(prompt_ids), options, frozenset({END_TOKEN}), **fields)


def drain(engine, max_steps=10_000):
    """Step until nothing is left; the steps of each sequence in order."""
    steps = defaultdict(list)
    for _ in range(max_steps):
        if not engine.has_work():
            return steps
        for step in engine.step():
            steps[step.sequence_id].append(step)
    raise AssertionError("the engine does not come to an end")


def ids_of(steps):
    """The sampled ids among a sequence's steps."""
    return [step.token_id for step in steps if isinstance(step, TokenStep) and step.token_id is not None]


def run(engine, *requests):
    """Submit all, drain, return {sequence id: sampled ids}; a failed sequence raises."""
    for one in requests:
        engine.submit(one)
    steps = drain(engine)
    for one in requests:
        if steps[one.sequence_id][-1].error:
            raise steps[one.sequence_id][-1].error
    return {one.sequence_id: ids_of(steps[one.sequence_id]) for one in requests}
