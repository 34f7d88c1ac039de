"""Stand-ins that tests share: a tokenizer of bytes, an engine with a script, a clock that obeys."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

from llm_local.engine.protocol import EngineStep, PrefillStep, SequenceReport, TokenRequest, TokenStep
from llm_local.errors import InsufficientMemory, InvalidRequest, LocalLLMError
from llm_local.events import Event, Finish, Progress, Timings, TokenLogprob, Usage
from llm_local.generator import TextGenerator
from llm_local.model_loader import ResolvedModel
from llm_local.runtime.opening import FoundModel, OpenModel
from llm_local.runtime.residents import TextModel
from llm_local.runtime.wanted import WantedModel
from llm_local.runtime.worker import EngineWorker, ThreadDriver
from llm_local.specs import ModelInfo
from llm_local.store.given_names import GivenName, store_given


class ByteTokenizer:
    """Ids 0 to 255 are bytes; 256 is the end token. Any text round-trips, and any byte sequence decodes."""

    end_token = 256
    vocab_size = 257
    chat_template = None
    bos_token_id = None
    added_tokens_decoder = {}
    special_tokens_map = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(input_ids=list(text.encode("utf-8")))

    def get_vocab(self) -> dict[str, int]:
        return {str(token_id): token_id for token_id in range(self.vocab_size)}

    def decode(
        self, token_ids, *, skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = False
    ) -> str:
        return bytes(i for i in token_ids if i < 256).decode("utf-8", errors="replace")


class FakeClock:
    """Seconds that pass only when told, or by `tick` at every look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 100.0
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ScriptedEngine:
    """Replays token ids, one per step and sequence. `enqueue` the reply before the request comes.

    A reply is a list of ids; an exception in it fails the sequence at that point. After the last id the
    sequence ends with "stop", or with "length" when `max_new_tokens` is reached before.
    """

    def __init__(self) -> None:
        self.replies: deque[list[int | LocalLLMError]] = deque()
        self.requests: list[TokenRequest] = []
        self.cancelled: list[str] = []
        self._active: dict[str, tuple[TokenRequest, deque[int | LocalLLMError], list[int]]] = {}

    def enqueue(self, reply: list[int | LocalLLMError]) -> None:
        self.replies.append(reply)

    def submit(self, request: TokenRequest) -> None:
        self.requests.append(request)
        self._active[request.sequence_id] = (request, deque(self.replies.popleft()), [])

    def step(self) -> list[EngineStep]:
        return [step for sequence_id in list(self._active) for step in self._step_one(sequence_id)]

    def cancel(self, sequence_id: str) -> None:
        self.cancelled.append(sequence_id)

    def has_work(self) -> bool:
        return bool(self._active)

    @property
    def description(self) -> str:
        """What a report says that it ran as."""
        return "scripted"

    def stats(self) -> dict[str, int]:
        return {
            "waiting": 0,
            "running": len(self._active),
            "kv_used_bytes": 0,
            "prefix_cache_bytes": 0,
            "kv_limit_bytes": -1,
        }

    def _step_one(self, sequence_id: str) -> list[EngineStep]:
        request, script, done = self._active[sequence_id]
        total = len(request.prompt_ids)
        if sequence_id in self.cancelled:
            return [self._end(sequence_id, finish_reason="cancelled")]
        progress: list[EngineStep] = [] if done else [PrefillStep(sequence_id, total, total)]
        if not script:
            return [*progress, self._end(sequence_id, finish_reason="stop")]
        item = script.popleft()
        if isinstance(item, LocalLLMError):
            return [*progress, self._end(sequence_id, error=item)]
        done.append(item)
        logprob = TokenLogprob(item, -0.5) if request.options.logprobs else None
        reason = None
        if item in request.stop_token_ids:
            reason = "stop"
        elif len(done) == request.options.max_new_tokens:
            reason = "length"
        if reason is None:
            return [*progress, TokenStep(sequence_id, item, logprob)]
        return [*progress, self._end(sequence_id, token_id=item, logprob=logprob, finish_reason=reason)]

    def _end(self, sequence_id: str, **fields) -> TokenStep:
        request, _, done = self._active.pop(sequence_id)
        usage = Usage(prompt_tokens=len(request.prompt_ids), completion_tokens=len(done))
        return TokenStep(sequence_id, report=SequenceReport(usage, Timings()), **fields)


