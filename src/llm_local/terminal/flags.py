"""Command-line flags, made from the declarations of the settings: same names, help and bounds everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS, Bound
from llm_local.settings.declarations import SETTINGS
from llm_local.settings.kinds import SWITCH, TEXT, number
from llm_local.terminal.constraint_flags import add_constraint_flags, given_constraint
from llm_local.terminal.flag_parser import FlagParser

__all__ = [
    "FlagParser",
    "add_request_flags",
    "add_setting_flags",
    "check_batch_flags",
    "number_reader",
    "request_options",
    "setting_flags",
]

_SHORT: Final = {"model_id": "-m", "system_prompt": "-s"}
# What shows one answer to people; a batch has results for programs.
_SINGLE: Final = ("no_stream", "show_prompt", "show_thinking", "verbose")
_REQUEST_NUMBERS: Final = {
    "presence_penalty": ("PENALTY", "Lowers tokens that are in the reply already, once.", "Default: 0, off."),
    "frequency_penalty": ("PENALTY", "Lowers tokens by how often they are in the reply.", "Default: 0, off."),
    "max_thinking_tokens": ("TOKENS", "Ends the reasoning after so many tokens.", "Default: no limit."),
}


def add_setting_flags(group: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add the flags of some settings. Values stay text: `load_config` reads and checks them."""
    for name in names:
        setting = SETTINGS[name]
        text = setting.help.replace("`", "").replace("%", "%%")
        strings = [*filter(None, [_SHORT.get(name)]), setting.flag]
        if setting.kind is SWITCH:
            group.add_argument(*strings, dest=name, action="store_const", const=True, help=text)
            continue
        if setting.kind is not TEXT:
            text += f" Must be {setting.kind.allowed}."
        if setting.default is not None:
            text += f" Default: {setting.default}."
        group.add_argument(*strings, dest=name, metavar=setting.flag.rpartition("-")[2].upper(), help=text)


def setting_flags(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `load_config` takes: the flags that are settings, None where not given."""
    return {name: value for name, value in vars(parsed).items() if name in SETTINGS}


def add_request_flags(group: argparse._ActionsContainer, *, constraints: bool = True) -> None:
    """Add the generation flags that belong to one request and are no settings. Their dests are option names.

    `constraints` is False where several answers follow, which no one form fits.
    """
    for name, (metavar, text, default) in _REQUEST_NUMBERS.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(
            flag,
            type=number_reader(flag, BOUNDS[name]),
            metavar=metavar,
            help=f"{text} Must be {BOUNDS[name]}. {default}",
        )
    group.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="End the reply before this text appears. Can be given several times.",
    )
    _add_thinking_flags(group)
    if constraints:
        add_constraint_flags(group)


def _add_thinking_flags(group: argparse._ActionsContainer) -> None:
    flags = group.add_mutually_exclusive_group()
    for flag, value, text in (
        ("--think", "on", "Let the model reason before it answers. Models that cannot be told so refuse."),
        (
            "--no-think",
            "off",
            "Let the model answer without reasoning. Models that cannot be told so refuse.",
        ),
    ):
        flags.add_argument(flag, dest="think", action="store_const", const=value, help=text)
    flags.add_argument(
        "--reasoning-effort",
        dest="think",
        choices=("low", "medium", "high"),
        help="How much the model reasons, where it can be told.",
    )


def request_options(parsed: argparse.Namespace) -> Mapping[str, Any]:
    """What `GenerationOptions.replace` takes: the request flags that were given."""
    names = (*_REQUEST_NUMBERS, "stop", "think")
    values = {name: getattr(parsed, name) for name in names}
    if hasattr(parsed, "constraint"):
        values["constraint"] = given_constraint(parsed)
    return {
        name: tuple(value) if name == "stop" else value for name, value in values.items() if value is not None
    }


def check_batch_flags(parsed: argparse.Namespace) -> None:
    """Refuse what has no place beside `--batch`, or without it.

    Raises:
        InvalidRequest: naming the flag.
    """
    if parsed.batch is None:
        if parsed.output is not None:
            raise InvalidRequest(
                "--output is for the results of a --batch.",
                "Write > FILE for a single answer.",
                param="output",
            )
        return
    if parsed.prompt is not None:
        raise InvalidRequest(
            "A PROMPT has no place with --batch.", "Each line of the batch has its own.", param="prompt"
        )
    for name in _SINGLE:
        if getattr(parsed, name):
            flag = "--" + name.replace("_", "-")
            raise InvalidRequest(f"{flag} has no place with --batch.", "Each result tells all.", param=flag)


def number_reader(flag: str, bound: Bound) -> Callable[[str], float]:
    """What reads the value of a flag that is a number inside `bound`, and names the flag where it is not."""
    kind = number(bound)

    def read(text: str) -> float:
        try:
            number_read: float = kind.read(text)
            return number_read
        except ValueError:
            raise InvalidRequest(f"{flag} is {text!r}, but must be {kind.allowed}.", param=flag) from None

    return read
