"""Commands about how the model answers: system prompt, options, tools, and what holds now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from llm_local.chat.attachments import read_text_file
from llm_local.chat.basic_commands import one_line
from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.outcomes import Outcome, Said, Shown, Text
from llm_local.chat.sampling_choices import OPTION_NAMES, option_help, option_name
from llm_local.chat.session import ChatSession
from llm_local.chat.turns import seen
from llm_local.errors import InvalidRequest

__all__ = ["SETTING_COMMANDS"]

_FORMAT_WORDS: Final = ("json", "off", "none", "text", "default", "unset")


def _system(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    if not arguments:
        return _system_text(session)
    notices = session.set_system(None if arguments in ("off", "none") else arguments)
    said = (
        "The system prompt holds from the next answer on." if session.system_prompt else "No system prompt."
    )
    return Said((said, *notices))


def _set(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    name, _, value = arguments.partition(" ")
    if "=" in name:  # `/set temperature=0` is what some are used to
        name, _, rest = name.partition("=")
        value = f"{rest} {value}".strip()
    if not name:
        return _parameters(session)
    name, value = option_name(name), value.strip()
    if value:
        if name == "format" and value.lower() not in _FORMAT_WORDS and not value.startswith("{"):
            value = _schema(value)
        return Said((f"{name} = {session.set_option(name, value)}",))
    return Said((f"{name} = {session.shown_option(name)}", f"It takes {option_help(name)}."))


def _schema(file: str) -> str:
    """The JSON schema in a file."""
    text = read_text_file(file)
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{file} is not JSON: {error}.", param="format") from None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{file} holds no JSON schema, which is an object.", param="format")
    return text.strip()


def _parameters(session: ChatSession) -> Shown:
    chosen = {"format" if name == "constraint" else name for name in session.chosen}
    rows = [
        (name, session.shown_option(name), "chosen here" if name in chosen else "", option_help(name))
        for name in OPTION_NAMES
    ]
    notes = ("/set NAME VALUE changes one, and /set NAME default takes that back.",)
    return Shown("Options", ("name", "value", "", "takes"), tuple(rows), notes)


def _info(session: ChatSession) -> Shown:
    info = session.model.info
    rows = [
        ("model", info.ref),
        ("architecture", info.architecture),
        ("parameters", f"{info.num_parameters:,}"),
        ("weights", f"{info.weight_bytes:,} bytes, {info.dtype}, {info.quantization}"),
        ("device", info.device),
        ("runs as", session.model.generator.runs_as),
        ("context", f"{info.context_length} tokens"),
        ("used", "" if session.context_used is None else f"{session.context_used} tokens"),
        ("chat template", "its own" if info.has_chat_template else "none; a plain transcript is used"),
        ("loaded in", f"{session.model.load_s:.2f} s"),
        ("turns", f"{session.num_turns}{_left_out(session)}"),
    ]
    if session.conversation is not None:
        rows.append(("conversation", f"{session.conversation.id[:8]} {session.conversation.title}".strip()))
    return Shown("Model", ("", ""), tuple(rows))


def _left_out(session: ChatSession) -> str:
    count = seen(session.entries).num_left_out
    return f"; the {count} oldest messages are not given to the model" if count else ""


def _template(session: ChatSession) -> Outcome:
    source = session.model.generator.template_source
    return Text(source, is_markdown=False) if source else Said(("This model has no chat template.",))


def _prompt(session: ChatSession) -> Outcome:
    prepared = session.prepared
    if prepared is None:
        return Said(("Nothing was asked of this model yet.",))
    count = f"[{len(prepared.prompt_ids)} tokens]"
    return Text(f"{prepared.prompt_text}\n{count}", is_markdown=False)


def _system_text(session: ChatSession) -> Outcome:
    prompt = session.system_prompt
    return Text(prompt, is_markdown=False) if prompt else Said(("There is no system prompt.",))


_SHOWN: Final[Mapping[str, Callable[[ChatSession], Outcome]]] = {
    "info": _info,
    "parameters": _parameters,
    "system": _system_text,
    "template": _template,
    "prompt": _prompt,
}


def _show(context: CommandContext, arguments: str) -> Outcome:
    show = _SHOWN.get(arguments.lower() or "info")
    if show is None:
        raise InvalidRequest(
            f"{arguments[:60]!r} cannot be shown.", f"There is {', '.join(_SHOWN)}.", param="show"
        )
    return show(context.session)


def _tools(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    offers = () if session.tools is None else session.tools.offers
    if not offers:
        return Said(
            ("There are no tools in this chat.", "Start it with --functions, --tool or --mcp to have some.")
        )
    if arguments == "on":
        session.set_tools([offer.name for offer in offers])
    elif arguments == "off":
        session.set_tools([])
    elif arguments:
        session.set_tools(session.tools_on ^ {arguments})  # what is on goes off, and the other way round
    rows = tuple(
        (
            offer.name,
            "on" if offer.name in session.tools_on else "off",
            offer.source,
            one_line(offer.description),
        )
        for offer in offers
    )
    return Shown("Tools", ("name", "", "from", "what it does"), rows)


SETTING_COMMANDS: Final = (
    Command("system", "[TEXT|off]", "Show or change the system prompt.", _system),
    Command(
        "set",
        "[NAME [VALUE]]",
        "Show or change how answers are generated; `format` takes json, off, or a file with a JSON schema.",
        _set,
        completes="option",
    ),
    Command(
        "show",
        f"[{'|'.join(_SHOWN)}]",
        "Show what holds now: about the model, the options, the last prompt.",
        _show,
    ),
    Command("tools", "[on|off|NAME]", "Show the tools, or let the model use them.", _tools, completes="tool"),
)
