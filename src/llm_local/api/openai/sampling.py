"""The sampling fields of a request as changes to the generation options. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from llm_local.api.openai.errors import missing, unsupported
from llm_local.api.openai.schemas import ResponseFormat, SamplingFields
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint, ConstraintKind, Think

__all__ = ["THINK_OF_EFFORT", "constraint_of", "one_constraint", "sampling_changes", "think_of"]

THINK_OF_EFFORT: Final[dict[str, Think]] = {
    "none": "off",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}
"""Efforts that other servers know map to the nearest that chat templates know."""

_SWITCHES: Final = ("enable_thinking", "thinking", "reasoning")
_SAME: Final = (
    "seed",
    "temperature",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
)
# A nucleus that holds one token: what top_p 0 means, which our own bound leaves out.
_LEAST_TOP_P: Final = 1e-9

Asked = tuple[str, ConstraintKind, Any]
"""A constraint with the name of the field that asks for it."""


def sampling_changes(request: SamplingFields) -> dict[str, Any]:
    """What the request says about sampling, in our words; nothing that it leaves open.

    Raises:
        InvalidRequest: two names of one option differ, or a key of `logit_bias` is no token id.
    """
    changes = {name: getattr(request, name) for name in _SAME}
    changes["top_k"] = 0 if request.top_k == -1 else request.top_k  # vLLM says off so
    changes["top_p"] = None if request.top_p is None else max(request.top_p, _LEAST_TOP_P)
    changes["stop"] = _stops(request.stop)
    changes["logit_bias"] = _biases(request.logit_bias)
    changes["repetition_penalty"] = _agreed(
        ("repetition_penalty", request.repetition_penalty), ("repeat_penalty", request.repeat_penalty)
    )
    return {name: value for name, value in changes.items() if value is not None}


def think_of(effort: str | None, reasoning: Any, switches: dict[str, Any] | None) -> Think | None:
    """Whether and how much the model is to reason; None when nothing says so.

    `effort` is `reasoning_effort`, `reasoning` the object with an `effort`, `switches` are `chat_template_kwargs`.

    Raises:
        InvalidRequest: they contradict each other, or one has a value or a key that means nothing here.
    """
    found: list[tuple[str, Think]] = []
    if effort is not None:
        found.append(("reasoning_effort", _effort("reasoning_effort", effort)))
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        found.append(("reasoning.effort", _effort("reasoning.effort", reasoning["effort"])))
    for name, value in (switches or {}).items():
        param = f"chat_template_kwargs.{name}"
        if name == "reasoning_effort":
            found.append((param, _effort(param, value)))
        elif name in _SWITCHES and isinstance(value, bool):
            found.append((param, "on" if value else "off"))
        elif name in _SWITCHES:
            raise InvalidRequest(f"{param} must be true or false.", param=param)
        else:
            names = ", ".join((*_SWITCHES, "reasoning_effort"))
            raise unsupported(param, f"Variables of chat templates that can be set: {names}.")
    for param, think in found[1:]:
        if think != found[0][1]:
            raise InvalidRequest(f"{param} contradicts {found[0][0]}.", "Send one of them.", param=param)
    return found[0][1] if found else None


def constraint_of(
    request: SamplingFields, form: ResponseFormat | None = None, *, field: str = "response_format"
) -> Constraint | None:
    """What the answer must be, from whichever field says so. `field` is what the request calls `form`.

    Raises:
        InvalidRequest: two fields say so, or the one is incomplete or of an unknown type.
    """
    asked = [*_formats(form, field), *_extensions(request)]
    return one_constraint(asked)


def one_constraint(asked: Iterable[Asked]) -> Constraint | None:
    """The one constraint among `asked`, or None.

    Raises:
        InvalidRequest: there are two, or it is no constraint; `param` names the field.
    """
    asked = list(asked)
    if not asked:
        return None
    if len(asked) > 1:
        raise InvalidRequest(
            f"{asked[1][0]} and {asked[0][0]} both constrain the answer.",
            "Send one of them.",
            param=asked[1][0],
        )
    param, kind, value = asked[0]
    try:
        return Constraint(kind, value)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, error.hint, param=param) from None


def _formats(form: ResponseFormat | None, field: str) -> list[Asked]:
    if form is None or form.type == "text":
        return []
    if form.type == "json_object":
        if form.schema_ is not None:
            return [(f"{field}.schema", "json_schema", form.schema_)]
        return [(field, "json", "")]
    if form.type == "json_schema":
        schema = form.json_schema.schema_ if form.json_schema is not None else None
        param = f"{field}.json_schema.schema" if field == "response_format" else f"{field}.schema"
        if schema is None:
            raise missing(param)
        return [(param, "json_schema", schema)]
    raise InvalidRequest(
        f"{field}.type is {form.type[:40]!r}.",
        "Use text, json_object or json_schema.",
        param=f"{field}.type",
    )


def _extensions(request: SamplingFields) -> list[Asked]:
    kinds: tuple[tuple[str, ConstraintKind, Any], ...] = (
        ("guided_json", "json_schema", request.guided_json),
        ("guided_regex", "regex", request.guided_regex),
        ("guided_choice", "choice", request.guided_choice),
        ("guided_grammar", "grammar", request.guided_grammar),
        ("grammar", "gbnf", request.grammar or None),
        ("json_schema", "json_schema", request.json_schema),
    )
    asked = [one for one in kinds if one[2] is not None]
    outputs = request.structured_outputs
    if outputs is not None:
        inner: tuple[tuple[str, ConstraintKind, Any], ...] = (
            ("json", "json_schema", outputs.json_),
            ("json_object", "json", "" if outputs.json_object else None),
            ("regex", "regex", outputs.regex),
            ("choice", "choice", outputs.choice),
            ("grammar", "grammar", outputs.grammar),
        )
        asked += [
            (f"structured_outputs.{name}", kind, value) for name, kind, value in inner if value is not None
        ]
    return asked


def _stops(stop: str | list[str] | None) -> tuple[str, ...] | None:
    if stop is None:
        return None
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _biases(biases: dict[str, float] | None) -> dict[int, float] | None:
    if biases is None:
        return None
    for key in biases:
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest(f"The logit_bias key {key[:40]!r} is no token id.", param="logit_bias")
    return {int(key): bias for key, bias in biases.items()}


def _agreed(first: tuple[str, Any], second: tuple[str, Any]) -> Any:
    """The value that two names of one option agree on, or that of the one that is there."""
    if first[1] is not None and second[1] is not None and first[1] != second[1]:
        raise InvalidRequest(f"{first[0]} and {second[0]} differ.", "Send one of them.", param=second[0])
    return second[1] if first[1] is None else first[1]


def _effort(param: str, value: Any) -> Think:
    think = THINK_OF_EFFORT.get(value) if isinstance(value, str) else None
    if think is None:
        raise InvalidRequest(
            f"{param} is {str(value)[:40]!r}.", f"Use one of {', '.join(THINK_OF_EFFORT)}.", param=param
        )
    return think
