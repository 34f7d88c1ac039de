"""Which model a caller's next conversation begins with, as it was switched; for as long as the server runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fastapi import Request

__all__ = ["CurrentModels", "current_models_of"]

MAX_OWNERS: Final = 10_000


class CurrentModels:
    """By owner. Of too many, the one that switched longest ago is back at the default."""

    def __init__(self, default: str) -> None:
        self._default = default
        self._models: OrderedDict[str, str] = OrderedDict()

    def of(self, owner: str) -> str:
        """The owner's, or the server's default."""
        return self._models.get(owner, self._default)

    def switch(self, owner: str, model: str) -> None:
        """Begin the owner's next conversations with that one."""
        self._models[owner] = model
        self._models.move_to_end(owner)
        while len(self._models) > MAX_OWNERS:
            self._models.popitem(last=False)


def current_models_of(request: Request) -> CurrentModels:
    """Those of the application that a request came to."""
    state = request.app.state
    found: CurrentModels | None = getattr(state, "current_models", None)
    if found is None:
        found = state.current_models = CurrentModels(state.service.config.model_id)
    return found
