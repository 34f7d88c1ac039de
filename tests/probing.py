"""Two short sequences for running a runner by hand."""

from __future__ import annotations

from llm_local.engine.protocol import TokenRequest
from llm_local.engine.sequence import Runner, Sequence
from llm_local.options import GenerationOptions
from llm_local.sampling.sampler import Sampler
from tiny_models import random_prompt


def probe_sequences(runner: Runner, lengths: tuple[int, ...] = (9, 5)) -> list[Sequence]:
    """Sequences with random prompts of these lengths, the same every time."""
    options = GenerationOptions(temperature=0)
    return [
        Sequence(
            TokenRequest(str(length), random_prompt(length, seed=length), options),
            runner.new_state(length),
            Sampler(options, random_prompt(length, seed=length), vocab_size=1),
            max_tokens=length + 1,
        )
        for length in lengths
    ]
