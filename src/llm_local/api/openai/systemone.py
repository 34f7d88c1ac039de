"""Typed questions as decisions between labels, and decisions as typed answers. Pure.

Any chat model can answer: it is shown the state, the question and its options behind letters, and the probabilities are
those of the letters as its reply, shared among them.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.api.openai.decision_schemas import Question
from llm_local.api.openai.errors import missing
from llm_local.errors import InvalidRequest

__all__ = ["Asked", "answer_body", "asked_of"]

MAX_OPTIONS: Final = 100
_YES_NO: Final = {"true": "Yes", "false": "No"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question made ready. `options` are its answers, `labels` the replies that stand for them, in one order."""

    kind: str
    prompt: str
    options: tuple[str, ...]
    labels: tuple[str, ...]
    meanings: tuple[Any, ...]


def asked_of(state: Any, question: Question, param: str) -> Asked:
    """A question about `state` as text that a model can answer with a label; `param` names it in an error.

    Raises:
        InvalidRequest: its criteria are not those of its type.
    """
    meanings = _criteria(question, param)
    options = tuple(meanings)
    if question.type == "noul":
        labels = tuple(_YES_NO[option] for option in options)
        lines = [f"{label}: {_text(meanings[option])}" for label, option in zip(labels, options, strict=True)
                 if meanings[option] is not None]  # fmt: skip
        closing = "Reply with Yes or No, and nothing else."
    else:
        letters = string.ascii_uppercase
        labels = (
            tuple(letters[: len(options)])
            if len(options) <= len(letters)
            else tuple(map(str, range(1, len(options) + 1)))
        )
        lines = [
            f"{label}) {_shown(question.type, option, meanings[option])}"
            for label, option in zip(labels, options, strict=True)
        ]
        closing = f"Reply with the best fitting one of {labels[0]} to {labels[-1]}, and nothing else."
    parts = [_text(state), _text(question.instructions), "\n".join(lines), closing]
    prompt = "\n\n".join(part for part in parts if part)
    return Asked(question.type, prompt, options, labels, tuple(meanings.values()))


def answer_body(asked: Asked, probabilities: Sequence[float]) -> dict[str, Any]:
    """The answer to a question whose labels have these probabilities, which sum up to 1."""
    by_option = dict(zip(asked.options, probabilities, strict=True))
    if asked.kind == "noul":
        return {"type": "noul", "noul": by_option["true"]}
    best = max(by_option, key=lambda option: by_option[option])
    if asked.kind == "choice":
        return {
            "type": "choice",
            "choice": best,
            "confidence": _above_chance(by_option[best], 1 / len(by_option)),
            "probabilities": by_option,
        }
    levels = range(len(by_option))
    middle = (len(by_option) - 1) / 2
    spread = sum(one * abs(level - int(best)) for level, one in enumerate(probabilities))
    widest = sum(abs(level - middle) for level in levels) / len(by_option)
    return {
        "type": "score",
        "score": sum(level * one for level, one in enumerate(probabilities)),
        "legend": dict(zip(asked.options, asked.meanings, strict=True)),
        "confidence": max(0.0, 1 - spread / widest) if widest else 1.0,
        "probabilities": by_option,
    }


def _criteria(question: Question, param: str) -> dict[str, Any]:
    """Options with their meanings, in order."""
    criteria = question.criteria
    param = f"{param}.criteria"
    if question.type == "noul":
        if criteria is not None and not (isinstance(criteria, dict) and set(criteria) <= set(_YES_NO)):
            raise InvalidRequest(f"{param} may only say what true and false mean.", param=param)
        given = criteria if isinstance(criteria, dict) else {}
        return {option: given.get(option) for option in _YES_NO}
    if not criteria:
        raise missing(param)
    if isinstance(criteria, dict) != (question.type == "choice"):
        form = "an object of options" if question.type == "choice" else "a list of levels"
        raise InvalidRequest(f"{param} must be {form}.", param=param)
    if not 2 <= len(criteria) <= MAX_OPTIONS:
        raise InvalidRequest(f"{param} must have 2 to {MAX_OPTIONS} entries.", param=param)
    if isinstance(criteria, dict):
        return dict(criteria)
    return {str(level): meaning for level, meaning in enumerate(criteria)}


def _shown(kind: str, option: str, meaning: Any) -> str:
    if kind == "score":
        return _text(meaning)
    return option if meaning is None else f"{option}: {_text(meaning)}"


def _text(content: Any) -> str:
    if content is None:
        return ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _above_chance(probability: float, chance: float) -> float:
    """0 for a guess, 1 for certainty."""
    return max(0.0, (probability - chance) / (1 - chance))
