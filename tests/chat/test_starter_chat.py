"""The laws of a chat on the model that ships: a second turn reads only what is new, a broken answer goes on whole."""

from __future__ import annotations

import dataclasses

import pytest

from chat.chatting import make_config, run
from llm_local.chat.compare import Begun, Ended
from llm_local.chat.session import ChatSession
from llm_local.errors import ContextLengthExceeded, InvalidRequest
from llm_local.events import ContextTrimmed, Delta
from llm_local.generator import TextGenerator
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.repl.tools import OpenTools
from llm_local.specs import EngineOptions, ModelSpec
from llm_local.terminal.asking import OpenModel
from llm_local.terminal.tool_flags import ToolRequest
from llm_local.terminal.tool_question import ToolAnswer
from llm_local.tools.functions import make_tool


@pytest.fixture(scope="module")
def loaded():
    resolved = resolve_model(ModelSpec("starter", dtype="float32"), explicit=True)
    return load_tokenizer_and_model(resolved.spec, path=resolved.path)


@pytest.fixture
def model(loaded):
    generator = TextGenerator(loaded, engine_options=EngineOptions())
    return OpenModel(generator, loaded.info, loaded.generation_defaults, loaded.load_s)


def make_session(model, **more):
    return ChatSession(model, make_config(temperature=0.0, max_new_tokens=200), **more)


def interrupt(reply, num_tokens):
    """Cancel an answer as soon as so many tokens of it are there."""
    for event in reply:
        if isinstance(event, Delta):
            num_tokens -= len(event.token_ids)
            if num_tokens <= 0:
                reply.cancel()
    return reply.completion


def test_the_second_turn_reads_only_what_is_new(model):
    session = make_session(model)
    first = run(session.ask("Hello! What can you do?"))
    second = run(session.ask("What is 3 + 4?"))
    # all but the last sampled token of the first turn has gone through the model
    assert second.usage.cached_tokens >= first.usage.total_tokens - 2
    assert second.usage.prompt_tokens - second.usage.cached_tokens < 30


def test_so_does_one_behind_an_interrupted_answer(model):
    session = make_session(model)
    first = interrupt(session.ask("Hello! What can you do?"), 8)
    assert first.finish_reason == "cancelled"
    second = run(session.ask("What is 3 + 4?"))
    assert second.usage.cached_tokens >= first.usage.total_tokens - 2


def test_in_a_full_window_most_turns_still_read_only_what_is_new(loaded):
    info = dataclasses.replace(loaded.info, context_length=600)
    small = dataclasses.replace(loaded, info=info)
    generator = TextGenerator(small, engine_options=EngineOptions())
    model = OpenModel(generator, info, loaded.generation_defaults, loaded.load_s)
    session = ChatSession(model, make_config(temperature=0.0, max_new_tokens=16))
    usages = []
    for number in range(40):
        reply = session.ask(f"My favorite number is {number}.")
        events = list(reply)
        if any(isinstance(event, ContextTrimmed) for event in events):
            usages.append(reply.completion.usage)
    assert len(usages) > 12
    warm = [one for one in usages if one.cached_tokens > one.prompt_tokens // 2]
    assert len(warm) > len(usages) // 2


@pytest.mark.parametrize("num_tokens", [1, 4, 9, 17])
def test_an_interrupted_answer_that_goes_on_is_the_whole_answer(model, num_tokens):
    whole = run(make_session(model).ask("Hello! What can you do?"))
    session = make_session(model)
    part = interrupt(session.ask("Hello! What can you do?"), num_tokens)
    assert whole.text.startswith(part.text)
    assert part.text != whole.text
    rest = run(session.continue_reply())
    assert session.messages[-1].content == whole.text
    assert rest.usage.cached_tokens >= part.usage.total_tokens - 2


THINK = "What is 12 + 7? Think first."


@pytest.mark.parametrize("num_tokens", [2, 3, 6, 11, 14, 16, 18, 20, 22])
def test_so_is_one_that_reasons_wherever_it_was_interrupted(model, num_tokens):
    """In the reasoning, between reasoning and answer, in the answer."""
    whole = make_session(model)
    run(whole.ask(THINK))
    assert whole.messages[-1].reasoning
    session = make_session(model)
    part = interrupt(session.ask(THINK), num_tokens)
    assert part.finish_reason == "cancelled"
    rest = run(session.continue_reply())
    assert session.messages[-1] == whole.messages[-1]
    assert rest.usage.cached_tokens >= len(session.prepared.prompt_ids) - 8


def test_reasoning_that_goes_on_keeps_to_its_budget(model):
    session = make_session(model)
    interrupt(session.ask(THINK), 5)
    session.set_option("max_thinking_tokens", "1")
    run(session.continue_reply())
    message = session.messages[-1]
    assert "I add 12 and 7. That makes 19.".startswith(message.reasoning)
    assert "19" not in message.reasoning
    assert message.content


def with_tool(model, on_call=lambda: None):
    """A session whose model must call a tool first."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        on_call()
        return a + b

    tool = make_tool(add, name="add", source="test")
    request = ToolRequest((), (), (), {}, choice="required")
    session = make_session(model, tools=OpenTools([tool], request, lambda call, source: ToolAnswer(True)))
    session.set_tools(["add"])
    return session


def test_a_chat_with_tools_that_is_stopped_while_one_runs_goes_on(model):
    session = with_tool(model, lambda: reply.cancel())
    reply = session.ask("Add 3 and 4.")
    assert run(reply).finish_reason == "cancelled"
    assert [one.role for one in session.messages] == ["user", "assistant", "tool"]
    with pytest.raises(InvalidRequest, match="no answer to continue"):
        session.continue_reply()
    session.set_tools([])
    assert run(session.ask("Hello!")).text
    assert [one.role for one in session.messages[3:]] == ["user", "assistant"]


def test_a_question_with_tools_that_is_refused_changes_nothing(model):
    session = with_tool(model)
    session.attachments.add("notes.md", "word " * 5000)
    reply = session.ask("Add 3 and 4.")
    with pytest.raises(ContextLengthExceeded):
        run(reply)
    assert (session.messages, session.attachments.names, reply.notices) == ((), ("notes.md",), ())
    session.attachments.clear()
    assert run(session.ask("Add 3 and 4."))


def test_tools_run_in_a_chat_and_their_results_are_part_of_it(model):
    session = with_tool(model)
    completion = run(session.ask("Add 3 and 4."))
    roles = [one.role for one in session.messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    call = session.messages[1].tool_calls[0]
    assert session.messages[2].tool_call_id == call.id
    assert session.messages[2].content == str(sum(call.arguments.values()))
    assert completion.text == session.messages[3].content
    # of all rounds together
    assert completion.usage.completion_tokens == sum(
        one.facts.usage.completion_tokens for one in session.entries if one.facts
    )
    run(session.regenerate())
    assert [one.role for one in session.messages] == roles


def test_settings_side_by_side(model):
    session = make_session(model)
    answer = run(session.ask("What is 3 + 4?")).text
    comparison = session.compare(["starter", "max_new_tokens=2", "starter,temperature=1,seed=3"])
    events = list(comparison)
    assert [one.label for one in events if isinstance(one, Begun)] == [one.label for one in comparison.rows]
    assert len([one for one in events if isinstance(one, Ended)]) == 3
    rows = comparison.rows
    assert rows[0].completion.text == answer
    assert rows[1].completion.usage.completion_tokens == 2
    assert rows[1].completion.finish_reason == "length"
    assert rows[2].seed == 3
    assert all(row.total_s > 0 for row in rows)
    assert answer in comparison.markdown()
    assert session.messages[-1].content == answer
