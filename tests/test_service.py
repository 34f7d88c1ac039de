"""The service's laws: many callers at once, each with its own reply, and nothing left of those who went away."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from fakes import EchoEngine, FakeOpener, give_names
from llm_local.config import load_config
from llm_local.errors import (
    Busy,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    NumericalError,
    UnsupportedTask,
)
from llm_local.events import ContextTrimmed, Delta, Finish, Progress
from llm_local.messages import Message
from llm_local.options import Constraint
from llm_local.service import Caller, EmbedRequest, Service, Work
from llm_local.store.given_names import GivenName, store_given
from tiny_embedders import save_embedder

LIMIT_S = 30.0
ME = Caller("me")


def serve(test, opener=None, **settings):
    """Run `test(service)`, and see that nothing is left: no place, no sequence, no thread."""
    environ = {"MODEL_ID": "starter", **{name.upper(): str(value) for name, value in settings.items()}}

    async def go():
        service = Service(load_config(environ=environ, env_file=None), opener=opener)
        try:
            async with asyncio.timeout(LIMIT_S):
                await test(service)
                await settled(service)
        finally:
            if opener is not None:
                opener.open_gates()
            await service.aclose()

    before = threading.active_count()
    asyncio.run(go())
    ended = time.monotonic() + LIMIT_S
    while threading.active_count() > before and time.monotonic() < ended:
        time.sleep(0.005)
    assert threading.active_count() <= before


def faked(test, tmp_path, **settings):
    """The same with models `a` and `b` that repeat their prompts; `service.opener` holds their engines."""
    give_names(tmp_path, "a", "b")
    opener = FakeOpener()

    async def go(service):
        service.opener = opener
        await test(service)

    serve(go, opener, model_id="a", **settings)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


async def settled(service):
    """Nobody runs, waits, or holds a model, and no engine has a sequence."""
    gc.collect()
    await until(
        lambda: (
            all(one.running == one.waiting == 0 for one in service.stats().lines.values())
            and all(one.requests == 0 for one in service.loaded())
            and not any(
                one.memory.engine.has_work()
                for one in service._pool.residents()
                if hasattr(one.memory, "engine")
            )
        )
    )


def chat(text="Hello", **fields):
    changes = {"max_new_tokens": 16, **fields.pop("changes", {})}
    return Work(fields.pop("caller", ME), messages=(Message("user", text),), changes=changes, **fields)


async def events_of(reply):
    return [event async for event in reply]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


async def answer(service, work):
    return await events_of(await service.begin(work))


def test_replies_are_what_was_asked_for_and_told_in_full(tmp_path):
    async def test(service):
        reply = await service.begin(Work(ME, model="b", prompt="copy me"))
        assert (reply.model, reply.prompt_text, reply.prompt_tokens) == ("b", "copy me", 7)
        assert reply.options.seed is not None and reply.info.architecture == "Echo" and len(reply.id) == 32
        events = await events_of(reply)
        assert text_of(events) == "copy me"
        finish = events[-1]
        assert isinstance(finish, Finish) and finish.reason == "stop"
        assert [type(one) for one in events].count(Finish) == 1
        assert finish.timings.load_s == reply.load_s > 0 and "request took" in reply.speed.sentence
        assert service.stats().lines["b"].finished_total == 1
        assert 'llm_local_requests_total{model="b",reason="stop"} 1.0' in service.metrics_text()

    faked(test, tmp_path)


def test_the_line_tells_places_and_refuses_before_anything_is_done(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        running = await service.begin(Work(ME, prompt="one"))
        first = asyncio.create_task(events_of(running))
        waiting = await service.begin(Work(ME, prompt="two"))
        assert await anext(waiting) == Progress("queued", 1, 1)
        with pytest.raises(Busy) as raised:
            await service.begin(Work(Caller("other"), prompt="\ud800 is no text, but nobody looks"))
        assert raised.value.kind == "server_busy" and raised.value.retry_after_s >= 1
        gate.release(100)
        assert text_of(await first) == "one"
        assert text_of(await events_of(waiting)) == "two"

    faked(test, tmp_path, max_concurrent_requests=1, max_waiting_requests=1)


def test_a_full_service_can_be_told_before_anything_is_known_of_a_request(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        service.check_room(ME)  # nothing is in memory, so no line is full
        one = asyncio.create_task(events_of(await service.begin(Work(ME, prompt="one"))))
        service.check_room(ME)
        two = asyncio.create_task(events_of(await service.begin(Work(ME, prompt="two"))))
        with pytest.raises(Busy, match="1 requests run and 1 wait") as raised:
            service.check_room(ME)
        assert raised.value.kind == "server_busy"
        assert service.stats().lines["a"].refused_total == 1
        assert 'llm_local_requests_refused_total{kind="server_busy"} 1.0' in service.metrics_text()
        await service.load("b")
        service.check_room(ME)  # there is room with the other one
        gate.release(100)
        await one, await two

    faked(test, tmp_path, max_concurrent_requests=1, max_waiting_requests=1)


@pytest.mark.parametrize("how", ["cancel", "close", "task", "forget"])
@pytest.mark.parametrize("stage", ["before", "queued", "reading", "writing"])
def test_a_reply_can_end_at_every_stage(stage, how, tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        (ahead,) = [await service.begin(Work(ME, prompt="ahead"))] if stage == "queued" else [None]
        reply = await service.begin(Work(ME, prompt="a long prompt"))
        if stage == "queued":
            assert isinstance(await anext(reply), Progress)
        elif stage == "writing":
            gate.release(3)
            while not isinstance(await anext(reply), Delta):
                pass
        reader = asyncio.create_task(events_of(reply)) if stage in ("reading", "queued") else None
        await asyncio.sleep(0.01)
        if how == "cancel":
            reply.cancel()
            gate.release(50)
            events = await (reader or events_of(reply))
            assert isinstance(events[-1], Finish) and events[-1].reason == "cancelled"
        elif how == "task":
            reader = reader or asyncio.create_task(events_of(reply))
            await asyncio.sleep(0.01)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        elif how == "close":
            await reply.aclose()
            if reader is not None:
                assert not any(isinstance(one, Finish) for one in await reader)
        else:
            if reader is not None:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                reader = None
            del reply
        if ahead is not None:
            await ahead.aclose()
        gate.release(50)

    faked(test, tmp_path, max_concurrent_requests=1 if stage == "queued" else 8)


def test_who_goes_away_while_the_model_loads_or_the_prompt_is_prepared_holds_nothing(tmp_path):
    async def test(service):
        service.opener.gate = threading.Event()
        task = asyncio.create_task(service.begin(Work(ME, prompt="x")))
        await until(lambda: service.opener.loads)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        service.opener.gate.set()
        await until(service.loaded)
        assert service.stats().lines["a"].running == 0

    faked(test, tmp_path)


def test_a_deadline_ends_a_reply_wherever_it_is(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        service.opener.gate = threading.Event()
        with pytest.raises(Busy) as raised:
            await service.begin(Work(ME, prompt="loading", deadline_s=0.02))
        assert raised.value.kind == "deadline_exceeded"
        service.opener.gate.set()
        running = await service.begin(Work(ME, prompt="running", deadline_s=0.2))
        first = asyncio.create_task(events_of(running))
        queued = await service.begin(Work(ME, prompt="queued", deadline_s=0.02))
        with pytest.raises(Busy) as raised:
            await events_of(queued)
        assert raised.value.kind == "queue_timeout" and not queued.timed_out
        await until(lambda: running.timed_out)
        gate.release(50)
        assert (await first)[-1].reason == "cancelled"

    faked(test, tmp_path, max_concurrent_requests=1)


def test_draining_refuses_who_waits_and_waits_for_who_runs(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        running = asyncio.create_task(answer(service, Work(ME, prompt="running")))
        await until(lambda: service.stats().lines and service.stats().lines["a"].running)
        await until(lambda: service.opener.engines["a"].has_work() if service.opener.engines else False)
        queued = asyncio.create_task(answer(service, Work(ME, prompt="queued")))
        await until(lambda: service.stats().lines["a"].waiting)
        assert not await service.drain(0.01)
        assert not service.readiness().ready
        for refused in (queued, service.begin(Work(ME, prompt="new")), service.tokenize(ME, None, "new")):
            with pytest.raises(Busy) as raised:
                await refused
            assert raised.value.kind == "shutting_down"
        gate.release(50)
        assert await service.drain(LIMIT_S)
        assert text_of(await running) == "running"

    faked(test, tmp_path, max_concurrent_requests=1)


def test_a_failing_request_fails_alone_and_is_counted(tmp_path):
    class Failing(EchoEngine):
        def submit(self, request):
            super().submit(request)
            if request.prompt_ids[0] == ord("!"):
                self._active[request.sequence_id][1].insert(2, NumericalError("not a number"))

    async def test(service):
        service.opener.make_engine = lambda name: Failing()
        prompts = [f"prompt {number}" for number in range(7)] + ["!broken"]
        results = await asyncio.gather(
            *(answer(service, Work(ME, prompt=one)) for one in prompts), return_exceptions=True
        )
        assert [text_of(one) for one in results[:7]] == prompts[:7]
        assert isinstance(results[7], NumericalError)
        assert (
            'llm_local_request_failures_total{kind="numerical_error",model="a"} 1.0' in service.metrics_text()
        )

    faked(test, tmp_path)


def test_a_dead_engine_fails_its_requests_and_the_next_one_is_served(tmp_path):
    class Dying(EchoEngine):
        def step(self):
            raise SystemError("the device is lost")

    async def test(service):
        service.opener.make_engine = lambda name: Dying()
        results = await asyncio.gather(
            *(answer(service, Work(ME, prompt="x")) for _ in range(3)), return_exceptions=True
        )
        assert {(type(one), one.kind) for one in results} == {(EngineError, "worker_died")}
        service.opener.make_engine = lambda name: EchoEngine()
        assert text_of(await answer(service, Work(ME, prompt="again"))) == "again"
        assert service.opener.loads == ["a", "a"]

    faked(test, tmp_path)


def test_the_own_model_is_made_ready_from_the_start(tmp_path):
    async def test(service):
        service.opener.gate = threading.Event()
        assert service.readiness().reason == "a is not in memory."
        service.start()
        await until(lambda: service.opener.loads)
        assert not service.readiness().ready and service.stats().loading == ("a",)
        service.opener.gate.set()
        await until(lambda: service.readiness().ready)
        assert [(one.name, one.expires_in_s) for one in service.loaded()] == [("a", None)]

    faked(test, tmp_path)


def test_a_model_for_which_there_is_no_room_is_refused_while_the_other_one_serves(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        service.opener.sizes["b"] = 10_000
        running = asyncio.create_task(answer(service, Work(ME, prompt="running")))
        await until(lambda: service.loaded())
        with pytest.raises(InsufficientMemory):
            await service.begin(Work(ME, model="b", prompt="x"))
        gate.release(50)
        assert text_of(await running) == "running" and service.opener.closes == []

    faked(test, tmp_path)


def test_a_model_with_a_short_keep_alive_stays_while_it_writes(tmp_path):
    async def test(service):
        gate = threading.Semaphore(0)
        service.opener.make_engine = lambda name: EchoEngine(gate)
        service.opener.gates.append(gate)
        works = [Work(ME, model="b", prompt=text, keep_alive_s=0) for text in ("one", "twelve letters")]
        first, second = [await service.begin(work) for work in works]
        tasks = [asyncio.create_task(events_of(reply)) for reply in (first, second)]
        gate.release(5)
        assert text_of(await tasks[0]) == "one"
        assert [one.name for one in service.loaded()] == ["b"]
        gate.release(50)
        assert text_of(await tasks[1]) == "twelve letters"
        assert service.loaded() == [] and service.opener.loads == ["b"]

    faked(test, tmp_path)


def test_requests_without_any_of_the_three_prompts_or_with_two_are_refused():
    for fields in ({}, {"prompt": "x", "prompt_ids": (1,)}, {"prompt": "x", "tools": ("tool",)}):
        with pytest.raises(InvalidRequest):
            Work(ME, **fields)


# --- on the starter model


def test_sixty_four_streams_at_once_are_each_what_they_are_alone():
    async def test(service):
        works = [
            chat(f"Write {number} words about the sea.", changes={"seed": number, "temperature": 1.0})
            for number in range(64)
        ]
        alone = [text_of(await answer(service, work)) for work in works[:8]]
        together = await asyncio.gather(*(answer(service, work) for work in works))
        assert [text_of(one) for one in together[:8]] == alone
        assert len({text_of(one) for one in together}) > 16
        again = await asyncio.gather(*(answer(service, work) for work in reversed(works)))
        assert [text_of(one) for one in reversed(again)] == [text_of(one) for one in together]

    serve(test)


def test_choices_read_their_prompt_once_in_whatever_order_they_are_read():
    async def test(service):
        work = chat("Tell me about the sea, please. " * 8, changes={"seed": 7, "temperature": 1.5})
        replies = await service.begin_many(work, 3)
        events = [await events_of(reply) for reply in reversed(replies)]
        cached = [one[-1].usage.cached_tokens for one in events]
        assert cached == [replies[0].prompt_tokens - 1] * 2 + [0]
        assert [reply.options.seed for reply in replies] == [7, 8, 9]
        alone = await answer(service, chat(work.messages[0].content, changes={**work.changes, "seed": 9}))
        assert text_of(alone) == text_of(events[0])
        with pytest.raises(InvalidRequest):
            await service.begin_many(work, 0)

    serve(test)


def test_choices_are_let_in_together_or_not_at_all():
    async def test(service):
        with pytest.raises(Busy):
            await service.begin_many(chat(), 6)
        assert service.stats().lines["starter"].running == 0
        replies = await service.begin_many(chat(), 4)
        await asyncio.gather(*map(events_of, replies))

    serve(test, max_concurrent_requests=2, max_waiting_requests=2)


def test_owners_do_not_see_each_others_prompts():
    async def test(service):
        text = "The secret of the house is under the third stone of the garden wall. " * 4
        mine = [(await answer(service, chat(text)))[-1].usage.cached_tokens for _ in range(2)]
        other = (await answer(service, chat(text, caller=Caller("other"))))[-1].usage.cached_tokens
        assert mine[0] == 0 < mine[1] and other == 0

    serve(test)


def test_a_reply_that_is_given_up_leaves_no_keys_and_values():
    async def test(service):
        replies = [await service.begin(chat("Tell me a story. " * 20)) for _ in range(3)]
        assert isinstance(await anext(replies[0]), Progress)  # has read, or begun to
        while not isinstance(await anext(replies[1]), Delta):
            pass
        assert service.loaded()[0].kv_bytes > 0
        for reply in replies:
            await reply.aclose()
        await until(lambda: service.loaded()[0].kv_bytes == 0)

    serve(test, prefix_cache="false")


def test_everything_refusable_is_refused_before_the_reply():
    async def test(service):
        for work in (
            chat("word " * 5000),
            chat(changes={"temperature": -1}),
            chat(changes={"constraint": Constraint("regex", "(?=x)")}),
            chat(changes={"think": "on"}),
            chat(changes={"nonsense": 1}),
            Work(ME, prompt=""),
            Work(ME, prompt_ids=(10**6,)),
        ):
            with pytest.raises(InvalidRequest):
                await service.begin(work)
        trimmed = await service.begin(
            Work(
                ME,
                messages=tuple(Message(role, "word " * 400) for role in ("user", "assistant") * 5)
                + (Message("user", "Hi"),),
                policy="trim-oldest",
                changes={"max_new_tokens": 4},
            )
        )
        events = await events_of(trimmed)
        assert isinstance(events[0], ContextTrimmed) and events[0] == trimmed.trimmed

    serve(test)


def test_a_long_text_and_a_grammar_do_not_hold_the_loop():
    async def test(service):
        await service.load(None)
        lags = []

        async def watch():
            loop = asyncio.get_running_loop()
            while True:
                began = loop.time()
                await asyncio.sleep(0.005)
                lags.append(loop.time() - began - 0.005)

        watcher = asyncio.create_task(watch())
        text = "naïve words, and more of them. " * 8_000
        ids, refused = await asyncio.gather(
            service.tokenize(ME, None, text), service.begin(Work(ME, prompt=text)), return_exceptions=True
        )
        watcher.cancel()
        assert len(ids) > 100_000 and isinstance(refused, InvalidRequest)
        assert len(lags) > 20  # not one, as it would be if it were done there

    serve(test)


def test_texts_are_judged_and_embedded_beside_others():
    async def test(service):
        decision = await service.decide(ME, None, [Message("user", "Is snow cold?")], ("Yes", "No"))
        assert sum(one.probability for one in decision.choices) == pytest.approx(1)
        scored = await service.score(ME, None, "The sky is blue")
        assert scored.logprobs[0] is None and len(scored.logprobs) == len(scored.token_ids)
        same = await service.score(ME, None, scored.token_ids)
        assert same.logprobs[1:] == scored.logprobs[1:]
        assert await service.detokenize(ME, None, await service.tokenize(ME, None, "Grüße")) == "Grüße"
        ranking = await service.rerank(ME, None, "cats", ["Dogs bark.", "Cats purr."], top_n=1)
        assert len(ranking) == 1
        best = next(iter(ranking))
        asked = (
            f"Query: cats\n\nDocument: {('Dogs bark.', 'Cats purr.')[best.index]}\n\n"
            "Does the document help to answer the query? Answer with Yes or No."
        )
        decision = await service.decide(ME, None, [Message("user", asked)], ("Yes", "No"))
        assert best.score == pytest.approx(decision.choices[0].probability, rel=1e-4)
        rendered = await service.render(chat("Hello"))
        reply = await service.begin(chat("Hello"))
        assert (rendered.prompt_text, len(rendered.prompt_ids)) == (reply.prompt_text, reply.prompt_tokens)
        await reply.aclose()

    serve(test)


def test_a_model_that_writes_embeds_by_the_mean():
    async def test(service):
        found = await service.embed(ME, "starter", ["one text", "another"])
        assert len(found.vectors) == 2 and len(found.vectors[0]) == 256 and "mean" in found.notices[0]
        assert sum(number**2 for number in found.vectors[0]) == pytest.approx(1, abs=1e-5)
        ids = [tuple(await service.tokenize(ME, "starter", text)) for text in ("one text", "another")]
        assert (await service.embed(ME, "starter", ids)).vectors == found.vectors
        short = await service.embed_with(ME, "starter", EmbedRequest(["one text"], dimensions=8))
        assert len(short.vectors[0]) == 8
        for wrong in ([], ["one", (1,)], [()], [(10**6,)], [" "], ["word " * 5000]):
            with pytest.raises(InvalidRequest):
                await service.embed(ME, "starter", wrong)
        task = asyncio.create_task(service.embed(ME, "starter", ["some words " * 50] * 500))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    serve(test)


def test_models_made_for_embeddings_embed_and_rank_and_do_not_write(tmp_path):
    save_embedder(tmp_path / "bert", "bert")
    store_given(GivenName("bert", "directory", str((tmp_path / "bert").resolve())))

    async def test(service):
        ranking = await service.rerank(
            ME, "bert", "cats purr", ["dogs bark loudly", "cats purr", "x"], top_n=2
        )
        assert [one.index for one in ranking][0] == 1 and len(ranking) == 2
        assert [(one.name, one.embeds) for one in service.loaded()] == [("bert", True)]
        with pytest.raises(UnsupportedTask):
            await service.begin(Work(ME, model="bert", prompt="x"))
        known = next(one for one in await service.models() if one.name == "bert")
        assert known.capabilities == {"embedding"} and known.loaded.embeds

    serve(test)


def test_kept_replies_are_told_again_to_their_owner_alone():
    async def test(service):
        work = chat("What is 2+2?", changes={"temperature": 0})
        first = await answer(service, work)
        await until(lambda: service.stats().cache.entries)
        reply = await service.begin(work)
        again = await events_of(reply)
        assert reply.from_cache and text_of(again) == text_of(first)
        assert again[-1].usage.replayed_tokens and "Nothing was computed" in reply.speed.sentence
        for other in (chat("What is 2+2?", caller=Caller("other"), changes={"temperature": 0}), chat()):
            assert not (fresh := await service.begin(other)).from_cache
            await events_of(fresh)

    serve(test, response_cache_mb=1)


def test_the_store_shows_what_is_here_and_names_and_removes(tmp_path):
    async def test(service):
        await service.load(None)
        starter = next(one for one in await service.models() if one.name == "starter")
        assert {"chat", "tools"} <= starter.capabilities and starter.context_length == 2048
        assert starter.loaded is not None and starter.state == "complete"
        assert (await service.show("starter")).card.chat_template
        copied = await service.copy("starter", "mine")
        assert copied.name == "mine"
        assert text_of(await answer(service, chat("Hello", model="mine", changes={"temperature": 0})))
        assert [one.name for one in service.loaded()] == ["starter"]
        assert [one.name for one in await service.delete("mine")] == ["mine"]
        with pytest.raises(InvalidRequest, match="stays"):
            await service.delete("starter")
        with pytest.raises(UnsupportedTask):
            await anext(aiter(service.pull("org/name:Q4_K_M")))

    serve(test)
