"""Two replies to one conversation at once: the second is refused, and nothing that was said is lost."""

from __future__ import annotations

import asyncio

from api.conftest import Make
from api.fake_service import EVENTS, FakeService


def test_a_conversation_has_one_reply_at_a_time_and_loses_nothing(make: Make) -> None:
    service = FakeService()
    client = make(service)

    async def play() -> None:
        first = (await client.call("POST", "/chat", _said("one") | {"store": True})).json()
        into = {"conversation_id": first["conversation_id"]}
        service.events = (0.3, *EVENTS)
        slow = asyncio.create_task(client.call("POST", "/chat", _said("two") | into))
        await asyncio.sleep(0.15)
        refused = await client.call("POST", "/chat", _said("three") | into)
        assert (refused.status, refused.json()["error"]["kind"]) == (409, "conversation_in_use")
        assert refused.headers["retry-after"] == "1"
        assert (await slow).status == 200
        service.events = EVENTS
        assert (await client.call("POST", "/chat", _said("four") | into)).json()["persisted"] is True
        kept = await client.app.state.conversations.do(
            lambda store: store.messages("local", first["conversation_id"])
        )
        assert [one.message.content for one in kept] == ["one", "Hello", "two", "Hello", "four", "Hello"]
        assert all(reply.closed for reply in service.replies)

    client.run(play())


def _said(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}
