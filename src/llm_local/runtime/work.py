"""What callers ask of a service: who asks, and what for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolDefinition
from llm_local.text.fit import ContextPolicy

__all__ = ["Caller", "Work"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `owner` separates users' caches and shares: "local" where nobody needs a key, else the key's id.

    `is_admin` is for whoever carries out what only admins may; nothing here asks for it.
    """

    owner: str
    is_admin: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """One reply that is asked for, to exactly one of `messages`, `prompt` and `prompt_ids`.

    - `model`: its name; None is the service's own default.
    - `before_ids`: token ids that stand before `messages` or `prompt`: an earlier prompt and its answer.
    - `changes`: the generation options that the caller really gave. All others come from the model's authors, and
      where the user has set them from the settings.
    - `default_system`: put the system prompt of the settings before a conversation that has none.
    - `goes_on`: the last message is the first part of the answer, and the reply is the rest of it.
    - `policy`: what happens to a conversation that does not fit.
    - `clamp`: a `max_new_tokens` for which there is no room shrinks to the room there is, as a default one does.
    - `keep_alive_s`: how long the model stays in memory after this, as in `ModelPool`; None leaves it as it is.
    - `priority`: a higher one is served first. `deadline_s`: seconds from now after which nobody wants the reply.

    Raises:
        InvalidRequest: none, or more than one, of the three is given.
    """

    caller: Caller
    model: str | None = None
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    before_ids: tuple[int, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    default_system: bool = True
    goes_on: bool = False
    policy: ContextPolicy = "refuse"
    clamp: bool = False
    keep_alive_s: float | None = None
    priority: int = 0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.messages, self.prompt, self.prompt_ids) if one is not None]
        if len(given) != 1:
            raise InvalidRequest(
                "Exactly one of messages, prompt and prompt ids must be given.", param="messages"
            )
        if self.before_ids and self.prompt_ids is not None:
            raise InvalidRequest("Prompt ids hold all ids already.", param="before_ids")
        if self.tools and self.messages is None:
            raise InvalidRequest("Tools need a conversation, not a raw prompt.", param="tools")
