"""Calls from other threads on an event loop."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from llm_local.runtime.posting import LoopPost, loop_post


def test_calls_are_made_on_the_loop_in_their_order() -> None:
    async def run() -> tuple[list[tuple[int, int]], set[int]]:
        post, made, threads = loop_post(), list[tuple[int, int]](), set[int]()
        assert loop_post() is post
        done = asyncio.Event()

        def deliver(source: int, number: int) -> None:
            made.append((source, number))
            threads.add(threading.get_ident())
            if len(made) == 400:
                done.set()

        def send(source: int) -> None:
            for number in range(100):
                post.post(partial(deliver, source, number))

        senders = [threading.Thread(target=send, args=(source,)) for source in range(4)]
        for sender in senders:
            sender.start()
        async with asyncio.timeout(30):
            await done.wait()
        for sender in senders:
            sender.join()
        return made, threads

    made, threads = asyncio.run(run())
    assert threads == {threading.get_ident()}
    for source in range(4):
        assert [number for one, number in made if one == source] == list(range(100))


def test_a_batch_wakes_the_loop_once() -> None:
    class Loop:
        """Notes what it is asked to call."""

        def __init__(self) -> None:
            self.asked: list = []

        def call_soon_threadsafe(self, call) -> None:
            self.asked.append(call)

    loop, made = Loop(), list[int]()
    post = LoopPost(loop)  # type: ignore[arg-type]
    for number in range(5):
        post.post(partial(made.append, number))
    (call,) = loop.asked
    assert made == []
    call()
    assert made == [0, 1, 2, 3, 4]
    post.post(partial(made.append, 5))
    assert len(loop.asked) == 2


def test_a_closed_loop_is_told_every_time() -> None:
    async def find() -> LoopPost:
        return loop_post()

    loop = asyncio.new_event_loop()
    post = loop.run_until_complete(find())
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            post.post(lambda: None)
    del loop
    with pytest.raises(RuntimeError):
        post.post(lambda: None)
