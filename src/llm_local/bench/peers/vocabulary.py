"""A vocabulary of any size that means nothing: what a tokenizer costs to load depends on its size, not on its words."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

__all__ = ["WordTokenizer", "byte_vocabulary", "tokenizer_files", "word_vocabulary"]

_BYTES: Final = 256
_FIRST_SIGN: Final = 33  # of ASCII, behind the space
_BEHIND_SIGNS: Final = 127
_LETTERS: Final = "eeeeeeeetttttaaaaaoooooiiiiinnnnnsssshhhhrrrrddlllcuumwfgypbvkjxqz"
_ABOVE_ASCII: Final = "äöüéèñçабвгдежиклмнопрст的一是不了人我在有他你好世界"
_SIGNS: Final = "0123456789.,:;()[]{}\"'=+-*/<>_ \n\t"


def byte_vocabulary(size: int) -> tuple[list[str], list[str]]:
    """`size` tokens of a byte-level BPE, and the merges that make them: bytes, then pairs, then longer ones.

    Bytes are spelled with the 256 characters that GPT-2 chose for them, as every byte-level vocabulary does. All that
    is longer is plain ASCII: programs that stream text hold bytes back that are no whole character, and tokens drawn
    from random weights would hardly ever complete one.
    """
    letters = _letters()
    tokens, merges = letters[:size], list[str]()
    readable = letters[_FIRST_SIGN:_BEHIND_SIGNS]
    for token in chain(readable, itertools.islice(tokens, _BYTES, None)):  # grows while it is read
        for letter in readable:
            if len(tokens) >= size:
                return tokens, merges
            tokens.append(token + letter)
            merges.append(f"{token} {letter}")
    return tokens, merges


def word_vocabulary(size: int) -> list[str]:
    """`size` tokens, spelled as in a byte-level BPE, of the lengths and kinds that trained ones have.

    After the bytes: words with a space before them or none, some capitalized, some of letters above ASCII, and runs of
    signs and digits. Always the same for a size.
    """
    letters, draw = _letters(), random.Random(size)  # noqa: S311  (nothing is kept secret)
    spelled = dict(zip(range(_BYTES), letters, strict=True))
    tokens = dict.fromkeys(letters[:size])
    while len(tokens) < size:
        kind = draw.random()
        alphabet = _LETTERS if kind < 0.8 else _ABOVE_ASCII if kind < 0.92 else _SIGNS
        word = "".join(draw.choices(alphabet, k=1 + min(int(draw.expovariate(0.2)), 15)))
        word = word.capitalize() if draw.random() < 0.2 else word
        text = f" {word}" if draw.random() < 0.5 else word
        tokens["".join(spelled[byte] for byte in text.encode())] = None
    return list(tokens)


class WordTokenizer:
    """What a constraint asks of a tokenizer, over `word_vocabulary`. Its last token is the one that ends a reply."""

    added_tokens_decoder: Mapping[int, Any] = {}

    def __init__(self, size: int) -> None:
        self._vocabulary = {token: number for number, token in enumerate(word_vocabulary(size))}
        self.backend_tokenizer = self

    def get_vocab(self) -> Mapping[str, int]:
        """The id of each token."""
        return self._vocabulary

    def no_padding(self) -> None:
        """Nothing is padded."""

    def no_truncation(self) -> None:
        """Nothing is cut."""

    def to_str(self) -> str:
        """The description of a fast tokenizer."""
        return json.dumps(_described(self._vocabulary, []), ensure_ascii=False)


def tokenizer_files(size: int) -> Mapping[str, str]:
    """Name and text of the files that a folder needs beside its weights."""
    tokens, merges = byte_vocabulary(size)
    tokenizer = _described({token: number for number, token in enumerate(tokens)}, merges)
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}),
    }


def _described(vocabulary: Mapping[str, int], merges: list[str]) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def _letters() -> list[str]:
    """The character of each byte: itself where it is printable, else one from 256 on, in order."""
    printable = set(chain(range(33, 127), range(161, 173), range(174, 256)))
    spare = iter(range(_BYTES, 2 * _BYTES))
    return [chr(byte if byte in printable else next(spare)) for byte in range(_BYTES)]
