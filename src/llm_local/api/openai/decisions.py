"""`POST /v1/decisions` and `POST /v1/systemone`: probabilities of given replies, without generating."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import ignored_names, json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.naming import told_model
from llm_local.api.openai import PREFIX
from llm_local.api.openai.answers import new_id
from llm_local.api.openai.conversation import bare_model, messages_of
from llm_local.api.openai.decision_schemas import DecisionRequest, SystemOneRequest
from llm_local.api.openai.errors import in_openai_words, unsupported
from llm_local.api.openai.systemone import answer_body, asked_of
from llm_local.api.told_headers import ignored_header
from llm_local.errors import InvalidRequest
from llm_local.generation.choices import Decision, DecisionOptions
from llm_local.messages import Message
from llm_local.service import Caller, Service

__all__ = ["create_decision", "create_system_one", "decision_body", "router"]

router = APIRouter(prefix=PREFIX)

_DECISION = {
    "model": "starter",
    "messages": [{"role": "user", "content": "Is the sky blue? Answer yes or no."}],
    "choices": ["Yes", "No"],
}
_SYSTEM_ONE = {
    "model": "starter",
    "state": "You have won a prize, click here!",
    "questions": {"spam": {"type": "noul", "instructions": "Is this message spam?"}},
}


@router.post("/decisions", openapi_extra=json_body(DecisionRequest, question=_DECISION))
async def create_decision(request: Request) -> Response:
    """How likely each of some replies is, exactly: one reading of the prompt, nothing is sampled.

    `curl http://127.0.0.1:8000/v1/decisions -d '{"model": "starter", "prompt": "The sky is", "choices": [" blue",
    " green"]}'`
    """
    body = await read_body(request, DecisionRequest)
    question = _question(body)
    options = DecisionOptions(whole=body.whole, normalize=body.normalize or "none")
    service, caller = service_of(request), caller_of(request)
    with in_openai_words(body.model):
        decision = await until_gone(
            request, service.decide(caller, bare_model(body.model), question, body.choices, options)
        )
    shown = decision_body(_told_name(service, body.model), body.choices, decision)
    return json_response(shown, headers=ignored_header(ignored_names(body)))


@router.post("/systemone", openapi_extra=json_body(SystemOneRequest, question=_SYSTEM_ONE))
async def create_system_one(request: Request) -> Response:
    """Typed questions about a state: a choice, a score, or yes and no, each with probabilities.

    `curl http://127.0.0.1:8000/v1/systemone -d '{"model": "starter", "state": "It rains.", "questions": {"wet":
    {"type": "noul", "instructions": "Is it wet outside?"}}}'`
    """
    body = await read_body(request, SystemOneRequest)
    if body.assets:
        raise unsupported("assets", "The models here take only text.")
    answer = _answer_all(service_of(request), caller_of(request), body)
    with in_openai_words(body.model, "state"):
        return json_response(await until_gone(request, answer), headers=ignored_header(ignored_names(body)))


def decision_body(model: str, choices: Sequence[str], decision: Decision) -> dict[str, Any]:
    """A decision as JSON, the most probable choice first; `index` is its place in the request."""
    usage = decision.usage
    return {
        "id": new_id("decision-"),
        "object": "decision",
        "model": model,
        "best": decision.best.text,
        "choices": [{"index": choices.index(one.text), **dataclasses.asdict(one)} for one in decision.ranked],
        "coverage": decision.coverage,
        "whole": decision.whole,
        "normalize": decision.normalize,
        "reasoning": decision.reasoning,
        "choice_tokens": decision.choice_tokens,
        "num_passes": decision.num_passes,
        "notices": list(decision.notices),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": usage.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
    }


def _question(body: DecisionRequest) -> str | tuple[Message, ...]:
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("Exactly one of messages and prompt must be given.", param="messages")
    return messages_of(body.messages) if body.messages is not None else body.prompt or ""


async def _answer_all(service: Service, caller: Caller, body: SystemOneRequest) -> dict[str, Any]:
    questions = {
        name: asked_of(body.state, question, f"questions.{name}") for name, question in body.questions.items()
    }
    answers, input_tokens = {}, 0
    for name, asked in questions.items():
        messages = (Message("user", asked.prompt),)
        decision = await service.decide(
            caller, bare_model(body.model), messages, asked.labels, DecisionOptions()
        )
        answers[name] = answer_body(asked, [choice.probability for choice in decision.choices])
        input_tokens += decision.usage.prompt_tokens
    usage = {"input_tokens": input_tokens, "output_tokens": 0}
    return {"model": _told_name(service, body.model), "answers": answers, "usage": usage}


def _told_name(service: Service, asked: str) -> str:
    return told_model(asked, service.told_name(bare_model(asked)))
