"""The value types of the corpus: an exchange, a dialogue, and what may stand in them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

REAL_MODEL = "./run.sh scripts/run_once.py --model Qwen/Qwen2.5-1.5B-Instruct"


class Exchange(NamedTuple):
    """One question of the user and the reply of the model."""

    user: str
    reply: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation in the form that chat templates take. The last message is the assistant's."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)


def user(content: str) -> dict[str, Any]:
    """A user turn."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """An assistant turn."""
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, Any]:
    """A system turn."""
    return {"role": "system", "content": content}


def turns(*exchanges: Exchange) -> list[dict[str, Any]]:
    """The messages of exchanges, one after the other."""
    return [message for one in exchanges for message in (user(one.user), assistant(one.reply))]
