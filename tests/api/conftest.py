"""An application over a service without models, with keys where a test names some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.asgi import Client
from api.fake_service import FakeService
from api.live_server import live_server
from llm_local.api.keeping import Conversations
from llm_local.api_server import make_app
from llm_local.conversations.store import ConversationStore
from llm_local.store.keys import KeyRing

__all__ = ["live_server"]

Make = Callable[..., Client]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(service, keys="admin:...,user:...")` is a client of an application; settings are those of the service."""
    clients: list[Client] = []

    def build(
        service: FakeService | None = None, keys: str | None = None, path: Path | None = None
    ) -> Client:
        service = service or FakeService()
        conversations = Conversations(lambda: ConversationStore.open(tmp_path / "conversations.db"))
        app = make_app(service.config, service, keys=KeyRing(keys, path), conversations=conversations)
        clients.append(Client(app))
        return clients[-1]

    yield build
    for client in clients:
        client.run(client.app.state.conversations.aclose())
        client.close()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(make: Make, service: FakeService) -> Client:
    """A client of an application without keys."""
    return make(service)
