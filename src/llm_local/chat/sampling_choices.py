"""How a chat's answers are generated: the settings, and what was changed since by name and text."""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from llm_local.chat.models import ChatModel
from llm_local.config import Config
from llm_local.errors import InvalidRequest
from llm_local.messages import Message
from llm_local.options import BOUNDS, Bound, Constraint, GenerationOptions, Think

__all__ = ["OPTION_NAMES", "OptionChoices", "check_choices", "kept_choices", "option_help", "option_name"]

_DEFAULT_WORDS: Final = ("default", "unset")
_ALIASES: Final = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "repeat_penalty": "repetition_penalty",
    "temp": "temperature",
}
_NUMBERS: Final = tuple(name for name in BOUNDS if name != "top_logprobs")
OPTION_NAMES: Final = (*_NUMBERS, "stop", "think", "format")
"""What `set` takes, in the order that lists have."""


class OptionChoices:
    """Immutable: `changed` gives another one."""

    def __init__(self, config: Config, changes: Mapping[str, Any] | None = None) -> None:
        """`config` is without the profile of a model; `changes` are by the names of `GenerationOptions`."""
        self._config = config
        self.changes: Mapping[str, Any] = dict(changes or {})
        """What people chose in this chat."""

    def changed(self, name: str, text: str) -> OptionChoices:
        """With one option as `text` says; `default` takes a change back.

        Raises:
            InvalidRequest: no such option, or not a value that is allowed.
        """
        name = option_name(name)
        field = "constraint" if name == "format" else name
        rest = {key: value for key, value in self.changes.items() if key != field}
        text = text.strip()
        if text.lower() in _DEFAULT_WORDS:
            return OptionChoices(self._config, rest)
        value = _READERS.get(name, _read_number)(name, text)
        choices = OptionChoices(self._config, rest | {field: value})
        GenerationOptions().replace(**choices.changes)
        return choices

    def without(self, *names: str) -> OptionChoices:
        """Without some of the changes."""
        return OptionChoices(
            self._config, {key: value for key, value in self.changes.items() if key not in names}
        )

    def options(self, model_defaults: Mapping[str, Any], *, draw_seed: bool) -> GenerationOptions:
        """What holds for a model with these defaults. A seed is drawn where none is given, if wanted."""
        options = self._config.with_profile(model_defaults).generation_options().replace(**self.changes)
        if draw_seed and options.seed is None and not options.greedy:
            return options.replace(
                seed=secrets.randbits(31)
            )  # drawn here, so that the answer can be repeated
        return options

    def shown(self, name: str, model_defaults: Mapping[str, Any]) -> str:
        """The value of one option as people read it."""
        name = option_name(name)
        options = self.options(model_defaults, draw_seed=False)
        if name == "format":
            kind = None if options.constraint is None else options.constraint.kind
            return {None: "off", "json": "json"}.get(kind, "a JSON schema")
        value = getattr(options, name)
        if value is None:
            return "off"
        if name == "stop":
            return json.dumps(list(value), ensure_ascii=False) if value else "off"
        return str(value)

    @property
    def explicit_cap(self) -> bool:
        """Whether somebody chose `max_new_tokens`, so that room for all of them must be there."""
        return "max_new_tokens" in self.changes or self._config.is_explicit("max_new_tokens")

    @property
    def fixed_seed(self) -> bool:
        """Whether every answer is drawn with the same seed."""
        return self.changes.get("seed", self._config.seed) is not None


def check_choices(choices: OptionChoices, model: ChatModel) -> None:
    """Raise InvalidRequest where a model cannot reason, or answer, as the choices say."""
    options = choices.options(model.generation_defaults, draw_seed=False)
    prepared = model.generator.prepare_chat([Message("user", "?")], options)
    if options.constraint is not None:
        model.generator.open(prepared)  # compiles it; nothing is generated


def kept_choices(choices: OptionChoices, model: ChatModel) -> tuple[OptionChoices, tuple[str, ...]]:
    """The choices that another model can keep, and lines that say which it cannot."""
    lines = []
    for name, field in (("think", "think"), ("format", "constraint")):
        if field not in choices.changes:
            continue
        alone = choices.without(*({"think", "constraint"} - {field}))
        try:
            check_choices(alone, model)
        except InvalidRequest as error:
            choices = choices.without(field)
            lines.append(f"{name} is back at its default: {error.message}")
    return choices, tuple(lines)


def option_name(text: str) -> str:
    """The option that `text` names, by one of its names.

    Raises:
        InvalidRequest: there is none; the hint has the nearest.
    """
    name = text.strip().lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in OPTION_NAMES:
        near = difflib.get_close_matches(name, (*OPTION_NAMES, *_ALIASES), n=1, cutoff=0.5)
        hint = (
            f"Did you mean {_ALIASES.get(near[0], near[0])}?"
            if near
            else f"There is {', '.join(OPTION_NAMES)}."
        )
        raise InvalidRequest(f"There is no option {name[:60]!r}.", hint, param="name")
    return name


def option_help(name: str) -> str:
    """What values an option takes."""
    if name in BOUNDS:
        return f"{BOUNDS[name]}, or off" if name in _NONE_IS_OFF else str(BOUNDS[name])
    return {
        "stop": "a text, or a JSON list of texts, or off",
        "think": ", ".join(get_args(Think)),
        "format": "json, off, a JSON schema, or a file that holds one",
    }[name]


_NONE_IS_OFF: Final = ("max_new_tokens", "seed", "max_thinking_tokens")


def _read_number(name: str, text: str) -> int | float | None:
    bound: Bound = BOUNDS[name]
    if text.lower() in ("off", "none") and name in _NONE_IS_OFF:
        return None
    try:
        value: int | float = int(text) if bound.integer else float(text)
    except ValueError:
        raise InvalidRequest(
            f"{name} is {text[:60]!r}, but must be {option_help(name)}.", param=name
        ) from None
    bound.check(name, value)
    return value


def _read_stop(name: str, text: str) -> tuple[str, ...]:
    if text.lower() in ("off", "none", ""):
        return ()
    if text.startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise InvalidRequest('stop must be a text or a JSON list of texts, such as ["END"].', param=name)
        return tuple(values)
    return (text,)


def _read_think(name: str, text: str) -> str:
    word = {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text.lower(), text.lower())
    if word not in get_args(Think):
        raise InvalidRequest(
            f"think is {text[:60]!r}, but must be one of {', '.join(get_args(Think))}.", param=name
        )
    return word


def _read_format(name: str, text: str) -> Constraint | None:
    if text.lower() in ("off", "none", "text"):
        return None
    if text.lower() == "json":
        return Constraint("json")
    if not text.startswith("{"):
        raise InvalidRequest(f"format is {text[:60]!r}, but must be {option_help('format')}.", param=name)
    return Constraint("json_schema", text)


_READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "stop": _read_stop,
    "think": _read_think,
    "format": _read_format,
}
