"""The engine thread: many callers, one owner of the engine, and everybody gets an end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from fakes import ByteTokenizer, EchoEngine
from llm_local.engine.protocol import TokenRequest
from llm_local.errors import EngineError, InvalidRequest, LocalLLMError
from llm_local.events import Delta, Finish, fold
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.options import GenerationOptions
from llm_local.runtime.handle import AsyncEventStream
from llm_local.runtime.worker import EngineWorker, ThreadDriver

END = ByteTokenizer.end_token
LIMIT_S = 10.0


class GatedEngine(EchoEngine):
    """Steps only when allowed to."""

    def __init__(self):
        super().__init__(threading.Semaphore(0))


@pytest.fixture
def start():
    """Starts workers and ends them after the test."""
    workers = []

    def make(engine):
        workers.append(EngineWorker(engine))
        return workers[-1]

    yield make
    for worker in workers:
        if isinstance(worker._engine, GatedEngine):
            worker._engine.gate.release(10_000)
        assert worker.close(LIMIT_S)


def generator_over(worker):
    loaded = SimpleNamespace(
        tokenizer=ByteTokenizer(),
        info=SimpleNamespace(context_length=4096),
        end_token_ids=frozenset({END}),
    )
    return TextGenerator(loaded, engine=worker._engine, driver=lambda _: ThreadDriver(worker))


def test_many_threads_each_get_their_own(start):
    generator = generator_over(start(EchoEngine()))
    answers = {}

    def ask(name):
        answers[name] = generator.generate_text(name * 20).text

    names = [f"caller {n}; " for n in range(16)]
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert answers == {name: name * 20 for name in names}


def test_async_callers_share_the_loop_and_get_their_own(start):
    worker = start(EchoEngine())
    generator = generator_over(worker)

    async def ask(name):
        stream = AsyncEventStream(worker, *generator.open(generator.prepare_text(name * 20)))
        return fold([event async for event in stream])

    async def ask_all():
        return await asyncio.gather(*(ask(f"caller {n}; ") for n in range(16)))

    for n, completion in enumerate(asyncio.run(ask_all())):
        assert completion.text == f"caller {n}; " * 20
        assert completion.finish_reason == "stop"


def test_async_equals_sync(start):
    worker = start(EchoEngine())
    generator = generator_over(worker)
    options = GenerationOptions(stop=("STOP",))

    async def ask():
        stream = AsyncEventStream(
            worker, *generator.open(generator.prepare_text("naïve ✓ STOP more", options))
        )
        return [event async for event in stream]

    ours, theirs = fold(asyncio.run(ask())), generator.generate_text("naïve ✓ STOP more", options)
    assert (ours.text, ours.finish_reason, ours.token_ids) == (theirs.text, "stop", theirs.token_ids)
    assert ours.text == "naïve ✓ "


def test_cancel_comes_within_one_step(start):
    engine = GatedEngine()
    generator = generator_over(start(engine))
    stream = generator.stream(generator.prepare_text("abcdefgh"))
    engine.gate.release(3)
    texts = []
    for event in stream:
        if isinstance(event, Delta):
            texts.append(event.text)
            if len(texts) == 3:
                stream.cancel()
                engine.gate.release(2)
        if isinstance(event, Finish):
            assert event.reason == "cancelled"
    assert len(texts) <= 4
    assert not engine.has_work()


def test_cancel_right_after_submit_is_not_lost(start):
    """The request and its cancellation reach the engine in the order they were posted."""
    engine = GatedEngine()
    worker = start(engine)
    generator = generator_over(worker)
    streams = [generator.stream(generator.prepare_text("x" * 50)) for _ in range(20)]
    for stream in streams:
        stream.cancel()
    engine.gate.release(10)
    for stream in streams:
        assert fold(stream).finish_reason == "cancelled"


def test_a_refusal_reaches_only_its_caller(start):
    worker = start(EchoEngine())
    generator = generator_over(worker)
    good = generator.stream(generator.prepare_text("fine"))
    bad = generator.stream(generator.prepare_text("\0"))
    with pytest.raises(InvalidRequest, match="refused"):
        fold(bad)
    assert fold(good).text == "fine"
    assert worker.alive


def test_a_fatal_error_reaches_everybody_and_later_callers(start):
    class Dying(EchoEngine):
        steps = 0

        def step(self):
            self.steps += 1
            if self.steps == 3:
                raise MemoryError("the machine is gone")
            return super().step()

    worker = start(Dying())
    generator = generator_over(worker)
    streams = [generator.stream(generator.prepare_text("a long enough text")) for _ in range(5)]
    for stream in streams:
        with pytest.raises(EngineError, match="the machine is gone"):
            fold(stream)
    assert not worker.alive
    with pytest.raises(EngineError, match="the machine is gone"):
        generator.generate_text("too late")


def test_closing_ends_every_stream(start):
    engine = GatedEngine()
    worker = start(engine)
    generator = generator_over(worker)
    streams = [generator.stream(generator.prepare_text("never answered")) for _ in range(3)]
    worker.close(timeout_s=0)  # posted before the engine may go on
    engine.gate.release(100)
    for stream in streams:
        with pytest.raises(LocalLLMError, match="shut down"):
            list(stream)
    worker.close(LIMIT_S)
    with pytest.raises(LocalLLMError, match="shut down"):
        generator.generate_text("after closing")


def test_an_engine_that_exits_its_thread_still_reaches_everybody(start):
    """SystemExit ends a thread without a trace; a library may raise it."""

    class Exiting(EchoEngine):
        def step(self):
            raise SystemExit(3)

    generator = generator_over(start(Exiting()))
    with pytest.raises(EngineError, match="SystemExit"):
        generator.generate_text("never answered")


def test_a_sequence_whose_id_is_taken_leaves_the_one_that_has_it_alone(start):
    """The second caller is refused, and the first still gets all of its steps."""

    class Refusing(GatedEngine):
        def submit(self, request):
            if request.sequence_id in self._active:
                raise InvalidRequest("taken", param="sequence_id")
            super().submit(request)

    engine = Refusing()
    worker = start(engine)
    first, second = SimpleQueue(), SimpleQueue()
    one = TokenRequest("a", tuple(b"hello"), GenerationOptions(), frozenset({END}))
    worker.submit(one, first.put)
    worker.submit(one, second.put)
    engine.gate.release(100)
    assert second.get(timeout=LIMIT_S).error.param == "sequence_id"
    steps = [first.get(timeout=LIMIT_S) for _ in range(7)]
    assert steps[-1].last and steps[-1].error is None
    driver = ThreadDriver(worker)
    engine.gate = threading.Semaphore(0)
    driver.submit(one)
    with pytest.raises(InvalidRequest, match="in use"):
        driver.submit(one)
    engine.gate.release(100)
    driver.abandon("a")
    assert driver.next_step("a").finish_reason == "cancelled"


def test_a_reader_may_close_the_worker(start):
    """Closing from the engine's own thread does not wait for itself."""
    worker = start(EchoEngine())
    closed = SimpleQueue()
    request = TokenRequest("a", tuple(b"hello"), GenerationOptions(), frozenset({END}))
    worker.submit(request, lambda step: closed.put(worker.close()))
    assert closed.get(timeout=LIMIT_S) is False
    assert worker.close(LIMIT_S)


