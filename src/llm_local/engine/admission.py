"""What an engine takes at all: refused before any compute is what can never run."""

from __future__ import annotations

from collections.abc import Collection

from llm_local.engine.kv_cache import KVBudget
from llm_local.engine.protocol import TokenRequest
from llm_local.engine.sequence import Runner
from llm_local.errors import ContextLengthExceeded, InsufficientMemory, InvalidRequest

__all__ = ["check_memory", "check_request", "out_of_memory", "reserved_tokens"]


def reserved_tokens(request: TokenRequest) -> int:
    """Tokens that must fit behind the prompt: the longest continuation, or one to sample."""
    return max(map(len, request.continuations), default=1)


def check_request(request: TokenRequest, *, context_length: int, vocab_size: int) -> int:
    """Check a request against a model's window and vocabulary; return the cap on prompt and reply together.

    Raises:
        InvalidRequest: an empty prompt or continuation, or an id outside the vocabulary.
        ContextLengthExceeded: the prompt and what is reserved behind it do not fit the window.
    """
    prompt_ids, options = request.prompt_ids, request.options
    if not prompt_ids:
        raise InvalidRequest("The prompt is empty.", "Give at least one token.", param="prompt")
    if not all(request.continuations):
        raise InvalidRequest("A continuation is empty.", "Give at least one token.", param="continuations")
    for param, token_ids in (
        ("prompt", prompt_ids),
        ("logit_bias", options.logit_bias),
        ("stop_token_ids", request.stop_token_ids),
        *(("continuations", token_ids) for token_ids in request.continuations),
    ):
        _check_ids(param, token_ids, vocab_size)
    num_tokens, reserve = len(prompt_ids), reserved_tokens(request)
    if num_tokens + reserve > context_length:
        raise ContextLengthExceeded(prompt_tokens=num_tokens, reserve=reserve, context_length=context_length)
    if options.max_new_tokens is None:
        return context_length
    return min(context_length, num_tokens + options.max_new_tokens)


def check_memory(request: TokenRequest, runner: Runner) -> None:
    """Check a request against the bytes that all keys and values may have.

    Raises:
        InsufficientMemory: the prompt alone, or with the longest continuation, needs more.
    """
    # continuations need room too, a sampled token has its own when it comes to that
    num_tokens = len(request.prompt_ids) + (reserved_tokens(request) if request.continuations else 0)
    budget = runner.budget
    need_bytes = runner.new_state(num_tokens + 1).bytes_to_append(num_tokens)
    if budget.limit_bytes is not None and need_bytes > budget.limit_bytes:
        raise out_of_memory(budget, need_bytes)


def out_of_memory(budget: KVBudget, need_bytes: int) -> InsufficientMemory:
    """The error for a sequence that can never fit the budget, ready to raise."""
    limit_bytes = budget.limit_bytes or 0
    return InsufficientMemory(
        f"The keys and values of this sequence need {need_bytes} bytes, but {limit_bytes} are allowed.",
        "Shorten the prompt, ask for fewer new tokens, or free memory.",
        need_bytes=need_bytes,
        have_bytes=limit_bytes,
    )


def _check_ids(param: str, token_ids: Collection[int], vocab_size: int) -> None:
    for token_id in (min(token_ids), max(token_ids)) if token_ids else ():
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"Token id {token_id} lies outside the vocabulary of {vocab_size}.", param=param
            )
