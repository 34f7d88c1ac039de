"""The engine thread: the only one that touches the engine. Everybody else posts to its inbox.

The thread never waits for a reader: steps are handed to a callback that must return at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from llm_local.engine.protocol import Engine, EngineStep, SequenceReport, TokenRequest, TokenStep
from llm_local.errors import EngineError, LocalLLMError
from llm_local.events import Timings, Usage

__all__ = ["Deliver", "EngineWorker", "ThreadDriver"]

logger = logging.getLogger(__name__)

Deliver = Callable[[EngineStep], None]

# Of a sequence that ended without the engine's account of it.
NO_REPORT: Final = SequenceReport(Usage(), Timings())


@dataclass(frozen=True, slots=True)
class _Submit:
    request: TokenRequest
    deliver: Deliver


@dataclass(frozen=True, slots=True)
class _Cancel:
    sequence_id: str
    deliver_rest: bool


class _Close:
    pass


class EngineWorker:
    """Owns an engine and drives it in a thread of its own. All methods may be called from any thread.

    Every submitted sequence gets exactly one last step, whatever happens: its own end, the error it was refused
    with, or the error that ended the engine.
    """

    def __init__(self, engine: Engine, name: str = "engine") -> None:
        self._engine = engine
        self._inbox: SimpleQueue[_Submit | _Cancel | _Close] = SimpleQueue()
        self._readers: dict[str, Deliver] = {}
        # held to post, and to declare the inbox closed: nothing is posted to a thread that has ended
        self._gate = threading.Lock()
        self._ended: LocalLLMError | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: TokenRequest, deliver: Deliver) -> None:
        """Queue a sequence; `deliver` is called on the engine thread with each of its steps."""
        with self._gate:
            if self._ended is None:
                self._inbox.put(_Submit(request, deliver))
                return
        deliver(_failed(request.sequence_id, self._ended))

    def cancel(self, sequence_id: str, *, deliver_rest: bool = True) -> None:
        """End a sequence within one step. Without `deliver_rest` its reader is not called again."""
        self._inbox.put(_Cancel(sequence_id, deliver_rest))

    def close(self, timeout_s: float | None = None) -> bool:
        """Fail what is still running with an EngineError, and end the thread. Harmless when repeated.

        Waits `timeout_s` seconds at most; False when the thread is still in a step then.
        """
        self._inbox.put(_Close())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """False once closed, or ended by a fatal error."""
        return self._ended is None

    def _run(self) -> None:
        reason: LocalLLMError = EngineError("The engine was shut down.", "Try again once it runs.")
        try:
            while self._take_commands():
                for step in self._engine.step():
                    self._hand_out(step)
        except Exception as error:
            reason = EngineError(f"The engine stopped: {error}")
            reason.__cause__ = error
        with self._gate:
            self._ended = reason
        self._fail_everybody(reason)

    def _take_commands(self) -> bool:
        """Carry out what was posted, waiting for it while there is no work. False: close."""
        while True:
            try:
                command = self._inbox.get(block=not self._engine.has_work())
            except Empty:
                return True
            if isinstance(command, _Close):
                return False
            if isinstance(command, _Submit):
                self._submit(command)
            else:
                self._engine.cancel(command.sequence_id)
                if not command.deliver_rest:
                    self._readers.pop(command.sequence_id, None)

    def _submit(self, command: _Submit) -> None:
        sequence_id = command.request.sequence_id
        self._readers[sequence_id] = command.deliver
        try:
            self._engine.submit(command.request)
        except Exception as error:  # whatever it is, it is about this request
            self._hand_out(_failed(sequence_id, error))

    def _hand_out(self, step: EngineStep) -> None:
        last = isinstance(step, TokenStep) and step.last
        find = self._readers.pop if last else self._readers.get
        deliver = find(step.sequence_id, None)
        if deliver is None:
            return
        try:
            deliver(step)
        except Exception:
            logger.warning("the reader of a sequence failed; it is cancelled", exc_info=True)
            self._readers.pop(step.sequence_id, None)
            self._engine.cancel(step.sequence_id)

    def _fail_everybody(self, reason: LocalLLMError) -> None:
        for sequence_id in list(self._readers):
            self._hand_out(_failed(sequence_id, reason))
        while True:
            try:
                command = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(command, _Submit):
                self._readers[command.request.sequence_id] = command.deliver
                self._hand_out(_failed(command.request.sequence_id, reason))


class ThreadDriver:
    """An `engine.driver.Driver` over a worker: any number of threads, each reading its own sequences."""

    def __init__(self, worker: EngineWorker) -> None:
        self._worker = worker
        self._mailboxes: dict[str, SimpleQueue[EngineStep]] = {}

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence; a refusal comes as its only step."""
        mailbox = self._mailboxes[request.sequence_id] = SimpleQueue()
        self._worker.submit(request, mailbox.put)

    def next_step(self, sequence_id: str) -> EngineStep:
        """Wait for the sequence's next step."""
        step = self._mailboxes[sequence_id].get()
        if isinstance(step, TokenStep) and step.last:
            self._mailboxes.pop(sequence_id, None)
        return step

    def cancel(self, sequence_id: str) -> None:
        """Ask for the end."""
        self._worker.cancel(sequence_id)

    def abandon(self, sequence_id: str) -> None:
        """End a sequence nobody reads any more; a thread that waits for it after all is told that it is over."""
        mailbox = self._mailboxes.pop(sequence_id, None)
        if mailbox is not None:
            self._worker.cancel(sequence_id, deliver_rest=False)
            mailbox.put(TokenStep(sequence_id, finish_reason="cancelled", report=NO_REPORT))

    # posting to the inbox runs nothing, so it is as safe in a finalizer
    forget = abandon


def _failed(sequence_id: str, error: Exception) -> TokenStep:
    if not isinstance(error, LocalLLMError):
        failure = EngineError(f"The request failed with {type(error).__name__}: {error}")
        failure.__cause__ = error
        error = failure
    return TokenStep(sequence_id, error=error, report=NO_REPORT)
