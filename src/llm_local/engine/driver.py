"""How steps come from the engine to whoever waits for them: inline, in the reader's own thread."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from llm_local.engine.protocol import Engine, EngineStep, TokenRequest, TokenStep
from llm_local.errors import EngineError

__all__ = ["Driver", "InlineDriver"]


class Driver(Protocol):
    """Hands each sequence its own steps, in order, the last one last."""

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence. What `Engine.submit` refuses is raised here, or comes as the sequence's only step."""

    def next_step(self, sequence_id: str) -> EngineStep:
        """The sequence's next step, waiting for it. Not to be called again after the last one."""

    def ready(self, sequence_id: str) -> bool:
        """True when `next_step` has a step to give without waiting."""

    def cancel(self, sequence_id: str) -> None:
        """Ask for the end; `next_step` still delivers what comes before it. Safe from a signal handler."""

    def abandon(self, sequence_id: str) -> None:
        """End a sequence nobody reads any more and free its memory soon. Unknown ids are ignored."""

    def forget(self, sequence_id: str) -> None:
        """Like `abandon`, and safe inside a finalizer: nothing runs, the memory comes back at the next step."""


class InlineDriver:
    """Whoever reads a sequence's steps drives the engine for everybody. For scripts and REPLs, in one thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._mailboxes: dict[str, deque[EngineStep]] = {}

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence; raises what `Engine.submit` raises."""
        self.engine.submit(request)
        self._mailboxes[request.sequence_id] = deque()

    def next_step(self, sequence_id: str) -> EngineStep:
        """The sequence's next step, stepping the engine until there is one."""
        mailbox = self._mailboxes[sequence_id]
        while not mailbox:
            if not self.engine.has_work():
                raise EngineError("The sequence has no more steps.")
            self._step()
        step = mailbox.popleft()
        if isinstance(step, TokenStep) and step.last:
            del self._mailboxes[sequence_id]
        return step

    def ready(self, sequence_id: str) -> bool:
        """True when a step of the sequence has come already."""
        return bool(self._mailboxes.get(sequence_id))

    def cancel(self, sequence_id: str) -> None:
        """Ask for the end."""
        self.engine.cancel(sequence_id)

    def abandon(self, sequence_id: str) -> None:
        """End a sequence and free its memory now."""
        if sequence_id in self._mailboxes:
            self.forget(sequence_id)
            self._step()

    def forget(self, sequence_id: str) -> None:
        """End a sequence at the next step."""
        if self._mailboxes.pop(sequence_id, None) is not None:
            self.engine.cancel(sequence_id)

    def _step(self) -> None:
        for step in self.engine.step():
            mailbox = self._mailboxes.get(step.sequence_id)
            if mailbox is not None:
                mailbox.append(step)
