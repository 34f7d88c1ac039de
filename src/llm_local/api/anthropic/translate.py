"""From Anthropic's requests to work for the service. Pure: nothing here waits, reads or asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from llm_local.api.anthropic.conversation import (
    chosen_tool,
    dropped_blocks,
    messages_of,
    system_of,
    tools_of,
)
from llm_local.api.anthropic.errors import unsupported
from llm_local.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from llm_local.api.bodies import ignored_names
from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS, Constraint, GenerationOptions, Think
from llm_local.service import Caller, Work

__all__ = ["Thinking", "count_work", "ignored_fields", "message_work", "thinking_of"]

_LEVELS: Final[dict[str, Think]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
# A nucleus that holds one token: what top_p 0 means, which our own bound leaves out.
_LEAST_TOP_P: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a request says about reasoning. `tries` are our words for it, the closest first, None is the model's way.

    Clients say it to every model, so where the model has no such switch, the next one holds, and the answer's header
    names `fields[n]` when the n-th try was refused. Only a model that reasons whatever it is told cannot be `off`.
    """

    tries: tuple[Think | None, ...] = (None,)
    fields: tuple[str, ...] = ()

    @property
    def is_off(self) -> bool:
        """True when there must be none."""
        return self.tries == ("off",)


def message_work(request: MessagesRequest, caller: Caller) -> Work:
    """A request for a message as work, without what it says about reasoning.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    return _work(request, caller, _changes(request))


def count_work(request: CountTokensRequest, caller: Caller) -> Work:
    """The same conversation as work, of which only the prompt is wanted.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    return _work(request, caller, {})


def thinking_of(request: CountTokensRequest) -> Thinking:
    """What the request says about reasoning."""
    config, output = request.thinking, request.output_config
    level = _LEVELS[output.effort] if output is not None and output.effort is not None else None
    if config is None:
        return Thinking()
    if config.type == "disabled":
        return Thinking(("off",))
    if config.type == "enabled":
        if level is None:
            return Thinking(("on", None), ("thinking",))
        return Thinking((level, "on", None), ("output_config.effort", "thinking"))
    if level is None:
        return Thinking()  # the model decides, as it does by itself
    return Thinking((level, None), ("output_config.effort",))


def ignored_fields(request: CountTokensRequest) -> tuple[str, ...]:
    """The fields and blocks of a request that have no effect here."""
    given = ignored_names(request)
    output, config = request.output_config, request.thinking
    if output is not None and output.effort is not None and (config is None or config.type == "disabled"):
        given = ("output_config.effort", *given)
    if config is not None and config.type == "between_tools":
        given = ("thinking.type", *given)
    return (*given, *dropped_blocks(request.system, request.messages))


def _work(request: CountTokensRequest, caller: Caller, changes: dict[str, Any]) -> Work:
    _refuse_unsupported(request)
    messages = messages_of(request.messages)
    goes_on = messages[-1].role == "assistant"
    if goes_on and messages[-1].tool_calls:
        raise InvalidRequest(
            "messages ends in a tool_use without its tool_result.",
            "Send the result of each tool_use in the next message.",
            param="messages",
        )
    tools = tools_of(request.tools)
    if request.tool_choice is not None:
        choice = chosen_tool(tools, request.tool_choice)
        changes = changes | ({"tool_choice": choice} if tools else {})
    return Work(
        caller,
        model=request.model,
        messages=(*system_of(request.system), *messages),
        tools=tools,
        changes=changes,
        goes_on=goes_on,
        clamp=True,
    )


def _changes(request: MessagesRequest) -> dict[str, Any]:
    """What the request says about sampling, in our words; nothing that it leaves open."""
    names = ("temperature", "top_k", "seed", "min_p", "repetition_penalty")
    changes: dict[str, Any] = {name: getattr(request, name) for name in names}
    changes["top_p"] = None if request.top_p is None else max(request.top_p, _LEAST_TOP_P)
    changes["stop"] = None if request.stop_sequences is None else tuple(request.stop_sequences)
    # no window is longer than our own bound
    changes["max_new_tokens"] = min(request.max_tokens, int(BOUNDS["max_new_tokens"].high))
    if request.thinking is not None:
        changes["max_thinking_tokens"] = request.thinking.budget_tokens
    changes["constraint"] = _constraint(request)
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        GenerationOptions().replace(
            **changes
        )  # what can be wrong without a model is known before one is loaded
    except InvalidRequest as error:
        error.param = "stop_sequences" if error.param == "stop" else error.param
        raise
    return changes


def _constraint(request: CountTokensRequest) -> Constraint | None:
    inner = None if request.output_config is None else request.output_config.format
    if inner is not None and request.output_format is not None:
        raise InvalidRequest(
            "output_format and output_config.format both constrain the answer.",
            "Send one of them.",
            param="output_format",
        )
    found = inner or request.output_format
    param = "output_format.schema" if inner is None else "output_config.format.schema"
    if found is None:
        return None
    try:
        return Constraint("json_schema", found.schema_)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, error.hint, param=param) from None


def _refuse_unsupported(request: CountTokensRequest) -> None:
    if request.mcp_servers:
        raise unsupported(
            "mcp_servers", "Call the tools of these servers in the client, as tools of its own."
        )
    if request.container:
        raise unsupported("container", "No code runs on this server.")
