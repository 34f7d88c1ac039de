"""Ollama's `options` as changes to the generation options. Pure.

What is absent or null comes from the model's makers and the server's settings, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_local.api.ollama.schemas import OllamaOptions
from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS, GenerationOptions

__all__ = ["ReadOptions", "read_options"]

_INTEGERS: Final = ("seed", "num_predict", "top_k", "repeat_last_n", "num_ctx")
_OURS: Final[Mapping[str, str]] = {
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_NO_PENALTIES: Final = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_WITHOUT_EFFECT: Final = (
    "num_ctx",
    "num_keep",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "use_mmap",
    "draft_num_predict",
)
_ALL_TOKENS: Final = -1
# A nucleus that holds one token: what top_p 0 means, which our own bound leaves out.
_LEAST_TOP_P: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """`changes` as `GenerationOptions.replace` takes them; `ignored` are names of fields without effect."""

    changes: Mapping[str, Any]
    ignored: tuple[str, ...] = ()
    num_ctx: int | None = None


def read_options(body: OllamaOptions | None, *, capped: bool) -> ReadOptions:
    """What a request's options mean. `capped` says that the settings have a longest reply of their own.

    Clamped: a negative `top_k` is 0 (off), a `top_p` of 0 or less keeps one token, a `num_predict` of 0 or less is the
    room there is, and one beyond every window the longest there can be.

    Raises:
        InvalidRequest: a value of the wrong type or out of its bound, or penalties over a part of the tokens only.
    """
    values = _values(body)
    changes = {_OURS[name]: _bounded(name, value) for name, value in values.items() if name in _OURS}
    if values.get("seed") == -1:
        del changes["seed"]  # as if none were given
    if "stop" in values:
        changes["stop"] = values["stop"]
    changes |= _cap(values.get("num_predict"), capped=capped)
    ignored: list[str] = [name for name in _WITHOUT_EFFECT if name in values]
    if "repeat_last_n" in values:
        ignored += _limit_penalties(values["repeat_last_n"], changes)
    GenerationOptions().replace(**changes)  # what can be wrong without a model is known before one is loaded
    return ReadOptions(changes, tuple(f"options.{name}" for name in ignored), values.get("num_ctx"))


def _values(body: OllamaOptions | None) -> dict[str, Any]:
    """The options that are given, each of its type."""
    if body is None:
        return {}
    given = {name: getattr(body, name) for name in OllamaOptions.model_fields}
    return {name: _typed(name, value) for name, value in given.items() if value is not None}


def _typed(name: str, value: Any) -> Any:
    if name == "stop":
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return tuple(texts)
        raise _wrong_type(name, "array")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _INTEGERS:
        if is_number and value == int(value):
            return int(value)
        raise _wrong_type(name, "integer")
    if name in _OURS:
        if is_number:
            return float(value)
        raise _wrong_type(name, "float32")
    return value


def _bounded(name: str, value: Any) -> Any:
    if name == "top_k":
        value = max(value, 0)
    elif name == "top_p":
        value = max(value, _LEAST_TOP_P)
    BOUNDS[_OURS[name]].check(f"options.{name}", value)
    return value


def _cap(num_predict: int | None, *, capped: bool) -> dict[str, Any]:
    if num_predict is None:
        return {} if capped else {"max_new_tokens": None}
    most = int(BOUNDS["max_new_tokens"].high)
    return {"max_new_tokens": min(num_predict, most) if num_predict > 0 else None}


def _limit_penalties(last_n: int, changes: dict[str, Any]) -> list[str]:
    """Our penalties look at all tokens, which -1 means; 0 is none. Anything else matters with penalties only."""
    if last_n == 0:
        changes |= _NO_PENALTIES
        return []
    if last_n < 0:
        return []
    if any(changes.get(name, off) != off for name, off in _NO_PENALTIES.items()):
        raise InvalidRequest(
            f"options.repeat_last_n is {last_n}, but penalties look at all tokens here.",
            f"Leave it out, or give {_ALL_TOKENS}.",
            param="options.repeat_last_n",
            kind="unsupported_parameter",
        )
    return ["repeat_last_n"]


def _wrong_type(name: str, kind: str) -> InvalidRequest:
    return InvalidRequest(f'option "{name}" must be of type {kind}', param=f"options.{name}")
