"""The starter model, a real MCP server and the tool loop: described, called, answered, told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.options import GenerationOptions
from llm_local.specs import EngineOptions, ModelSpec
from llm_local.tools.approval import allow_all
from llm_local.tools.loop import ToolLoop
from llm_local.tools.mcp_client import open_server

SERVER = (sys.executable, str(Path(__file__).parent / "mcp_server_everything.py"))
GREEDY = GenerationOptions(temperature=0, max_new_tokens=128)


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    resolved = resolve_model(ModelSpec("starter", dtype="float32"), explicit=True)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path)
    return TextGenerator(loaded, engine_options=EngineOptions(prefix_cache=False))


def test_the_starter_answers_with_what_a_real_server_told(generator: TextGenerator) -> None:
    with open_server(SERVER) as server:
        tools = [tool for tool in server.tools if tool.name in ("get_weather", "add_numbers")]
        question = [Message("user", "What is the weather in Oslo?")]
        answer = ToolLoop(generator.generate_chat_stream, question, tools, GREEDY, approve=allow_all).run()
    (result,) = answer.results
    assert (result.call.name, result.call.arguments) == ("get_weather", {"city": "Oslo"})
    assert (result.outcome, result.source, result.text) == (
        "ok",
        "mcp:everything_server",
        "18 degrees in Oslo",
    )
    assert answer.end == "answered"
    assert "18 degrees in Oslo" in answer.text


def test_a_server_that_died_is_told_to_the_model_and_the_loop_ends(generator: TextGenerator) -> None:
    with open_server(SERVER) as server:
        weather = [tool for tool in server.tools if tool.name == "get_weather"]
        die = next(tool for tool in server.tools if tool.name == "die")
        with pytest.raises(Exception, match="exit status 5"):
            die.run({"status": 5})
        question = [Message("user", "What is the weather in Oslo?")]
        answer = ToolLoop(generator.generate_chat_stream, question, weather, GREEDY, approve=allow_all).run()
    assert answer.results[0].outcome == "failed"
    assert "ended some time ago (exit status 5). Its last words:" in answer.results[0].text
    assert answer.end in ("answered", "max_rounds")