def test_a_process_that_ends_closes_its_worker_first():
    """A thread cut off inside of torch takes the process down with an abort."""
    program = """
import time
from fakes import ScriptedEngine
from llm_local.engine.protocol import TokenRequest
from llm_local.options import GenerationOptions
from llm_local.runtime.worker import EngineWorker

class Slow(ScriptedEngine):
    def step(self):
        time.sleep(0.1)
        return super().step()

engine = Slow()
engine.enqueue(list(range(200)) * 10)
worker = EngineWorker(engine)
worker.submit(TokenRequest("a", (1,), GenerationOptions()), lambda step: print(getattr(step, "error", "")))
"""
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "The engine was shut down" in done.stdout.splitlines()[-1]
    assert done.stderr == ""


def test_an_idle_worker_steps_no_engine(start):
    """Between requests the engine is left alone: the thread waits for its inbox."""

    class Counting(EchoEngine):
        idle_steps = 0

        def step(self):
            self.idle_steps += not self.has_work()
            return super().step()

    engine = Counting()
    generator = generator_over(start(engine))
    for _ in range(3):
        generator.generate_text("work")
    assert engine.idle_steps == 0


def test_a_refusal_of_any_kind_reaches_its_caller(start):
    """Also an error nobody planned for, such as no memory for the request itself."""

    class NoMemory(EchoEngine):
        def submit(self, request):
            if request.prompt_ids == (1,):
                raise MemoryError("no memory for this one")
            super().submit(request)

    worker = start(NoMemory())
    generator = generator_over(worker)
    with pytest.raises(EngineError, match="no memory for this one"):
        generator.generate_text("\1")
    assert generator.generate_text("fine").text == "fine"


