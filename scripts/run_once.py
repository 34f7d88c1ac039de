#!/usr/bin/env python3
"""Ask a language model on this machine once: `./run.sh scripts/run_once.py "Hello"`. See docs/run_once.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("llm_local") is None:  # not installed: run from the checkout this script lies in
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))

from llm_local import __version__
from llm_local.errors import LocalLLMError
from llm_local.terminal.exit_codes import OK, leave
from llm_local.terminal.flags import FlagParser, add_request_flags, add_setting_flags
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import STDOUT, AnswerWriter, Messages, hold_standard_streams
from llm_local.terminal.tool_flags import ToolRequest, add_tool_flags

if TYPE_CHECKING:
    from llm_local.messages import ToolCall
    from llm_local.terminal.one_shot import OneShot
    from llm_local.terminal.tool_question import ToolAnswer
    from llm_local.terminal.tool_run import MakeLoop
    from llm_local.tools.approval import Approval
    from llm_local.tools.tool import Tool


def make_parser() -> FlagParser:
    """All flags of this script."""
    parser = FlagParser(
        prog="run_once.py",
        usage="run_once.py [FLAGS] [PROMPT]",
        description="Ask a language model on this machine once. The answer goes to stdout, all else to stderr.",
        epilog="A setting comes from its flag, else the environment, .env, what the model's makers recommend, or "
        "the default shown here. docs/run_once.md lists the exit codes.",
    )
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="What to ask. Piped input comes first, then a blank line, then PROMPT; - takes the input alone.",
    )
    model = parser.add_argument_group("model")
    add_setting_flags(
        model, ("model_id", "quantization", "torch_dtype", "device_map", "context_length", "offline")
    )
    generation = parser.add_argument_group("generation")
    add_setting_flags(
        generation, ("system_prompt", "max_new_tokens", "temperature", "top_p", "top_k", "min_p")
    )
    add_setting_flags(generation, ("typical_p", "repetition_penalty", "seed"))
    add_request_flags(generation)
    generation.add_argument(
        "--raw", action="store_true", help="Continue PROMPT as it is, without chat template."
    )
    add_tool_flags(parser.add_argument_group("tools", "What the model may call. Without these, nothing."))
    batch = parser.add_argument_group("batch")
    batch.add_argument(
        "--batch",
        metavar="FILE",
        help="Answer each line of FILE, a JSON object with a prompt or messages; - is stdin. One JSON object a line "
        "comes out, in order.",
    )
    batch.add_argument(
        "--output",
        metavar="FILE",
        help="Write the results of a batch to FILE instead of stdout; run again with it to go on.",
    )
    output = parser.add_argument_group("output")
    for flags, text in (
        (("--no-stream",), "Print the answer when it is complete."),
        (("--json",), "Print one JSON object when the answer is complete."),
        (("--show-prompt",), "Print the exact rendered prompt and its token count on stderr."),
        (("--show-thinking",), "Print the model's reasoning on stderr; the answer on stdout never holds it."),
        (("-v", "--verbose"), "Print token counts, timings and options on stderr."),
        (("--debug",), "Print the traceback of an error."),
        (("--version",), "Print the version and exit."),
        (("-h", "--help"), "Print this help and exit."),
    ):
        output.add_argument(*flags, action="store_true", help=text)
    return parser


def main(words: list[str]) -> int:
    """Run with the command-line `words` and return the exit code."""
    closed = hold_standard_streams()
    messages = Messages.on_stderr()
    signals = StopSignals(messages)
    signals.install()
    answer = AnswerWriter.take_stdout()
    try:
        if STDOUT in closed:
            raise LocalLLMError("stdout is closed, so the answer has nowhere to go.")
        parser = make_parser()
        args = parser.parse(words)
        if args.help or args.version:
            answer.write(parser.format_help() if args.help else f"llm-local {__version__}\n")
            return OK
    except Exception as error:
        return _one_shot(answer, messages, signals).fail(
            error, as_json="--json" in words, debug="--debug" in words
        )
    return _one_shot(answer, messages, signals).run(args)


def _one_shot(answer: AnswerWriter, messages: Messages, signals: StopSignals) -> OneShot:
    # Late: help must not wait for what only a run needs.
    from llm_local.terminal.one_shot import OneShot

    return OneShot(answer, messages, signals, open_tools=open_tools)


@contextmanager
def open_tools(request: ToolRequest, ask: Callable[[ToolCall, str], ToolAnswer]) -> Iterator[MakeLoop]:
    """The tools that flags ask for, and what makes a loop over them: here, because the terminal knows no tools."""
    # Late: only a run with tools needs them.
    from llm_local.tools.approval import Approval
    from llm_local.tools.limits import ToolLimits
    from llm_local.tools.loop import ToolLoop
    from llm_local.tools.opening import open_sources

    def approve(call: ToolCall, tool: Tool) -> Approval:
        answer = ask(call, tool.source)
        return Approval(answer.allowed, always=answer.always)

    limits = ToolLimits(**request.limits)
    with open_sources(
        function_files=request.function_files,
        plug_in_tools=request.plug_in_tools,
        servers=request.servers,
        call_s=request.limits.get("call_s"),
        choice=request.choice,
    ) as tools:
        yield lambda generate, messages, options: ToolLoop(
            generate, messages, tools, options, approve=approve, limits=limits
        )


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
