"""The flags of both chats, and what they ask for beside the settings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.terminal.flag_parser import FlagParser
from llm_local.terminal.flags import add_request_flags, add_setting_flags, request_options
from llm_local.terminal.tool_flags import ToolRequest, add_tool_flags, check_tool_flags, tool_request

__all__ = ["ChatRequest", "add_chat_flags", "chat_request", "make_parser"]

_MODEL: Final = ("quantization", "torch_dtype", "device_map", "context_length", "offline")
_GENERATION: Final = (
    "system_prompt",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "seed",
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What somebody wants of a chat that is no setting.

    `options` has what `ChatSession.set_option` takes: texts by name. `conversation` is the id of a stored one, or the
    beginning of an id.
    """

    options: Mapping[str, str]
    tools: ToolRequest | None = None
    continues: bool = False
    conversation: str | None = None
    stores: bool = True
    chooses: bool = False
    shows_thinking: bool = False
    verbose: bool = False
    debug: bool = False


def make_parser(prog: str, description: str) -> FlagParser:
    """All flags of a chat that is a program of its own, and not a verb of `llm-local`."""
    parser = FlagParser(
        prog=prog,
        usage=f"{prog} [FLAGS]",
        description=description,
        epilog="A setting comes from its flag, else the environment, .env, what the model's makers recommend, or "
        "the default shown here. docs/chat.md tells more.",
    )
    add_chat_flags(parser, names_model=True)
    output = parser.add_argument_group("about")
    for flags, text in (
        (("--debug",), "Print the traceback of an error, and what MCP servers write to stderr."),
        (("--version",), "Print the version and exit."),
        (("-h", "--help"), "Print this help and exit."),
    ):
        output.add_argument(*flags, action="store_true", help=text)
    return parser


def add_chat_flags(parser: argparse.ArgumentParser, *, names_model: bool) -> None:
    """Add them; `names_model` is False where the model is a word of the command line and no flag."""
    model = parser.add_argument_group("model")
    add_setting_flags(model, (*(("model_id",) if names_model else ()), *_MODEL))
    model.add_argument("--choose", action="store_true", help="Choose the model from a list first.")
    chat = parser.add_argument_group("conversation")
    which = chat.add_mutually_exclusive_group()
    which.add_argument(
        "-c",
        "--continue",
        dest="continues",
        action="store_true",
        help="Go on with the conversation that was last changed.",
    )
    which.add_argument(
        "--conversation",
        metavar="ID",
        help="Go on with this conversation; the beginning of its id is enough.",
    )
    chat.add_argument(
        "--no-history", action="store_true", help="Store nothing: neither messages nor what is typed."
    )
    generation = parser.add_argument_group("generation")
    add_setting_flags(generation, _GENERATION)
    add_request_flags(generation, constraints=False)
    add_tool_flags(parser.add_argument_group("tools", "What the model may call. Without these, nothing."))
    output = parser.add_argument_group("output")
    output.add_argument("--show-thinking", action="store_true", help="Show the model's reasoning.")
    output.add_argument(
        "-v", "--verbose", action="store_true", help="Show speed, token counts and times after each answer."
    )


def chat_request(parsed: argparse.Namespace) -> ChatRequest:
    """What the flags ask for. A flag that the command line of the door does not have counts as not given.

    Raises:
        InvalidRequest: flags that contradict one another, or the command of a tool server that cannot be read.
    """
    given = {**dict.fromkeys(("conversation", "batch", "raw")), **vars(parsed)}
    parsed = argparse.Namespace(**given)
    check_tool_flags(parsed)
    stores = not given.get("no_history")
    continues = bool(given.get("continues"))
    conversation = given["conversation"]
    if not stores and (continues or conversation is not None):
        raise InvalidRequest(
            "--no-history has no place beside --continue or --conversation.",
            "What is gone on with is stored.",
            param="--no-history",
        )
    return ChatRequest(
        options={name: _as_text(value) for name, value in request_options(parsed).items()},
        tools=tool_request(parsed),
        continues=continues,
        conversation=conversation,
        stores=stores,
        chooses=bool(given.get("choose")),
        shows_thinking=bool(given.get("show_thinking")),
        verbose=bool(given.get("verbose")),
        debug=bool(given.get("debug")),
    )


def _as_text(value: object) -> str:
    return json.dumps(list(value)) if isinstance(value, tuple) else str(value)
