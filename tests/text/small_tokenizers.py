"""Small real tokenizers of four families, trained on a few lines."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from fakes import ByteTokenizer

LINES = [
    "Hello world, how are you? I don't know. It's the user's own.",
    "the quick brown fox jumps over the lazy dog",
    "你好世界 こんにちは 🙂 👩‍👩‍👧 naïve café e\u0301",
    "def f(x):\n    return  x + 1\n",
    "<|im_start|> user assistant system tool <think> [INST] </s>",
] * 3

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
CONTROL = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen and GPT-2 have it: any text round-trips, a token may hold part of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in [*CONTROL, "<unused>"]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def byte_fallback() -> PreTrainedTokenizerFast:
    """BPE as Llama 2 has it: a space before the text, bytes for unknown characters, a begin token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=40,
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    described = json.loads(tokenizer.to_str())
    # the bytes are ordinary vocabulary; only training makes them special
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def unigram() -> PreTrainedTokenizerFast:
    """Unigram with Metaspace, as T5 has it. Its base vocabulary holds the special tokens as ordinary pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=160,
        special_tokens=["<unk>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=list("</>[]|"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece as BERT has it: spaces come from its decoder, and a token is put after the text, too."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


TOKENIZERS: dict[str, Callable[[], object]] = {
    "bytes": functools.cache(ByteTokenizer),
    "byte-level BPE": functools.cache(byte_level),
    "byte-fallback BPE": functools.cache(byte_fallback),
    "Unigram": functools.cache(unigram),
    "WordPiece": functools.cache(word_piece),
}


def with_template(make: Callable[[], PreTrainedTokenizerFast], template: object) -> PreTrainedTokenizerFast:
    """A tokenizer of its own that renders with `template`."""
    tokenizer = make()
    tokenizer.chat_template = template
    return tokenizer
