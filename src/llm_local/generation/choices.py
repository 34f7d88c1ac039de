"""What a decision is: choices with their probabilities, and how much of all replies they are.

The probability of a choice is the product of the probabilities of its tokens, each under the prompt and the tokens
before it: the model's own distribution in float32, at temperature 1, without any filter or penalty. Which event that is
the probability of depends on `whole`:

- not whole: the reply *begins* with the tokens of the choice, and goes on as it likes.
- whole: the reply *is* the choice. The probability that an end token follows is one more factor.

Either way no two choices can happen at once (without `whole`, no choice may be the beginning of another), so their
probabilities add up: the sum is the `coverage`, the part of all replies that the choices speak for. What the choices
share among themselves is the softmax of their scores, where a score is the joint log-probability, or, because each
token more makes a text less likely, with `normalize` its mean per token or per character.

A text has many spellings in tokens; a choice is the one that the model's tokenizer gives it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from llm_local.errors import InvalidRequest, NumericalError
from llm_local.events import Timings, Usage
from llm_local.messages import check_text

__all__ = [
    "MAX_CHOICES",
    "ChoiceScore",
    "Decision",
    "DecisionOptions",
    "Normalize",
    "check_choices",
    "share",
]

Normalize = Literal["none", "tokens", "characters"]

MAX_CHOICES: Final = 1000


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """How choices are scored.

    `whole` as the module says; None means: only where one choice is the beginning of another, which cannot be told
    apart otherwise, and the decision says so. `normalize` divides each joint log-probability by the length of its
    choice before the choices are compared: an end token counts among the tokens, and not among the characters.
    """

    whole: bool | None = None
    normalize: Normalize = "none"

    def __post_init__(self) -> None:
        if self.normalize not in get_args(Normalize):
            raise InvalidRequest(
                f"normalize is {self.normalize!r}, but must be one of {', '.join(get_args(Normalize))}.",
                param="normalize",
            )


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """One choice. `logprob` is the natural logarithm of its joint probability, with that of the end where it is whole.

    `token_logprobs` are its tokens' own; `end_logprob` that of the end, where it counts. `probability` is its share
    among the choices.
    """

    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    end_logprob: float | None
    logprob: float
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Choices in the order they were given, and what they cost.

    `coverage` is the sum of their joint probabilities: how much of what the model would say they speak for.
    `usage` counts no completion tokens, since none is sampled; `choice_tokens` of the choices went through the model
    (beginnings that choices share count once where they can), in `num_passes` forward passes together with the prompt.
    `reasoning` is the probability that the model would open its reasoning instead; None where it cannot, or must.
    """

    choices: tuple[ChoiceScore, ...]
    coverage: float
    whole: bool
    normalize: Normalize
    usage: Usage
    choice_tokens: int
    num_passes: int
    timings: Timings
    notices: tuple[str, ...] = ()
    reasoning: float | None = None

    @property
    def best(self) -> ChoiceScore:
        """The most probable choice; of equal ones the first given."""
        return max(self.choices, key=lambda choice: choice.probability)

    @property
    def ranked(self) -> tuple[ChoiceScore, ...]:
        """The most probable first; equal ones as given."""
        return tuple(sorted(self.choices, key=lambda choice: -choice.probability))


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, if there is something to decide.

    Raises:
        InvalidRequest: fewer than two, too many, an empty one, one that is no text, or one that is there twice.
    """
    if isinstance(choices, str):
        raise InvalidRequest("The choices are one text.", "Give a list of texts.", param="choices")
    for choice in choices:
        if not isinstance(choice, str):
            raise InvalidRequest(
                f"A choice must be text, not {type(choice).__name__}.", "Write it out.", param="choices"
            )
        check_text(choice, "choices")
        if not choice:
            raise InvalidRequest("A choice is empty.", "Give each choice some text.", param="choices")
    if len(choices) < 2:
        given = "only one choice" if choices else "no choice"
        raise InvalidRequest(f"There is {given}.", "A decision is between at least two.", param="choices")
    if len(choices) > MAX_CHOICES:
        raise InvalidRequest(
            f"There are {len(choices)} choices, at most {MAX_CHOICES} are taken.",
            "Decide in rounds.",
            param="choices",
        )
    twice = next((choice for index, choice in enumerate(choices) if choice in choices[:index]), None)
    if twice is not None:
        raise InvalidRequest(
            f"The choice {twice!r} is there twice.", "Give each choice once.", param="choices"
        )
    return tuple(choices)


def share(scores: Sequence[float]) -> list[float]:
    """The softmax of log-scores: positive, and 1 in sum.

    Raises:
        NumericalError: every score is minus infinity.
    """
    highest = max(scores)
    if highest == -math.inf:
        raise NumericalError("The model gives none of the choices any probability.", "Reword the choices.")
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
