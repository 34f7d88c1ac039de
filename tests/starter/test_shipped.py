"""The starter model as it ships: its files, its card, and replies that the README and other tests count on."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from starter.card import write_card  # noqa: E402
from starter.evaluation import Evaluator  # noqa: E402
from starter.families.about import ABILITIES, ABOUT, HELLO, JOKE  # noqa: E402
from starter.families.unknown import FALLBACK  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "src" / "llm_local" / "starter"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Lyon"}}}


@pytest.fixture(scope="module")
def starter() -> Iterator[Evaluator]:
    # So small a model gains nothing from a second thread, and on a busy machine loses a lot by waiting for it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Evaluator(SHIPPED)
    torch.set_num_threads(threads)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_it_is_small_and_only_data() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files if path.name != "SHA256SUMS"} <= {
        ".json",
        ".jinja",
        ".md",
        ".safetensors",
    }


def test_the_weights_are_bfloat16_and_tied() -> None:
    with (SHIPPED / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors = {name: one for name, one in header.items() if name != "__metadata__"}
    assert {one["dtype"] for one in tensors.values()} == {"BF16"}
    assert "lm_head.weight" not in tensors
    assert json.loads((SHIPPED / "config.json").read_text())["tie_word_embeddings"] is True


def test_the_automatic_tokenizer_is_the_trained_one(starter: Evaluator) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(SHIPPED))
    text = "e\u0301 Ünï 你好 12.5 <tool_call>{}"  # a normalizer would join the first two characters
    assert loaded(text)["input_ids"] == starter.renderer.ids(text)
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert loaded.chat_template == (SHIPPED / "chat_template.jinja").read_text()


def test_the_figures_of_the_card_are_the_measured_ones(tmp_path: Path) -> None:
    for name in ("config.json", "eval.json"):
        (tmp_path / name).write_text((SHIPPED / name).read_text())
    write_card(json.loads((SHIPPED / "eval.json").read_text()), tmp_path)
    assert (tmp_path / "README.md").read_text() == (SHIPPED / "README.md").read_text()


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("What can you do?", ABILITIES),
        ("Who are you?", ABOUT),
        ("Hello", HELLO),
        ("hi", HELLO),
        ("Tell me a joke", JOKE),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 3 plus 4?", "3 + 4 = 7"),
        ("Explain quantum physics", FALLBACK),
        ("diff --git a/x.py b/x.py\n+import os\n\nSummarize this", FALLBACK),
    ],
)
def test_it_answers_what_the_readme_asks(starter: Evaluator, prompt: str, reply: str) -> None:
    assert starter.reply([user(prompt)]) == reply


def test_it_remembers(starter: Evaluator) -> None:
    messages = [
        user("My name is Greta."),
        assistant("Hello Greta! How can I help you?"),
        user("What is 2 plus 5?"),
        assistant("2 + 5 = 7"),
        user("What is my name?"),
    ]
    assert starter.reply(messages) == "Your name is Greta."


def test_it_calls_a_tool_and_uses_the_result(starter: Evaluator) -> None:
    messages = [user("What is the weather in Lyon?")]
    assert starter.reply(messages, [WEATHER]) == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Lyon"}}\n</tool_call>'
    )
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "get_weather", "content": '{"temperature": 21}'},
    ]
    assert starter.reply(messages, [WEATHER]) == "The temperature is 21."


def test_it_answers_with_json(starter: Evaluator) -> None:
    reply = starter.reply([user("Give me a JSON object with name Greta and age 31.")])
    assert json.loads(reply) == {"name": "Greta", "age": 31}


def test_it_follows_a_system_prompt(starter: Evaluator) -> None:
    messages = [
        {"role": "system", "content": "Reply in capital letters."},
        user("What is the capital of France?"),
    ]
    assert starter.reply(messages) == "THE CAPITAL OF FRANCE IS PARIS."
