"""Typed questions: what the model is shown, and what its probabilities mean."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.bodies import validate
from llm_local.api.openai.decision_schemas import Question
from llm_local.api.openai.systemone import Asked, answer_body, asked_of
from llm_local.errors import InvalidRequest


def asked(state: Any = "The state.", **question: Any) -> Asked:
    return asked_of(state, validate(Question, question), "questions.q")


def test_a_choice_shows_its_options_behind_letters() -> None:
    found = asked(type="choice", instructions="What tone?", criteria={"calm": "Polite", "angry": None})
    assert (found.options, found.labels) == (("calm", "angry"), ("A", "B"))
    assert found.prompt.split("\n\n")[:3] == ["The state.", "What tone?", "A) calm: Polite\nB) angry"]
    answer = answer_body(found, [0.9, 0.1])
    assert (answer["choice"], answer["probabilities"]) == ("calm", {"calm": 0.9, "angry": 0.1})
    assert answer["confidence"] == pytest.approx(0.8)


def test_a_score_is_the_mean_level() -> None:
    found = asked({"a": [1]}, type="score", criteria=["Low", {"en": "Middle"}, "High"])
    assert found.prompt.startswith('{"a": [1]}\n\nA) Low\nB) {"en": "Middle"}\nC) High')
    answer = answer_body(found, [0.0, 0.5, 0.5])
    assert answer["score"] == pytest.approx(1.5)
    assert answer["legend"] == {"0": "Low", "1": {"en": "Middle"}, "2": "High"}
    assert answer_body(found, [1.0, 0.0, 0.0])["confidence"] == 1.0
    assert answer_body(found, [1 / 3, 1 / 3, 1 / 3])["confidence"] == pytest.approx(0.0)


def test_yes_and_no() -> None:
    found = asked(type="noul", instructions="Spam?", criteria={"true": "Ads"})
    assert (found.options, found.labels) == (("true", "false"), ("Yes", "No"))
    assert "Yes: Ads" in found.prompt and "No:" not in found.prompt
    assert answer_body(found, [0.7, 0.3]) == {"type": "noul", "noul": 0.7}


def test_more_options_than_letters_have_numbers() -> None:
    assert asked(type="score", criteria=["x"] * 30).labels[-1] == "30"


@pytest.mark.parametrize(
    "question",
    [
        {"type": "choice"},
        {"type": "choice", "criteria": {}},
        {"type": "choice", "criteria": {"one": None}},
        {"type": "choice", "criteria": ["a", "b"]},
        {"type": "score", "criteria": {"a": "b", "c": "d"}},
        {"type": "score", "criteria": ["x"] * 101},
        {"type": "noul", "criteria": {"maybe": "?"}},
        {"type": "noul", "criteria": ["a"]},
    ],
)
def test_criteria_of_another_type_are_refused(question: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**question)
    assert caught.value.param == "questions.q.criteria"
