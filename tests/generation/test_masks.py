"""The mask of a request of another family than the starter's: channels as gpt-oss has them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm_local.errors import InvalidRequest
from llm_local.generation.masks import RequestMasks
from llm_local.messages import ToolDefinition
from llm_local.options import Constraint, GenerationOptions
from llm_local.text.reply_format import ReplyFormat
from llm_local.text.templates import ChatTemplate
from text.test_reply_format import REPLIES, made

TOOL = ToolDefinition("ping", "", {"type": "object", "additionalProperties": False})


def masks_for(name):
    template, special, *_ = REPLIES[name]
    tokenizer = made(template, special)
    loaded = SimpleNamespace(
        tokenizer=tokenizer,
        info=SimpleNamespace(vocab_size=len(tokenizer)),
        end_token_ids=frozenset({tokenizer.eos_token_id}),
    )
    chat = ChatTemplate(tokenizer)
    return tokenizer, RequestMasks(loaded, chat, ReplyFormat(tokenizer, chat))


def allowed(mask):
    values = np.asarray(mask.allowed())
    return set(np.flatnonzero(values if values.dtype == np.bool_ else values == 0).tolist())


def test_a_constrained_answer_comes_in_its_channel():
    """The model reasons in one channel, as it always does, and answers in the other, which the mask opens."""
    tokenizer, masks = masks_for("harmony")
    options = GenerationOptions(constraint=Constraint("regex", "[0-9]"))
    mask = masks.mask("<|start|>assistant", options, [], raw=False)
    forced = tokenizer("<|channel|>analysis<|message|>", add_special_tokens=False).input_ids
    thought = tokenizer("Hm<|end|>", add_special_tokens=False).input_ids
    header = tokenizer("<|start|>assistant<|channel|>final<|message|>", add_special_tokens=False).input_ids
    for token_id in forced:
        assert allowed(mask) == {token_id}
        mask.accept(token_id)
    for token_id in thought:
        assert tokenizer.eos_token_id not in allowed(mask)
        assert len(allowed(mask)) == len(tokenizer) - 1
        mask.accept(token_id)
    for token_id in header:
        assert allowed(mask) == {token_id}
        mask.accept(token_id)
    assert {tokenizer.decode([token_id]) for token_id in allowed(mask)} == set("0123456789")


def test_calls_that_cannot_be_forced_are_refused_by_name():
    """Of a format that says nothing of how: one that a plug-in brings, say."""
    _, masks = masks_for("gemma4")
    masks._reply.tools = dataclasses.replace(masks._reply.tools, envelope=None)
    with pytest.raises(InvalidRequest, match="cannot be forced") as caught:
        masks.mask("", GenerationOptions(tool_choice="required"), [TOOL], raw=False)
    assert caught.value.param == "tool_choice"
    with pytest.raises(InvalidRequest, match="no constraint can be kept") as caught:
        masks.mask("", GenerationOptions(constraint=Constraint("json")), [TOOL], raw=False)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("name", ["mistral", "mistral-named", "granite", "llama", "cohere"])
def test_a_forced_call_begins_with_the_familys_own_token(name):
    """Special tokens are forced as tokens, then the call is spelled by the grammar to its end."""
    tokenizer, masks = masks_for(name)
    mask = masks.mask("", GenerationOptions(tool_choice="ping"), [TOOL], raw=False)
    tags = ChatTemplate(tokenizer).tags
    never = {tokenizer.eos_token_id, *([] if tags is None else tokenizer(tags.opens).input_ids[:1])}
    ids = []
    for _ in range(200):
        choices = allowed(mask)
        if choices <= never:
            break
        ids.append(min(choices - never))
        mask.accept(ids[-1])
    assert choices == {tokenizer.eos_token_id}, "the call ends by itself"
    assert '"ping"' in tokenizer.decode(ids, skip_special_tokens=False)
    assert (ids[0] in tokenizer.all_special_ids) == (name != "llama")


def test_an_answer_cannot_begin_inside_of_the_token_that_ends_the_reasoning():
    """Where tags are ordinary text, `>` and what follows may be one token: none of these is let through."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    words.train_from_iterator(['k>{"a', "k>\n\n", "k>1"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n</think>"
    chat = ChatTemplate(tokenizer)
    loaded = SimpleNamespace(
        tokenizer=tokenizer, info=SimpleNamespace(vocab_size=len(tokenizer)), end_token_ids=frozenset({0})
    )
    masks = RequestMasks(loaded, chat, ReplyFormat(tokenizer, chat))
    pieces = {token_id: tokenizer.decode([token_id]) for token_id in range(len(tokenizer))}
    options = GenerationOptions(constraint=Constraint("json"))
    assert {"k>1", 'k>{"a'} <= set(pieces.values())
    for there in range(len("</think>")):
        mask = masks.mask("<think>\n", options, [], raw=False)
        for token_id in tokenizer("</think>"[:there]).input_ids:
            mask.accept(token_id)
        rest = "</think>"[there:]
        for token_id in allowed(mask):
            text = pieces[token_id]
            assert not (text.startswith(rest) and text != rest), text
            assert "</think>" not in text or text.endswith("</think>")
