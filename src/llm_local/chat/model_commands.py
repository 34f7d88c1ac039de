"""Commands about models: which there are, another one, several side by side."""

from __future__ import annotations

from typing import Final

from llm_local.chat.commands import Command, CommandContext
from llm_local.chat.compare import Comparison
from llm_local.chat.outcomes import Compared, Outcome, Said, Shown
from llm_local.chat.writing import write_asking
from llm_local.errors import InvalidRequest
from llm_local.store.library import list_models

__all__ = ["MODEL_COMMANDS"]

_SAVE: Final = "--save"


def _models(context: CommandContext, arguments: str) -> Outcome:
    current = context.session.model.info.ref
    rows = tuple(
        ("*" if model.name == current else "", model.name, model.kind, model.fault)
        for model in list_models()
        if arguments.lower() in model.name.lower()
    )
    return Shown(
        "Models on this machine", ("", "name", "kind", ""), rows, ("/switch NAME takes another one.",)
    )


def _switch(context: CommandContext, arguments: str) -> Outcome:
    if not arguments:
        raise InvalidRequest("Which model?", "Such as /switch starter; /models lists those on this machine.")
    notices = context.session.switch(arguments)
    return Said((*filter(None, notices), f"Now {context.session.model.info.ref} answers."))


def _compare(context: CommandContext, arguments: str) -> Outcome:
    session = context.session
    words = arguments.split()
    if words[:1] == [_SAVE]:
        if session.comparison is None:
            raise InvalidRequest("There is no comparison to save yet.", "/compare MODEL... makes one.")
        return write_asking(
            arguments.removeprefix(_SAVE).strip(), session.comparison.markdown(), "The comparison"
        )
    if not words:
        raise InvalidRequest(
            "With what?",
            "Such as /compare starter, /compare temperature=0 temperature=1, or starter,top_k=1.",
        )
    if len(words) == 1:
        words.insert(0, session.model.info.ref)  # with itself nothing is compared
    comparison: Comparison = session.compare(words)
    return Compared(comparison)


MODEL_COMMANDS: Final = (
    Command("models", "[PART]", "List the models on this machine.", _models),
    Command(
        "switch", "MODEL", "Let another model answer; the conversation stays.", _switch, completes="model"
    ),
    Command(
        "compare",
        "MODEL[,NAME=VALUE]... | --save FILE",
        "Have several models or options answer the last question, or write that as Markdown.",
        _compare,
        completes="model",
    ),
)
