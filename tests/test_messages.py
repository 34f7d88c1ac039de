"""What may be said, and by whom."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, Role, ToolCall


@pytest.mark.parametrize("role", get_args(Role))
def test_the_roles_there_are(role: Role) -> None:
    assert Message(role, "").role == role


@pytest.mark.parametrize("role", ["", "User", "developer", "function", "system ", None, 1])
def test_no_other_role(role: Any) -> None:
    with pytest.raises(InvalidRequest, match="system, user, assistant, tool") as caught:
        Message(role, "hi")
    assert caught.value.param == "role"


@pytest.mark.parametrize("content", [None, b"hi", ["hi"], {"text": "hi"}, 1])
def test_content_is_text(content: Any) -> None:
    with pytest.raises(InvalidRequest, match=type(content).__name__) as caught:
        Message("user", content)
    assert caught.value.param == "content"


def test_a_long_wrong_content_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Message("user", ["secret " * 1000])  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_messages_are_frozen_and_equal_by_value() -> None:
    message = Message("assistant", "", tool_calls=(ToolCall("1", "clock", {"zone": "UTC"}),))
    assert message == Message("assistant", "", tool_calls=(ToolCall("1", "clock", {"zone": "UTC"}),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.content = "other"  # type: ignore[misc]
