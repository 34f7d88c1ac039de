"""Log-probabilities of a prompt's own tokens, as its chunks go through the model."""

from __future__ import annotations

import torch

from llm_local.engine.sequence import Chunk
from llm_local.events import TokenLogprob
from llm_local.sampling.logprobs import token_logprob
from llm_local.sampling.sampler import check_finite

__all__ = ["score_prompt"]


def score_prompt(chunk: Chunk, rows: torch.Tensor) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of the prompt tokens that follow each of the chunk's, `rows` `[length, vocab]`.

    Raises:
        NumericalError: a row is not finite.
    """
    sequence = chunk.sequence
    if not sequence.request.prompt_logprobs:
        return ()
    first = sequence.num_computed + 1  # a token's logits are about the next one
    end = min(first + len(rows), sequence.num_prompt_tokens)
    positions = range(max(first, sequence.num_scored), end)
    sequence.num_scored = max(sequence.num_scored, end)
    num_top = sequence.request.options.top_logprobs
    scored = []
    for position in positions:
        row = rows[position - first]
        check_finite(row)
        scored.append(token_logprob(row, sequence.tokens[position], num_top))
    return tuple(scored)
