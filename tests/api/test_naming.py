"""Answers call the model by its right name: as it was asked for, but never by the name of one that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.asgi import Client
from api.conftest import Make
from llm_local.api.naming import told_model
from llm_local.config import load_config
from llm_local.service import Service

HELLO = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/decisions": {"prompt": "Hi", "choices": ["a", "b"]},
    "/v1/systemone": {"state": "Hi", "questions": {"one": {"type": "noul"}}},
    "/v1/messages": {"messages": HELLO, "max_tokens": 1},
    "/api/chat": {"messages": HELLO, "stream": False, "options": {"num_predict": 1}},
    "/api/generate": {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}},
    "/api/embed": {"input": "Hi"},
    "/generate": {"prompt": "Hi", "max_new_tokens": 1},
    "/chat": {"messages": HELLO, "max_new_tokens": 1},
    "/embeddings": {"texts": "Hi"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/tokenize": {"text": "Hi"},
    "/detokenize": {"ids": [1]},
    "/apply-template": {"messages": HELLO},
}


@pytest.mark.parametrize(
    ("asked", "answering", "told"),
    [
        ("starter", "starter", "starter"),
        ("Starter:latest", "starter", "Starter:latest"),
        ("mine:latest", "mine", "mine:latest"),
        ("org/model", "starter", "starter"),
    ],
)
def test_a_name_is_told_as_it_was_asked_for_unless_another_answers(
    asked: str, answering: str, told: str
) -> None:
    assert told_model(asked, answering) == told


@pytest.fixture
def away(make: Make) -> Iterator[Client]:
    """A server whose default model, which nobody has chosen, is not on this machine."""
    config = load_config({"offline": "true"}, environ={}, env_file=None)
    service = Service(config)
    client = make(service)  # type: ignore[arg-type]  # what the fake pretends to be
    yield client
    client.run(service.aclose())


def test_a_model_that_is_named_answers_or_nobody_does(away: Client) -> None:
    default = away.app.state.service.config.model_id
    assert default != "starter"
    for path, body in BODIES.items():
        answer = away.ask("POST", path, {"model": default, **body})
        assert answer.status == 404, (path, answer.body)
        assert default in answer.body.decode(), path
        assert away.ask("POST", path, {"model": "starter", **body}).status == 200, path


def test_what_stands_in_where_no_model_is_named_says_who_it_is(away: Client) -> None:
    default = away.app.state.service.config.model_id
    native = [path for path in BODIES if not path.startswith(("/v1", "/api"))]
    for path in native:
        answer = away.ask("POST", path, BODIES[path])
        assert answer.status == 200, (path, answer.body)
        assert answer.json()["model"] == "starter", path
    said = away.ask("POST", "/generate", BODIES["/generate"]).json()
    assert any(default in notice for notice in said["notices"])
