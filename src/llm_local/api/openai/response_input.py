"""A Responses request as work for the service. Pure."""

from __future__ import annotations

from typing import Final

from llm_local.api.openai.conversation import (
    bare_call_id,
    bare_model,
    call_arguments,
    chosen_tools,
    content_text,
    tool_definition,
)
from llm_local.api.openai.errors import missing, unsupported
from llm_local.api.openai.response_schemas import FlatTool, InputItem, ResponsesRequest
from llm_local.api.openai.sampling import constraint_of, sampling_changes, think_of
from llm_local.api.openai.schemas import FunctionCall, FunctionDefinition, JsonSchemaFormat, ResponseFormat
from llm_local.api.openai.translate import OWN_TEMPLATE, most_tokens
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, Role, ToolCall, ToolDefinition
from llm_local.service import Caller, Work

__all__ = ["LOGPROBS", "response_work", "wants_logprobs"]

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` asks for the log-probabilities with."""

_NOT_KEPT: Final = "Answers are not kept here: send the whole conversation as input."


def response_work(request: ResponsesRequest, caller: Caller, *, capped: bool) -> Work:
    """The request as work. `capped` says that the settings have a longest reply of their own.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    _refuse_kept(request)
    tools, choice = chosen_tools(_tools(request.tools), request.tool_choice)
    changes = sampling_changes(request)
    if request.max_output_tokens is not None:
        changes["max_new_tokens"] = most_tokens(request.max_output_tokens)
    elif not capped:
        changes["max_new_tokens"] = None
    if wants_logprobs(request):
        changes |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    constraint = constraint_of(request, _format(request), field="text.format")
    if constraint is not None:
        changes["constraint"] = constraint
    effort = None if request.reasoning is None else request.reasoning.effort
    think = think_of(None, {"effort": effort}, request.chat_template_kwargs)
    if think is not None:
        changes["think"] = think
    if request.tool_choice is not None and tools:
        changes["tool_choice"] = choice
    return Work(
        caller,
        model=bare_model(request.model),
        messages=_messages(request),
        tools=tools,
        changes=changes,
        policy="trim-oldest" if request.truncation == "auto" else "refuse",
        clamp=True,
    )


def wants_logprobs(request: ResponsesRequest) -> bool:
    """Whether the answer is to say how likely its tokens are."""
    return LOGPROBS in (request.include or ()) or bool(request.top_logprobs)


def _refuse_kept(request: ResponsesRequest) -> None:
    if request.previous_response_id is not None:
        raise InvalidRequest(
            "There is no response of that id.",
            _NOT_KEPT,
            param="previous_response_id",
            kind="previous_response_not_found",
        )
    for name in ("conversation", "background", "prompt"):
        if getattr(request, name):
            raise unsupported(name, _NOT_KEPT)
    if request.chat_template is not None:
        raise unsupported("chat_template", OWN_TEMPLATE)


def _tools(tools: list[FlatTool] | None) -> tuple[ToolDefinition, ...]:
    found = []
    for index, tool in enumerate(tools or ()):
        if tool.type != "function":
            what = f"A tool of the type {tool.type[:40]!r}"
            raise unsupported(f"tools[{index}].type", "Tools must be functions.", what=what)
        if not tool.name:
            raise missing(f"tools[{index}].name")
        definition = FunctionDefinition(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
        found.append(tool_definition(definition))
    return tuple(found)


def _format(request: ResponsesRequest) -> ResponseFormat | None:
    """The format as chat requests have it."""
    form = None if request.text is None else request.text.format
    if form is None:
        return None
    nested = JsonSchemaFormat(schema=form.schema_) if form.type == "json_schema" else None
    return ResponseFormat(type=form.type, json_schema=nested)


def _messages(request: ResponsesRequest) -> tuple[Message, ...]:
    builder = _Conversation()
    if request.instructions:
        builder.say("system", request.instructions)
    if isinstance(request.input, str):
        builder.say("user", request.input)
    else:
        for index, item in enumerate(request.input):
            builder.add(item, f"input[{index}]")
    messages = builder.finish()
    if not messages:
        raise InvalidRequest("The input is empty.", "Send a text, or a list of messages.", param="input")
    return messages


class _Conversation:
    """Makes messages of items. Reasoning, text and calls that follow each other are one assistant message."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._names: dict[str, str] = {}  # of the functions, by the ids of their calls
        self._reasoning: list[str] = []
        self._text: str | None = None
        self._calls: list[ToolCall] = []

    def say(self, role: Role, text: str) -> None:
        """A message that is not the assistant's."""
        self._close()
        self._messages.append(Message(role, text))

    def add(self, item: InputItem, param: str) -> None:
        """The next item; `param` names it in an error."""
        kind = item.type or ("message" if item.role is not None else None)
        if kind == "message":
            self._add_message(item, param)
        elif kind == "function_call":
            self._add_call(item, param)
        elif kind == "function_call_output":
            self._add_output(item, param)
        elif kind == "reasoning":
            self._add_reasoning(item, param)
        else:
            raise InvalidRequest(
                f"{param} is of the type {str(kind)[:40]!r}.",
                "Items may be message, function_call, function_call_output and reasoning.",
                param=f"{param}.type",
            )

    def finish(self) -> tuple[Message, ...]:
        """The whole conversation."""
        self._close()
        return tuple(self._messages)

    def _add_message(self, item: InputItem, param: str) -> None:
        text = content_text(item.content, f"{param}.content")
        if item.role is None or text is None:
            raise missing(f"{param}.{'role' if item.role is None else 'content'}")
        if item.role != "assistant":
            self.say("user" if item.role == "user" else "system", text)
            return
        if self._text is not None or self._calls:
            self._close()
        self._text = text

    def _add_call(self, item: InputItem, param: str) -> None:
        if not item.name or not item.call_id:
            raise missing(f"{param}.{'call_id' if item.name else 'name'}")
        arguments = call_arguments(FunctionCall(name=item.name, arguments=item.arguments), param)
        self._names[item.call_id] = item.name
        self._calls.append(ToolCall(bare_call_id(item.call_id), item.name, arguments))

    def _add_output(self, item: InputItem, param: str) -> None:
        text = content_text(item.output, f"{param}.output")
        if not item.call_id or text is None:
            raise missing(f"{param}.{'output' if item.call_id else 'call_id'}")
        self._close()
        name = self._names.get(item.call_id)
        self._messages.append(Message("tool", text, name=name, tool_call_id=bare_call_id(item.call_id)))

    def _add_reasoning(self, item: InputItem, param: str) -> None:
        if self._text is not None or self._calls:
            self._close()
        content = content_text(item.content, f"{param}.content")
        pieces = [content] if content else [part.text for part in item.summary or () if part.text]
        self._reasoning += pieces

    def _close(self) -> None:
        """End the assistant's message, if there is one. Reasoning without an answer says nothing to anybody."""
        if self._text is not None or self._calls:
            reasoning = "\n".join(self._reasoning) or None
            calls = tuple(self._calls)
            self._messages.append(
                Message("assistant", self._text or "", reasoning=reasoning, tool_calls=calls)
            )
        self._reasoning, self._text, self._calls = [], None, []
