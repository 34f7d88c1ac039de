"""How to generate: every knob, its default and its bounds, once.

The default of each field is its *off* position, so `GenerationOptions()` samples from the model's own
distribution until the end token or the end of the window.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from llm_local.errors import InvalidRequest
from llm_local.messages import check_text

__all__ = [
    "BOUNDS",
    "UNSET",
    "Bound",
    "Constraint",
    "ConstraintKind",
    "GenerationOptions",
    "Think",
    "Unset",
    "given",
]


class Unset:
    """The type of UNSET: "the caller said nothing", which is not the same as None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset()


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only the entries whose value the caller really gave."""
    return {name: value for name, value in values.items() if not isinstance(value, Unset)}


@dataclass(frozen=True, slots=True)
class Bound:
    """The interval a number must lie in. `open_low` excludes the lower end itself."""

    low: float
    high: float
    integer: bool = False
    open_low: bool = False

    def allows(self, value: Any) -> bool:
        """True when `value` is a number (an int where `integer`) inside the bound; NaN and booleans are not."""
        kind = int if self.integer else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        return bool((self.low < value if self.open_low else self.low <= value) and value <= self.high)

    def check(self, name: str, value: Any) -> None:
        """Raise InvalidRequest, naming the field, unless `value` is allowed."""
        if not self.allows(value):
            raise InvalidRequest(f"{name} is {reprlib.repr(value)}, but must be {self}.", param=name)

    def __str__(self) -> str:
        what = "an integer" if self.integer else "a number"
        low, high = (f"{end}" if self.integer else f"{end:g}" for end in (self.low, self.high))
        return f"{what} {'above' if self.open_low else 'from'} {low} to {high}"


BOUNDS: Final[Mapping[str, Bound]] = {
    "max_new_tokens": Bound(1, 10_000_000, integer=True),
    "temperature": Bound(0.0, 10.0),
    "top_k": Bound(0, 1_000_000, integer=True),
    "top_p": Bound(0.0, 1.0, open_low=True),
    "min_p": Bound(0.0, 1.0),
    "typical_p": Bound(0.0, 1.0, open_low=True),
    "repetition_penalty": Bound(0.0, 10.0, open_low=True),
    "presence_penalty": Bound(-2.0, 2.0),
    "frequency_penalty": Bound(-2.0, 2.0),
    "seed": Bound(-(2**63), 2**63 - 1, integer=True),
    "top_logprobs": Bound(0, 20, integer=True),
    "max_thinking_tokens": Bound(0, 10_000_000, integer=True),
}

MAX_STOP_STRINGS: Final = 16
MAX_STOP_BYTES: Final = 256
MAX_LOGIT_BIAS_ENTRIES: Final = 1024
LOGIT_BIAS: Final = Bound(-100.0, 100.0)
MAX_CONSTRAINT_BYTES: Final = 256 * 1024
MAX_CHOICES: Final = 10_000

Think = Literal["default", "on", "off", "low", "medium", "high"]
ConstraintKind = Literal["json", "json_schema", "regex", "choice", "grammar", "gbnf", "lark"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the reply must be, from its first to its last character, when it ends by itself.

    - `json`: any JSON object; no value.
    - `json_schema`: JSON text or a mapping, kept as JSON text (Draft 2020-12; what cannot be enforced is refused).
    - `regex`: matched as a whole, in the syntax of Rust's regex crate (no lookaround, no backreferences).
    - `choice`: a sequence of texts, one of which is the reply.
    - `gbnf`, `lark`: a grammar whose start is the rule `root` or `start`; `grammar` finds out which of the two it is.

    Only the form is checked here; whether it can be enforced is known when it is compiled for a model.

    Raises:
        InvalidRequest: unknown kind, a value of the wrong type, empty, too large, or no JSON; `param` is "constraint".
    """

    kind: ConstraintKind
    value: str | tuple[str, ...] | Mapping[str, Any] = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ConstraintKind):
            raise _wrong(
                f"Unknown kind of constraint {self.kind!r}.",
                f"Use one of {', '.join(get_args(ConstraintKind))}.",
            )
        if self.kind == "choice":
            object.__setattr__(self, "value", _checked_choices(self.value))
        elif self.kind == "json_schema":
            object.__setattr__(self, "value", _checked_schema(self.value))
        elif not isinstance(self.value, str):
            raise _wrong(f"A {self.kind} constraint must be text, not {type(self.value).__name__}.")
        elif self.kind == "json" and self.value:
            raise _wrong("A json constraint takes no value.", "Use json_schema for a schema.")
        elif self.kind != "json" and not self.value.strip():
            raise _wrong(f"The {self.kind} constraint is empty.")
        for text in self.choices:
            check_text(text, "constraint")
        size = sum(len(text.encode()) for text in self.choices)
        if size > MAX_CONSTRAINT_BYTES:
            raise _wrong(f"The constraint has {size} bytes, at most {MAX_CONSTRAINT_BYTES} allowed.")

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts to choose from; of other kinds, the one text they are made of."""
        return self.value if isinstance(self.value, tuple) else (str(self.value),)


def _wrong(message: str, hint: str = "") -> InvalidRequest:
    return InvalidRequest(message, hint, param="constraint")


def _checked_choices(value: Any) -> tuple[str, ...]:
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or not all(isinstance(one, str) for one in value)
    ):
        raise _wrong("A choice constraint must be a sequence of texts.")
    if not value or not all(value):
        raise _wrong("A choice constraint needs at least one text, and none of them empty.")
    if len(value) > MAX_CHOICES:
        raise _wrong(f"{len(value)} choices given, at most {MAX_CHOICES} allowed.")
    return tuple(value)


def _checked_schema(value: Any) -> str:
    """The schema as JSON text in one spelling, so that equal ones are equal; the order of its keys has a meaning."""
    try:
        if isinstance(value, str):
            if len(value) > MAX_CONSTRAINT_BYTES:
                raise _wrong(f"The JSON schema has over {MAX_CONSTRAINT_BYTES} bytes, which is not allowed.")
            value = json.loads(value)
        if not isinstance(value, Mapping):
            raise _wrong(
                f"A JSON schema must be a JSON object, not {type(value).__name__}.",
                'Such as {"type": "object"}.',
            )
        return json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise _wrong("The JSON schema is nested too deeply.") from None
    except (TypeError, ValueError) as error:
        raise _wrong(f"The JSON schema is not valid JSON: {error}.") from None


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Sampling and stopping of one request.

    - `max_new_tokens`: cap on sampled tokens; None means until the end token or the end of the window.
    - `temperature`: 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1 are off.
    - `repetition_penalty`: 1 is off, over prompt and reply (Keskar et al. 2019, CTRL).
    - `presence_penalty`, `frequency_penalty`: 0 is off, over the reply only (the OpenAI definition).
    - `logit_bias`: token id to an amount added to its logit.
    - `stop`: strings that end the reply and are not part of it.
    - `seed`: makes sampling repeatable, alone or inside any batch; None draws a fresh one.
    - `logprobs`: report the log-probability of each sampled token, and of `top_logprobs` alternatives.
    - `constraint`: what the whole answer must be, behind the reasoning if there is any; None leaves it free.
    - `think`: whether the model reasons, or how much; a model whose chat template has no such switch refuses.
    - `max_thinking_tokens`: cap on sampled tokens of reasoning, after which it is closed; None is no cap of its own.
    - `tool_choice`: "auto", "none" (as if there were no tools), "required" (at least one call), or a tool's name.

    Raises:
        InvalidRequest: a value out of its bound; `param` names the field.
    """

    max_new_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    constraint: Constraint | None = None
    think: Think = "default"
    max_thinking_tokens: int | None = None
    tool_choice: str = "auto"

    def __post_init__(self) -> None:
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if value is not None or name not in ("max_new_tokens", "seed", "max_thinking_tokens"):
                bound.check(name, value)
        _check_stop(self.stop)
        _check_logit_bias(self.logit_bias)
        if not isinstance(self.logprobs, bool):
            raise InvalidRequest(
                f"logprobs is {self.logprobs!r}, but must be true or false.", param="logprobs"
            )
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise _wrong(f"constraint must be a Constraint, not {type(self.constraint).__name__}.")
        if self.think not in get_args(Think):
            raise InvalidRequest(
                f"think is {reprlib.repr(self.think)}, but must be one of {', '.join(get_args(Think))}.",
                param="think",
            )
        if not isinstance(self.tool_choice, str) or not self.tool_choice:
            raise InvalidRequest(
                "tool_choice must be auto, none, required or the name of a tool.", param="tool_choice"
            )

    @property
    def greedy(self) -> bool:
        """True when the most likely token is always taken."""
        return self.temperature == 0

    def replace(self, **changes: Any) -> GenerationOptions:
        """A copy with some fields changed; UNSET values change nothing.

        Raises:
            InvalidRequest: unknown field or a value out of its bound.
        """
        changes = given(changes)
        known = {f.name for f in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise InvalidRequest(f"Unknown generation option {name!r}.", param=name)
        return dataclasses.replace(self, **changes)


def _check_stop(stop: tuple[str, ...]) -> None:
    if not isinstance(stop, tuple) or not all(isinstance(text, str) for text in stop):
        raise InvalidRequest("stop must be a tuple of strings.", param="stop")
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"{len(stop)} stop strings given, at most {MAX_STOP_STRINGS} allowed.", param="stop"
        )
    for text in stop:
        size = len(text.encode("utf-8", "surrogatepass"))
        if not 1 <= size <= MAX_STOP_BYTES:
            raise InvalidRequest(
                f"A stop string of {size} bytes is given, but it must have 1 to {MAX_STOP_BYTES}.",
                param="stop",
            )


def _check_logit_bias(logit_bias: Mapping[int, float]) -> None:
    if not isinstance(logit_bias, Mapping):
        raise InvalidRequest("logit_bias must map token ids to numbers.", param="logit_bias")
    if len(logit_bias) > MAX_LOGIT_BIAS_ENTRIES:
        raise InvalidRequest(
            f"logit_bias has {len(logit_bias)} entries, at most {MAX_LOGIT_BIAS_ENTRIES} allowed.",
            param="logit_bias",
        )
    for token_id, bias in logit_bias.items():
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise InvalidRequest(f"logit_bias key {token_id!r} is not a token id.", param="logit_bias")
        LOGIT_BIAS.check(f"logit_bias[{token_id}]", bias)
