"""The engine thread: the only one that touches the engine. Everybody else posts to its inbox.

The thread never waits for a reader: steps are handed to a callback that must return at once.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from llm_local.engine.protocol import Engine, EngineStep, SequenceReport, TokenRequest, TokenStep
from llm_local.errors import EngineError, InvalidRequest, LocalLLMError
from llm_local.events import Timings, Usage

__all__ = ["Deliver", "EngineWorker", "ThreadDriver"]

logger = logging.getLogger(__name__)

Deliver = Callable[[EngineStep], None]

# Of a sequence that ended without the engine's account of it.
NO_REPORT: Final = SequenceReport(Usage(), Timings())

# A chunk of a large model on a slow machine takes seconds.
EXIT_WAIT_S: Final = 30.0


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
        # A daemon, since a step that hangs must not keep the process. But one that is cut off inside of torch takes the
        # process down with an abort, so at exit its end is waited for.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.close, EXIT_WAIT_S)

    def submit(self, request: TokenRequest, deliver: Deliver) -> None:
        """Queue a sequence; `deliver` is called on the engine thread with each of its steps."""
        with self._gate:
            if self._ended is None:
                self._inbox.put(_Submit(request, deliver))
                return
        deliver(_failed(request.sequence_id, self._ended))

    def cancel(self, sequence_id: str, *, deliver_rest: bool = True) -> None:
        """End a sequence within one step. Without `deliver_rest` its reader is not called again."""
        self._engine.cancel(sequence_id)  # a flag: a long pass that is running sees it between two layers
        self._inbox.put(_Cancel(sequence_id, deliver_rest))

    def close(self, timeout_s: float | None = None) -> bool:
        """Fail what is still running with an EngineError, and end the thread. Harmless when repeated.

        Waits `timeout_s` seconds at most; False when the thread is still in a step then.
        """
        self._inbox.put(_Close())
        if (
            threading.current_thread() is not self._thread
        ):  # a reader or a finalizer may be the one that closes
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
        except (
            BaseException
        ) as error:  # a SystemExit would end the thread without a word, and readers wait forever
            logger.error("the engine stopped", exc_info=True)
            what = f"The engine stopped with {type(error).__name__}: {error}"
            reason = EngineError(what, "Try again: it is started anew.", kind="worker_died")
            # without the frames it came through, which know the engine and with it the weights
            reason.__cause__ = error.with_traceback(None)
        with self._gate:
            self._ended = reason
        self._fail_everybody(reason)
        atexit.unregister(self.close)

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
        try:
            self._engine.submit(command.request)
        except Exception as error:  # whatever it is, it is about this request, and not one of the same id
            self._deliver(command.deliver, _failed(sequence_id, error))
        else:
            self._readers[sequence_id] = command.deliver

    def _hand_out(self, step: EngineStep) -> None:
        last = isinstance(step, TokenStep) and step.last
        find = self._readers.pop if last else self._readers.get
        deliver = find(step.sequence_id, None)
        if deliver is not None and not self._deliver(deliver, step):
            self._readers.pop(step.sequence_id, None)
            self._engine.cancel(step.sequence_id)

    def _deliver(self, deliver: Deliver, step: EngineStep) -> bool:
        try:
            deliver(step)
        except Exception:
            logger.warning("the reader of a sequence failed; it is cancelled", exc_info=True)
            return False
        return True

    def _fail_everybody(self, reason: LocalLLMError) -> None:
        for sequence_id, deliver in self._readers.items():
            self._deliver(deliver, _failed(sequence_id, reason))
        self._readers.clear()
        while True:
            try:
                command = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(command, _Submit):
                self._deliver(command.deliver, _failed(command.request.sequence_id, reason))


class ThreadDriver:
    """An `engine.driver.Driver` over a worker: any number of threads, each reading its own sequences."""

    def __init__(self, worker: EngineWorker) -> None:
        self._worker = worker
        self._mailboxes: dict[str, SimpleQueue[EngineStep]] = {}

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence; what the engine refuses comes as its only step.

        Raises:
            InvalidRequest: a sequence of that id is being read.
        """
        mailbox: SimpleQueue[EngineStep] = SimpleQueue()
        if self._mailboxes.setdefault(request.sequence_id, mailbox) is not mailbox:
            raise InvalidRequest(f"Sequence id {request.sequence_id!r} is in use.", param="sequence_id")
        self._worker.submit(request, mailbox.put)

    def next_step(self, sequence_id: str) -> EngineStep:
        """Wait for the sequence's next step; one that was abandoned by another thread has its last."""
        mailbox = self._mailboxes.get(sequence_id)
        if mailbox is None:
            return _abandoned(sequence_id)
        step = mailbox.get()
        if isinstance(step, TokenStep) and step.last:
            self._mailboxes.pop(sequence_id, None)
        return step

    def ready(self, sequence_id: str) -> bool:
        """True when a step of the sequence has come already."""
        mailbox = self._mailboxes.get(sequence_id)
        return mailbox is not None and not mailbox.empty()

    def cancel(self, sequence_id: str) -> None:
        """Ask for the end."""
        self._worker.cancel(sequence_id)

    def abandon(self, sequence_id: str) -> None:
        """End a sequence nobody reads any more; a thread that waits for it after all is told that it is over."""
        mailbox = self._mailboxes.pop(sequence_id, None)
        if mailbox is not None:
            self._worker.cancel(sequence_id, deliver_rest=False)
            mailbox.put(_abandoned(sequence_id))

    # posting to the inbox runs nothing, so it is as safe in a finalizer
    forget = abandon


def _abandoned(sequence_id: str) -> TokenStep:
    return TokenStep(sequence_id, finish_reason="cancelled", report=NO_REPORT)


def _failed(sequence_id: str, error: Exception) -> TokenStep:
    if not isinstance(error, LocalLLMError):
        failure = EngineError(f"The request failed with {type(error).__name__}: {error}")
        failure.__cause__ = error
        error = failure
    return TokenStep(sequence_id, error=error, report=NO_REPORT)
