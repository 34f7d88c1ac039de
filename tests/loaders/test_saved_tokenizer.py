"""A tokenizer kept as data does what transformers' own does, or is not kept."""

from __future__ import annotations

import json
import threading

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_local.generation.tokens import TokenView
from llm_local.loaders.saved_tokenizer import SavedTokenizer, saved_state
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.model_loader import resolve_model
from llm_local.specs import ModelInfo, ModelSpec
from llm_local.text.templates import ChatTemplate
from text.small_tokenizers import LINES, TOKENIZERS, byte_level, with_template

FAST = {name: make for name, make in TOKENIZERS.items() if isinstance(make(), PreTrainedTokenizerFast)}
TEXTS = [*LINES[:5], "", " ", "\n\n", "a <|im_end|> b", "\U0001f642\u200d", "x" * 300]


def reread(tokenizer: PreTrainedTokenizerFast) -> SavedTokenizer:
    """Through JSON, as a file brings it back."""
    state = saved_state(tokenizer)
    assert state is not None
    return SavedTokenizer(json.loads(json.dumps(state)))


@pytest.mark.parametrize("name", FAST)
def test_texts_and_ids_are_the_same_in_every_way_we_ask(name: str) -> None:
    tokenizer = FAST[name]()
    saved = reread(tokenizer)
    assert saved.get_vocab() == tokenizer.get_vocab()
    assert saved.eos_token_id == tokenizer.eos_token_id
    assert saved.special_tokens_map == tokenizer.special_tokens_map
    for text in TEXTS:
        for options in ({}, {"add_special_tokens": False}, {"split_special_tokens": True}, {}):
            ids = tokenizer(text, **options).input_ids
            assert saved(text, **options).input_ids == ids
            for skip in (True, False):
                how = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
                assert saved.decode(ids, **how) == tokenizer.decode(ids, **how)


def test_a_conversation_with_tools_renders_the_same_prompt() -> None:
    folder = resolve_model(ModelSpec("starter"), explicit=True).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    talk = [
        Message("system", "Be <|im_end|> brief."),
        Message("user", "How warm is it in Oslo?"),
        Message("assistant", "", tool_calls=(ToolCall("1", "get_weather", {"city": "Oslo"}),)),
        Message("tool", "<|im_start|>12 degrees", tool_call_id="1"),
    ]
    tools = [ToolDefinition("get_weather", "The weather.", {"type": "object", "properties": {}})]
    saved = reread(tokenizer)
    for messages in (talk[1:2], talk):
        assert ChatTemplate(saved).render(messages, tools) == ChatTemplate(tokenizer).render(messages, tools)


def test_truncation_and_padding_that_a_file_asks_for_are_not_kept() -> None:
    """transformers switches both off for a single text."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    assert reread(tokenizer)(LINES[0]).input_ids == tokenizer(LINES[0]).input_ids


def test_a_vocabulary_that_refuses_some_texts_is_kept_and_refuses_them_still() -> None:
    """Whether a start is kept must not depend on a text that nobody asked about."""
    inner = Tokenizer(models.WordLevel({"hello": 0, "world": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    saved = reread(tokenizer)
    assert saved("hello world").input_ids == [0, 1]
    for one in (saved, tokenizer):
        with pytest.raises(Exception, match="Missing"):
            one("hello there")


class Shouting(PreTrainedTokenizerFast):
    """A class that does more than its Rust tokenizer."""

    def _decode(self, *args: object, **options: object) -> str:
        return str(super()._decode(*args, **options)).upper()


def test_a_class_with_ways_of_its_own_is_not_kept() -> None:
    assert saved_state(Shouting(tokenizer_object=byte_level().backend_tokenizer)) is None


def test_what_is_no_fast_tokenizer_is_not_kept() -> None:
    assert all(saved_state(make()) is None for name, make in TOKENIZERS.items() if name not in FAST)


def test_what_would_behave_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level()
    real = tokenizer.get_vocab
    monkeypatch.setattr(type(tokenizer), "convert_ids_to_tokens", lambda *_: [])  # nothing that we ask of it
    assert saved_state(tokenizer) is not None
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: real() | {"more": 9999})
    assert saved_state(tokenizer) is None


def test_several_templates_are_kept_by_name() -> None:
    tokenizer = with_template(byte_level, "{{ messages[0].content }}")
    tokenizer.chat_template = {
        "default": "{{ messages[0].content }}",
        "tool_use": "T {{ messages[0].content }}",
    }
    saved = reread(tokenizer)
    assert ChatTemplate(saved).render([Message("user", "hi")]).text == "hi"


def test_cleaning_up_spaces_is_refused_rather_than_ignored() -> None:
    with pytest.raises(ValueError, match="never cleaned up"):
        reread(byte_level()).decode([1, 2], clean_up_tokenization_spaces=True)


def test_threads_that_want_special_tokens_as_such_and_split_do_not_disturb_each_other() -> None:
    saved = reread(FAST["byte-level BPE"]())
    special = next(str(token) for token in saved.added_tokens_decoder.values() if token.special)
    text = f"a {special} b " * 200
    expected = {split: saved(text, split_special_tokens=split).input_ids for split in (False, True)}
    assert expected[False] != expected[True]
    wrong: list[bool] = []

    def ask(split: bool) -> None:
        wrong.extend(
            split for _ in range(30) if saved(text, split_special_tokens=split).input_ids != expected[split]
        )

    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", FAST)
def test_prompts_go_on_behind_ids_the_same_way(name: str) -> None:
    tokenizer = FAST[name]()
    before, ids = tokenizer("one").input_ids, tokenizer("two").input_ids
    info = ModelInfo("fake", "/x", "llama", 10, 20, "float32", "cpu", 512, len(tokenizer), True)
    views = [TokenView(one, info) for one in (tokenizer, reread(tokenizer))]
    first, second = (view.joined(before, ids) for view in views)
    assert first == second
    starts = tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
    assert first.token_ids == (*before, *(ids[1:] if starts else ids))


def test_a_long_text_does_not_stop_other_threads() -> None:
    saved = reread(FAST["byte-level BPE"]())
    text = "naïve words, and more of them. " * 20_000
    ticks = [0]
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.001):
            ticks[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks[0]
    ids = saved(text).input_ids
    during = ticks[0] - before
    over.set()
    thread.join()
    assert len(ids) > 100_000 and during > 2
    assert saved.decode(ids) == text
