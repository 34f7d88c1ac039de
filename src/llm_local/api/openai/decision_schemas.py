"""What is asked at `/v1/decisions`, which is our own, and at `/v1/systemone`, as `transformers serve` has it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from llm_local.api.bodies import DialectModel
from llm_local.api.openai.schemas import MAX_MESSAGES, ChatMessage
from llm_local.generation.choices import Normalize

__all__ = ["DecisionRequest", "Question", "SystemOneRequest"]

MAX_QUESTIONS: Final = 64
MAX_CHOICE_CHARACTERS: Final = 8192
"""Where the tokens of a choice meet the prompt is looked for, which takes long for long ones."""
Content = str | dict[str, Any] | list[Any]


class DecisionRequest(DialectModel):
    """`POST /v1/decisions`: how likely each of some replies is. Either `messages` or a raw `prompt`.

    `whole` scores each choice as the whole reply, false as its beginning; left out, only where it has to be.
    `normalize` compares mean log-probabilities.
    """

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    prompt: str | None = None
    choices: list[Annotated[str, Field(max_length=MAX_CHOICE_CHARACTERS)]]
    whole: bool | None = None
    normalize: Normalize | None = None


class Question(DialectModel):
    """One question about the state.

    - `choice`: `criteria` maps each option to what it means, or null. The answer is one of the options.
    - `score`: `criteria` lists the levels, from the lowest. The answer is the mean level.
    - `noul`: yes or no; `criteria` may say what `true` and `false` mean. The answer is the probability of yes.
    """

    type: Literal["choice", "score", "noul"]
    instructions: Content | None = None
    criteria: dict[str, Content | None] | list[Content] | None = None


class SystemOneRequest(DialectModel):
    """`POST /v1/systemone`: typed questions about a state, each answered with probabilities and without any text."""

    model: str
    state: Content
    questions: Annotated[dict[str, Question], Field(min_length=1, max_length=MAX_QUESTIONS)]
    assets: dict[str, Any] | None = None