def test_a_reader_that_raises_ends_its_own_sequence_only(start):
    engine = EchoEngine()
    worker = start(engine)

    def broken(step):
        raise ValueError("a reader with a bug")

    worker.submit(TokenRequest("broken", tuple(b"x" * 500), GenerationOptions(), frozenset({END})), broken)
    assert generator_over(worker).generate_text("fine").text == "fine"
    assert worker.alive
    assert "broken" in engine.cancelled


def test_closing_a_stream_wakes_the_thread_that_reads_it(start):
    engine = GatedEngine()
    generator = generator_over(start(engine))
    stream = generator.stream(generator.prepare_text("never stepped"))
    read = []
    reader = threading.Thread(target=lambda: read.extend(stream), daemon=True)
    reader.start()
    stream.close()
    reader.join(LIMIT_S)
    assert not reader.is_alive()


def test_usage_does_not_depend_on_how_far_the_engine_ran_ahead(start):
    """With a stop string the counts are those of the inline run, whatever was sampled behind it."""
    worker = start(EchoEngine())
    generator = generator_over(worker)
    options = GenerationOptions(stop=("STOP",))
    text = "one STOP" + " more" * 200
    usages = {fold(generator.stream(generator.prepare_text(text, options))).usage for _ in range(5)}
    assert {usage.completion_tokens for usage in usages} == {len("one STOP")}


def test_an_async_stream_that_is_closed_ends_for_whoever_reads_it(start):
    engine = GatedEngine()
    worker = start(engine)
    generator = generator_over(worker)

    async def close_while_reading():
        stream = AsyncEventStream(worker, *generator.open(generator.prepare_text("never stepped")))
        reading = asyncio.create_task(anext(stream, "the end"))
        await asyncio.sleep(0)
        await stream.aclose()
        first = await asyncio.wait_for(reading, LIMIT_S)
        return first, await anext(stream, "the end")

    assert asyncio.run(close_while_reading()) == ("the end", "the end")


@pytest.mark.parametrize("leave", ["cancel the task", "forget the stream"])
def test_an_async_caller_who_leaves_ends_its_sequence(start, leave):
    engine = GatedEngine()
    worker = start(engine)
    generator = generator_over(worker)

    async def ask_and_leave():
        stream = AsyncEventStream(worker, *generator.open(generator.prepare_text("x" * 100)))
        if leave == "cancel the task":
            task = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        del stream
        gc.collect()

    asyncio.run(ask_and_leave())
    engine.gate.release(1000)
    assert generator.generate_text("still here").text == "still here"
    assert len(set(engine.cancelled)) == 1


def test_a_reader_that_never_reads_does_not_hold_up_another(start):
    worker = start(EchoEngine())
    generator = generator_over(worker)
    silent = generator.stream(generator.prepare_text("x" * 1000))
    assert generator.generate_text("y" * 500).text == "y" * 500
    silent.close()
    assert generator.generate_text("z").text == "z"


def test_a_caller_whose_loop_is_gone_costs_the_engine_nothing(start):
    engine = GatedEngine()
    worker = start(engine)
    generator = generator_over(worker)

    async def ask_and_leave():
        AsyncEventStream(worker, *generator.open(generator.prepare_text("nobody waits for this")))

    asyncio.run(ask_and_leave())
    engine.gate.release(1000)
    assert generator.generate_text("still here").text == "still here"
    assert worker.alive
    assert len(set(engine.cancelled)) == 1


def test_steps_are_delivered_in_order_with_one_last(start):
    worker = start(EchoEngine())
    box = SimpleQueue()
    worker.submit(TokenRequest("a", tuple(b"hello"), GenerationOptions(), frozenset({END})), box.put)
    steps = [box.get(timeout=LIMIT_S) for _ in range(7)]
    assert [getattr(step, "token_id", None) for step in steps] == [None, *b"hello", END]
    assert [getattr(step, "last", False) for step in steps] == [False] * 6 + [True]
    assert box.empty()


def test_messages_go_the_same_way(start):
    generator = generator_over(start(EchoEngine()))
    assert "User: Hello" in generator.generate_chat([Message("user", "Hello")]).text
