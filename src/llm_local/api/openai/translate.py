"""From OpenAI's requests to work for the service. Pure: nothing here waits, reads or asks."""

from __future__ import annotations

from typing import Any, Final

from llm_local.api.openai.conversation import bare_model, chosen_tools, messages_of, tools_of
from llm_local.api.openai.errors import unsupported
from llm_local.api.openai.sampling import constraint_of, sampling_changes, think_of
from llm_local.api.openai.schemas import ChatRequest, CompletionRequest, GenerationRequest
from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS
from llm_local.service import Caller, Work

__all__ = ["chat_work", "completion_works", "most_tokens", "num_choices", "num_tried", "wants_usage"]

OWN_TEMPLATE: Final = (
    "A model has its own template; one from a request would be a program of somebody else's."
)
_REFUSED: Final = {
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "chat_template": OWN_TEMPLATE,
    "chat_parser": OWN_TEMPLATE,
}


def num_choices(request: GenerationRequest) -> int:
    """How many answers are asked for."""
    return request.n or 1


MAX_PROMPTS: Final = 256
"""How many prompts one completion request may have."""
MAX_STREAMED_PROMPTS: Final = 16
"""How many in a stream, where all of them are begun at once, and none may fill the line."""


def num_tried(request: CompletionRequest) -> int:
    """How many answers to each prompt are made, of which the best are given."""
    return request.best_of or num_choices(request)


def wants_usage(request: GenerationRequest) -> bool:
    """Whether a stream is to end in a chunk with the token counts."""
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def chat_work(request: ChatRequest, caller: Caller, *, capped: bool) -> Work:
    """A chat request as work. `capped` says that the settings have a longest reply of their own.

    A cap shrinks to the room that is left, and without any cap the reply may fill it: what LibreChat's clients rely on.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    _refuse_unsupported(request)
    tools, choice = chosen_tools(tools_of(request.tools), request.tool_choice)
    changes = sampling_changes(request)
    changes |= _caps(request.max_tokens, request.max_completion_tokens, capped=capped)
    if request.logprobs:
        changes |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    elif request.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    constraint = constraint_of(request, request.response_format)
    if constraint is not None:
        changes["constraint"] = constraint
    think = think_of(request.reasoning_effort, request.reasoning, request.chat_template_kwargs)
    if think is not None:
        changes["think"] = think
    if request.max_thinking_tokens is not None:
        changes["max_thinking_tokens"] = request.max_thinking_tokens
    if request.tool_choice is not None and tools:
        changes["tool_choice"] = choice
    return Work(
        caller,
        model=bare_model(request.model),
        messages=messages_of(request.messages),
        tools=tools,
        changes=changes,
        goes_on=bool(request.continue_final_message),
        clamp=True,
    )


def completion_works(request: CompletionRequest, caller: Caller) -> list[Work]:
    """A completion request as work, one for each of its prompts, in their order.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    if request.suffix:
        raise unsupported("suffix", "Nothing here fills in the middle of a text.")
    if request.best_of is not None:
        _check_best_of(request.best_of, request)
    if request.max_tokens == 0 and not request.echo:
        raise InvalidRequest("max_tokens is 0, which needs echo.", "Ask for 1 or more.", param="max_tokens")
    changes = sampling_changes(request)
    changes["max_new_tokens"] = most_tokens(max(1, 16 if request.max_tokens is None else request.max_tokens))
    if request.logprobs is not None:
        changes |= {"logprobs": True, "top_logprobs": request.logprobs}
    elif num_tried(request) > num_choices(request):
        changes["logprobs"] = True  # the best are the likeliest
    constraint = constraint_of(request)
    if constraint is not None:
        changes["constraint"] = constraint
    asked: dict[str, Any] = {"model": bare_model(request.model), "changes": changes, "clamp": True}
    return [
        Work(caller, prompt=prompt, **asked)
        if isinstance(prompt, str)
        else Work(caller, prompt_ids=tuple(prompt), **asked)
        for prompt in _prompts_of(request)
    ]


def _prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts, each a text or token ids.

    Raises:
        InvalidRequest: there is none, or one is empty.
    """
    given = request.prompt
    prompts: list[Any] = (
        [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    )
    if not prompts:
        raise InvalidRequest("There is no prompt.", param="prompt")
    most = MAX_STREAMED_PROMPTS if request.stream else MAX_PROMPTS
    if len(prompts) > most:
        where = " in a stream" if request.stream else ""
        raise InvalidRequest(
            f"There are {len(prompts)} prompts, at most {most} are taken{where}.",
            "Send several requests.",
            param="prompt",
        )
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise InvalidRequest(f"Prompt {index + 1} is empty.", "Give at least one token.", param="prompt")
    return prompts


def _check_best_of(best_of: int, request: CompletionRequest) -> None:
    if best_of < num_choices(request):
        raise InvalidRequest(
            f"best_of is {best_of}, but n is {num_choices(request)}.", "Ask for no fewer.", param="best_of"
        )
    if request.stream and best_of > num_choices(request):
        raise unsupported(
            "best_of", "Which is the best is known at the end.", what="best_of above n in a stream"
        )


def most_tokens(asked: int) -> int:
    """A cap within our own bounds. No window is that long, so it makes no difference."""
    return min(asked, int(BOUNDS["max_new_tokens"].high))


def _caps(max_tokens: int | None, max_completion_tokens: int | None, *, capped: bool) -> dict[str, Any]:
    """The two names of the longest reply; without any, and where the settings have none, it may fill the window."""
    if max_tokens is not None and max_completion_tokens not in (None, max_tokens):
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ.", "Send one of them.", param="max_completion_tokens"
        )
    found = max_tokens if max_completion_tokens is None else max_completion_tokens
    if found is None:
        return {} if capped else {"max_new_tokens": None}
    return {"max_new_tokens": most_tokens(found)}


def _refuse_unsupported(request: ChatRequest) -> None:
    for name, hint in _REFUSED.items():
        if getattr(request, name) is not None:
            raise unsupported(name, hint)
    if request.add_generation_prompt is False and not request.continue_final_message:
        raise unsupported("add_generation_prompt", "Without a turn of its own there is no reply.")
    if any(modality != "text" for modality in request.modalities or ()):
        raise unsupported("modalities", "Ask for text.", what="A modality other than text")
