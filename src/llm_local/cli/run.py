"""`llm-local run MODEL [PROMPT]`: ask once, or without a prompt on a terminal: chat.

`scripts/run_once.py` asks in the same way without an installation.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from llm_local import __version__
from llm_local.cli.chat import converse
from llm_local.errors import LocalLLMError
from llm_local.terminal.exit_codes import OK
from llm_local.terminal.flags import FlagParser, add_request_flags, add_setting_flags
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import STDIN, STDOUT, AnswerWriter, Messages, hold_standard_streams
from llm_local.terminal.tool_flags import ToolRequest, add_tool_flags

if TYPE_CHECKING:
    from llm_local.messages import ToolCall
    from llm_local.terminal.one_shot import OneShot
    from llm_local.terminal.tool_question import ToolAnswer
    from llm_local.terminal.tool_run import MakeLoop
    from llm_local.tools.approval import Approval
    from llm_local.tools.tool import Tool

__all__ = ["add_flags", "make_parser", "open_tools", "run", "run_script"]

_HOW_TO_LOAD: Final = ("quantization", "torch_dtype", "device_map", "context_length", "offline")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb: those of the script, but the model is the first word."""
    parser.add_argument("model_id", metavar="MODEL", help="The model: org/name, a directory, or starter.")
    _add_prompt(parser)
    add_setting_flags(parser.add_argument_group("model"), _HOW_TO_LOAD)
    _add_one_shot_flags(parser)


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    """Ask once, or chat, and return the exit code. No failure escapes; stdout is taken over, `answer` stays unused."""
    if _is_chat(args):
        return converse(args, messages, plain=False)
    signals = StopSignals(messages)
    signals.install()
    return _one_shot(AnswerWriter.take_stdout(), messages, signals).run(args)


def _is_chat(args: argparse.Namespace) -> bool:
    """True when somebody at a terminal gave no prompt, nor anything that only makes sense with one."""
    one_answer = (args.batch, args.output, args.raw, args.no_stream, args.json, args.show_prompt)
    if args.prompt is not None or any(one_answer) or args.constraint is not None or args.choice is not None:
        return False
    return os.isatty(STDIN) and os.isatty(STDOUT)


def make_parser() -> FlagParser:
    """All flags of the script."""
    parser = FlagParser(
        prog="run_once.py",
        usage="run_once.py [FLAGS] [PROMPT]",
        description="Ask a language model on this machine once. The answer goes to stdout, all else to stderr.",
        epilog="A setting comes from its flag, else the environment, .env, what the model's makers recommend, or "
        "the default shown here. docs/run_once.md lists the exit codes.",
    )
    _add_prompt(parser)
    add_setting_flags(parser.add_argument_group("model"), ("model_id", *_HOW_TO_LOAD))
    output = _add_one_shot_flags(parser)
    for flags, text in (
        (("--debug",), "Print the traceback of an error, and what MCP servers write to stderr."),
        (("--version",), "Print the version and exit."),
        (("-h", "--help"), "Print this help and exit."),
    ):
        output.add_argument(*flags, action="store_true", help=text)
    return parser


def run_script(words: list[str]) -> int:
    """Run the script with the command-line `words` and return the exit code."""
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


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="What to ask. Piped input comes first, then a blank line, then PROMPT; - takes the input alone.",
    )


def _add_one_shot_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """All that says how to ask; returns the last group, where a door may add its own."""
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
    ):
        output.add_argument(*flags, action="store_true", help=text)
    return output


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
        on_server_line=request.on_server_line,
    ) as tools:
        yield lambda generate, messages, options: ToolLoop(
            generate, messages, tools, options, approve=approve, limits=limits
        )
