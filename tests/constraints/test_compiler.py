"""The compiler's promises: one compilation each, bounded memory, a deadline, and stacks that hold."""

from __future__ import annotations

import gc
import threading
import time

import psutil
import pytest

from constraints.sampling_models import RandomModel
from fakes import ByteTokenizer
from llm_local.constraints import compiler as compiling
from llm_local.constraints import deadline
from llm_local.constraints.compiler import ConstraintCompiler
from llm_local.constraints.deadline import run_with_deadline
from llm_local.errors import Busy, InvalidRequest
from llm_local.options import Constraint


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Constraint]:
    """Every constraint that is compiled from here on."""
    compiled: list[Constraint] = []
    compile_one = compiling._compile

    def counting(key, vocabulary):
        compiled.append(key[0])
        return compile_one(key, vocabulary)

    monkeypatch.setattr(compiling, "_compile", counting)
    return compiled


def test_a_constraint_is_compiled_once_and_the_least_used_is_forgotten(counted, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "MAX_ENTRIES", 2)
    compiler = ConstraintCompiler(ByteTokenizer(), 257, [256])
    one, two, three = (Constraint("regex", letter) for letter in "abc")
    for constraint in (one, two, one, three, one, two):
        compiler.mask(constraint)
    assert counted == [one, two, three, two]


def test_equal_schemas_in_other_spellings_are_one(counted) -> None:
    compiler = ConstraintCompiler(ByteTokenizer(), 257, [256])
    compiler.mask(Constraint("json_schema", '{ "type" : "null" }'))
    compiler.mask(Constraint("json_schema", {"type": "null"}))
    assert len(counted) == 1


def test_large_constraints_push_out_others_by_their_bytes(counted, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "MAX_BYTES", 3_000)
    compiler = ConstraintCompiler(ByteTokenizer(), 257, [256])
    small, large = Constraint("regex", "a"), Constraint("choice", tuple(f"choice {n}" for n in range(200)))
    for constraint in (small, large, small):
        compiler.mask(constraint)
    assert counted == [small, large, small]


def test_thousands_of_different_schemas_leave_memory_as_it_was() -> None:
    model = RandomModel(ByteTokenizer(), 257, [256])

    def use(start: int, num: int) -> int:
        for number in range(start, start + num):
            schema = {
                "type": "object",
                "properties": {f"p{number}": {"type": "integer"}, "s": {"maxLength": number}},
            }
            model.reply(Constraint("json_schema", schema), number, max_new=3)
        return psutil.Process().memory_info().rss

    before = use(0, 200)
    assert use(1_000, 2_000) - before < 32 * 1024**2


def test_the_work_of_a_failed_compilation_is_told_once_and_not_kept(counted) -> None:
    compiler = ConstraintCompiler(ByteTokenizer(), 257, [256])
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            compiler.mask(Constraint("regex", "("))
    assert len(counted) == 2


class Bomb:
    """Work that takes all it can get until it is told to stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def __call__(self) -> None:
        while not self.stop.is_set():
            pass


def test_work_after_its_deadline_keeps_nobody_waiting() -> None:
    one, two = Bomb(), Bomb()
    try:
        for bomb in (one, two):
            with pytest.raises(InvalidRequest, match=r"more than 0\.05 seconds"):
                run_with_deadline(bomb, 0.05)
        with pytest.raises(Busy):
            run_with_deadline(lambda: 1, 0.05)
    finally:
        one.stop.set()
        two.stop.set()
    assert run_with_deadline(lambda: 1, 5) == 1


def test_a_busy_machine_refuses_no_constraint() -> None:
    """Work that gets no processor is waited for, and then the machine is blamed, not the constraint."""
    release = threading.Event()
    threading.Timer(0.15, release.set).start()
    assert run_with_deadline(lambda: release.wait(5), 0.1) is True, "late, and not refused"
    never = threading.Event()
    with pytest.raises(Busy, match="too busy") as caught:
        run_with_deadline(never.wait, 0.05)
    never.set()
    assert caught.value.retry_after_s


def test_where_no_clock_tells_the_time_of_a_thread_the_deadline_holds(monkeypatch) -> None:
    monkeypatch.delattr(time, "pthread_getcpuclockid", raising=False)
    never = threading.Event()
    with pytest.raises(InvalidRequest, match="more than"):
        run_with_deadline(never.wait, 0.05)
    never.set()


def test_a_thread_that_cannot_be_started_takes_no_turn(monkeypatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(deadline, "_start", fail)
        for _ in range(deadline.MAX_AT_ONCE + 1):
            with pytest.raises(Busy, match="can't start new thread"):
                run_with_deadline(lambda: 1, 0.05)
    assert run_with_deadline(lambda: 1, 5) == 1


def test_an_error_of_the_work_is_the_callers() -> None:
    def fail() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        run_with_deadline(fail, 5)


def test_other_threads_keep_their_stack_size() -> None:
    before = threading.stack_size()
    assert run_with_deadline(threading.stack_size, 5) in (before, deadline.STACK_BYTES)
    assert threading.stack_size() == before


def test_the_threads_of_a_model_end_with_it() -> None:
    def masking() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("mask-")}

    others = masking()
    compiler = ConstraintCompiler(ByteTokenizer(), 257, [256])
    mask = compiler.mask(Constraint("regex", "a+"))
    mask.allowed()
    mine = masking() - others
    assert mine
    del compiler
    mask.accept(ord("a"))
    assert mask.allowed()[ord("a")] == 0
    del mask
    gc.collect()
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()
