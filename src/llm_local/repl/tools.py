"""The tools that flags ask for, as a chat sees them: open as long as it runs, each run allowed by somebody."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from llm_local.chat.models import Generate, ToolOffer
from llm_local.messages import Message, ToolCall
from llm_local.options import GenerationOptions
from llm_local.terminal.tool_flags import ToolRequest
from llm_local.terminal.tool_question import ToolAnswer
from llm_local.tools.approval import Approval
from llm_local.tools.limits import ToolLimits
from llm_local.tools.loop import ToolLoop
from llm_local.tools.opening import open_sources
from llm_local.tools.tool import Tool

__all__ = ["OpenTools", "open_tools"]

Ask = Callable[[ToolCall, str], ToolAnswer]
"""Asks somebody whether a call may run; the text says where the tool comes from."""


class OpenTools:
    """Satisfies `chat.models.ChatTools`."""

    def __init__(self, tools: Sequence[Tool], request: ToolRequest, ask: Ask) -> None:
        self._tools = tuple(tools)
        self._request = request
        self._ask = ask
        self._always: set[str] = set()
        self.offers = tuple(
            ToolOffer(tool.name, tool.definition.description, tool.source) for tool in self._tools
        )

    def loop(
        self,
        generate: Generate,
        messages: Sequence[Message],
        options: GenerationOptions,
        names: Collection[str],
    ) -> ToolLoop:
        """A loop over the tools with these names. What was always allowed stays so for the whole chat."""
        tools = [tool for tool in self._tools if tool.name in names]
        choice = self._request.choice
        if choice in ("none", "required") or choice in names:
            options = options.replace(tool_choice=choice)
        limits = ToolLimits(**self._request.limits)
        return ToolLoop(generate, messages, tools, options, approve=self._approve, limits=limits)

    def _approve(self, call: ToolCall, tool: Tool) -> Approval:
        if tool.name in self._always:
            return Approval(True)
        answer = self._ask(call, tool.source)
        if answer.always:
            self._always.add(tool.name)
        return Approval(answer.allowed, always=answer.always)


@contextmanager
def open_tools(
    request: ToolRequest, ask: Ask, on_server_line: Callable[[str], None] | None
) -> Iterator[OpenTools]:
    """Open all that is asked for while the block runs.

    Raises:
        LocalLLMError: a file cannot be used, there is no such tool, or a server does not start.
    """
    request = dataclasses.replace(request, on_server_line=on_server_line)
    with open_sources(
        function_files=request.function_files,
        plug_in_tools=request.plug_in_tools,
        servers=request.servers,
        call_s=request.limits.get("call_s"),
        choice=request.choice,
        on_server_line=request.on_server_line,
    ) as tools:
        yield OpenTools(tools, request, ask)
