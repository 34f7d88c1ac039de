"""A vocabulary of any size that means nothing: what a tokenizer costs to load depends on its size, not on its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

__all__ = ["byte_vocabulary", "tokenizer_files"]

_BYTES = 256


def byte_vocabulary(size: int) -> tuple[list[str], list[str]]:
    """`size` tokens of a byte-level BPE, and the merges that make them: bytes, then pairs, then longer ones.

    Bytes are spelled with the 256 characters that GPT-2 chose for them, as every byte-level vocabulary does.
    """
    letters = _letters()
    tokens, merges = letters[:size], list[str]()
    for token in tokens:  # grows while it is read
        for letter in letters:
            if len(tokens) >= size:
                return tokens, merges
            tokens.append(token + letter)
            merges.append(f"{token} {letter}")
    return tokens, merges


def tokenizer_files(size: int) -> Mapping[str, str]:
    """Name and text of the files that a folder needs beside its weights."""
    tokens, merges = byte_vocabulary(size)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}),
    }


def _letters() -> list[str]:
    """The character of each byte: itself where it is printable, else one from 256 on, in order."""
    printable = set(chain(range(33, 127), range(161, 173), range(174, 256)))
    spare = iter(range(_BYTES, 2 * _BYTES))
    return [chr(byte if byte in printable else next(spare)) for byte in range(_BYTES)]
