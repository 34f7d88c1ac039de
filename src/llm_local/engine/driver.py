"""The inline driver: whoever reads a sequence's steps drives the engine for everybody, in its own thread."""

from __future__ import annotations

from collections import deque

from llm_local.engine.protocol import Engine, EngineStep, TokenRequest, TokenStep

__all__ = ["InlineDriver"]


class InlineDriver:
    """Hands each sequence its own steps. For scripts and REPLs; used from one thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._mailboxes: dict[str, deque[EngineStep]] = {}

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence; raises what `Engine.submit` raises."""
        self.engine.submit(request)
        self._mailboxes[request.sequence_id] = deque()

    def next_step(self, sequence_id: str) -> EngineStep:
        """The sequence's next step, stepping the engine until there is one.

        Must not be called again after a step with `last`, nor after `abandon`.
        """
        mailbox = self._mailboxes[sequence_id]
        while not mailbox:
            self._step()
        step = mailbox.popleft()
        if isinstance(step, TokenStep) and step.last:
            del self._mailboxes[sequence_id]
        return step

    def cancel(self, sequence_id: str) -> None:
        """Ask for the end; `next_step` still delivers what comes before it."""
        self.engine.cancel(sequence_id)

    def abandon(self, sequence_id: str) -> None:
        """End a sequence nobody reads any more and free its memory now. Unknown ids are ignored."""
        if sequence_id in self._mailboxes:
            self.forget(sequence_id)
            self._step()

    def forget(self, sequence_id: str) -> None:
        """Like `abandon`, but its memory comes back at the next step: safe inside a finalizer."""
        if self._mailboxes.pop(sequence_id, None) is not None:
            self.engine.cancel(sequence_id)

    def _step(self) -> None:
        for step in self.engine.step():
            mailbox = self._mailboxes.get(step.sequence_id)
            if mailbox is not None:
                mailbox.append(step)