class ScriptedStream:
    """Replays the events of a reply, or raises what is among them; `cancel` puts the end of a cancelled one behind."""

    def __init__(self, events: Iterable[Event | LocalLLMError]) -> None:
        self._events = iter(events)
        self.cancelled = False

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if self.cancelled:
                yield Finish("cancelled", Usage(3, 0, 1), Timings())
                return
            if isinstance(event, LocalLLMError):
                raise event
            yield event

    def cancel(self) -> None:
        """Only sets a flag, as the real one."""
        self.cancelled = True


class EchoEngine(ScriptedEngine):
    """Replies with the prompt's own ids, so that every caller can tell its own from others'. Refuses a lone 0.

    With a `gate` it steps only when allowed to: a semaphore, one release for each step.
    """

    def __init__(self, gate: threading.Semaphore | None = None) -> None:
        super().__init__()
        self.gate = gate

    def submit(self, request: TokenRequest) -> None:
        if request.prompt_ids == (0,):
            raise InvalidRequest("refused", param="prompt")
        self.enqueue([*request.prompt_ids, ByteTokenizer.end_token])
        super().submit(request)

    def step(self) -> list[EngineStep]:
        if self.gate is not None:
            self.gate.acquire()
        return super().step()


class FakeOpener:
    """Opens models that are not there: `EchoEngine`s of `sizes` bytes by name, on a machine with `total_bytes`.

    `loads` (begun), `opened` and `closes` are the names in order. `errors` fail the next load of a name, once each;
    `gate` is waited for in each load, where it is set. `engines` are the newest by name; `make_engine` makes them.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None, total_bytes: int = 1000) -> None:
        self.sizes = dict(sizes or {})
        self.total_bytes = total_bytes
        self.loads: list[str] = []
        self.opened: list[str] = []
        self.closes: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        self.gate: threading.Event | None = None
        self.gates: list[threading.Semaphore] = []
        self.engines: dict[str, ScriptedEngine] = {}
        self.make_engine: Callable[[str], ScriptedEngine] = lambda name: EchoEngine()
        self.held: dict[str, int] = {}
        self.released = 0

    def find(self, wanted: WantedModel, on_progress: Callable[[Progress], None]) -> FoundModel:
        return FoundModel(ResolvedModel(wanted.config.model_spec(), Path()))

    def need(self, wanted, found, most_bytes: Callable[[str], int]) -> tuple[str, int]:
        need, have = self.sizes.get(wanted.name, 1), most_bytes("cpu")
        if need > have:
            raise InsufficientMemory("too large", need_bytes=need, have_bytes=have)
        return "cpu", need

    def open(self, wanted, found, on_progress, reserved_bytes: int) -> TextModel:
        name = wanted.name
        self.loads.append(name)
        if self.gate is not None:
            self.gate.wait(10)
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        self.opened.append(name)
        engine = self.engines[name] = self.make_engine(name)
        worker = EngineWorker(engine, name=f"engine of {name}")
        size = self.held[name] = self.sizes.get(name, 1)
        info = ModelInfo(name, "", "Echo", 0, size, "float32", "cpu", 4096, 257, False)
        loaded = SimpleNamespace(
            tokenizer=ByteTokenizer(), info=info, end_token_ids=frozenset({ByteTokenizer.end_token})
        )
        generator = TextGenerator(loaded, engine=engine, driver=lambda _: ThreadDriver(worker))
        opener = self

        class Closing(TextModel):
            """Says when it goes."""

            def close(self) -> None:
                super().close()
                opener.closes.append(name)
                opener.held.pop(name, None)

        return Closing(OpenModel(generator, info, {}, 0.0), worker, engine, "echo")

    def open_gates(self) -> None:
        """Let everything go on, also what engines wait for at `gates`."""
        if self.gate is not None:
            self.gate.set()
        for gate in self.gates:
            gate.release(10_000)

    def free_bytes(self, device: str) -> int:
        return self.total_bytes - sum(self.held.values())

    def release(self) -> None:
        self.released += 1


def give_names(folder: Path, *names: str) -> None:
    """Have models of these names on this machine, as far as a look at their folders tells."""
    for name in names:
        place = folder / f"model-{name}"
        place.mkdir()
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (place / file).write_text("{}")
        store_given(GivenName(name, "directory", str(place.resolve())))
