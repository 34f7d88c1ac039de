"""One call: found, checked, allowed, run within its limits. Whatever happens, there is a text for the model."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from llm_local.events import ToolEvent, ToolOutcome, ToolResult, ToolStarted
from llm_local.messages import ToolCall
from llm_local.tools.approval import Approve
from llm_local.tools.limits import ToolLimits
from llm_local.tools.schemas import argument_faults
from llm_local.tools.tool import Tool, ToolFailure

__all__ = ["CallRunner"]

MAX_NAMES: Final = 50
CHECK_LIMIT_S: Final = 5.0  # for arguments against a schema, which may be a stranger's
_Act = Callable[[], tuple[ToolOutcome, str]]
_CANCELLED: Final = ("cancelled", "The call was cancelled by the user.")


class CallRunner:
    """Runs the calls of one conversation.

    A call runs in a daemon thread of its own, with the caller's context variables. Python cannot end a thread from
    outside: a call that takes too long, or is cancelled, is not waited for any longer, but goes on until it ends by
    itself, or the process does.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        approve: Approve,
        limits: ToolLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._approve = approve
        self._limits = limits
        self._clock = clock
        self._always: set[str] = set()
        self._num_run = 0
        self._waiting: SimpleQueue[tuple[ToolOutcome, str]] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Do not wait for the call that runs, and run no other. Safe from a signal handler and from another thread."""
        self.cancelled = True
        waiting = self._waiting
        if waiting is not None:
            waiting.put(_CANCELLED)  # may be called while this very queue is being waited for

    def run(self, call: ToolCall) -> Iterator[ToolEvent]:
        """What happens to one call, `ToolResult` last. Only an error of the approver is raised."""
        tool = self._tools.get(call.name)
        refusal = self._refusal(call, tool)
        if tool is None or refusal is not None:
            outcome, text = refusal or ("unknown", "")
            yield self.result(call, outcome, text)
            return
        self._num_run += 1
        yield ToolStarted(call, tool.source)
        started_s = self._clock()
        limit_s = self._limits.call_s if tool.time_limit_s is None else tool.time_limit_s
        outcome, text = self._wait(lambda: _run(call, tool), limit_s, name=f"tool {call.name}")
        yield self.result(call, outcome, text, run_s=self._clock() - started_s)

    def result(self, call: ToolCall, outcome: ToolOutcome, text: str, *, run_s: float = 0.0) -> ToolResult:
        """The result of a call with `text` made fit to be read: valid Unicode, not too long, and a failure is one."""
        tool = self._tools.get(call.name)
        omitted = max(0, len(text) - self._limits.max_result_chars)
        text = text[: self._limits.max_result_chars]  # first of all: there may be far too much of it
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if omitted:
            text = f"{text}\n[{omitted} more characters of this result were left out.]"
        if outcome != "ok":
            # an object of its own, so that no result can be taken for a failure
            text = json.dumps({"error": text}, ensure_ascii=False)
        return ToolResult(call, tool.source if tool else "", outcome, text, omitted, run_s)

    def _refusal(self, call: ToolCall, tool: Tool | None) -> tuple[ToolOutcome, str] | None:
        """Why a call is not run, or None."""
        if self.cancelled:
            return _CANCELLED
        if tool is None:
            names = ", ".join([*self._tools][:MAX_NAMES])
            return "unknown", f"There is no tool {call.name!r}. The tools are: {names}."
        outcome, said = self._wait(lambda: _check(call, tool), CHECK_LIMIT_S, name=f"check of {call.name}")
        if outcome == "timed_out":
            return "invalid", f"The arguments could not be checked within {CHECK_LIMIT_S:g} seconds."
        if outcome != "ok":
            return outcome, said
        if self._num_run >= self._limits.max_calls:
            return (
                "over_limit",
                f"Not run, because the limit of {self._limits.max_calls} calls is reached.",
            )
        if call.name in self._always:
            return None
        approval = self._approve(call, tool)
        if self.cancelled:
            return _CANCELLED
        if not approval.allowed:
            return "denied", f"The call was not allowed. {approval.reason}".rstrip()
        if approval.always:
            self._always.add(call.name)
        return None

    def _wait(self, act: _Act, limit_s: float, name: str) -> tuple[ToolOutcome, str]:
        """Do `act` in a thread, and wait for it as long as it may take."""
        done: SimpleQueue[tuple[ToolOutcome, str]] = SimpleQueue()
        self._waiting = done
        try:
            if self.cancelled:  # between the question and here
                return _CANCELLED
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(_do, act, done), name=name, daemon=True).start()
            return done.get(timeout=limit_s)
        except RuntimeError as error:  # no thread can be started
            return "failed", f"The tool could not be started: {error}."
        except Empty:
            return "timed_out", f"The tool gave no result within {limit_s:g} seconds."
        finally:
            self._waiting = None


def _do(act: _Act, done: SimpleQueue[tuple[ToolOutcome, str]]) -> None:
    """The body of a thread. It must put something, or somebody waits in vain."""
    try:
        done.put(act())
    except BaseException as error:  # a tool is foreign code and may raise anything, SystemExit too
        done.put(("failed", f"{type(error).__name__}: {_words(error)}".rstrip(": ")))


def _check(call: ToolCall, tool: Tool) -> tuple[ToolOutcome, str]:
    faults = argument_faults(call.arguments, tool.definition.parameters)
    return ("invalid", f"The arguments are not valid: {'; '.join(faults)}.") if faults else ("ok", "")


def _run(call: ToolCall, tool: Tool) -> tuple[ToolOutcome, str]:
    try:
        text = tool.run(call.arguments)
    except ToolFailure as error:
        return "failed", _words(error)
    if not isinstance(text, str):
        return "failed", f"The tool {tool.name} gave no text, but a {type(text).__name__}."
    return "ok", text


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # foreign too
        return ""
