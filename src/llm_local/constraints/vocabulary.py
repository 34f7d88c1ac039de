"""A tokenizer as the grammar library needs it: the bytes of every id, and which ids end a reply."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLTokenizer, TokenizerWrapper

from llm_local.errors import UnsupportedTask

__all__ = ["Vocabulary", "make_vocabulary"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`size` is the model's, ids without a token included; `end_ids` are allowed exactly where the reply may end."""

    tokenizer: LLTokenizer
    size: int
    end_ids: frozenset[int]


def make_vocabulary(tokenizer: Any, vocab_size: int, end_token_ids: Collection[int]) -> Vocabulary:
    """Read a transformers tokenizer once; takes about a second for 150,000 tokens.

    Raises:
        UnsupportedTask: the model has no end token, so that no constrained reply could end.
    """
    num_tokens = len(tokenizer.get_vocab())
    ends = sorted(token_id for token_id in end_token_ids if token_id < min(num_tokens, vocab_size))
    if not ends:
        raise UnsupportedTask(
            "This model has no end token, so a constrained reply could not end.", param="constraint"
        )
    readers: tuple[Callable[[], LLTokenizer], ...] = (
        lambda: _from_backend(tokenizer, max(num_tokens, vocab_size), ends),
        lambda: _from_decoding(tokenizer, max(num_tokens, vocab_size), ends),
    )
    for number, read in enumerate(readers):
        try:
            return Vocabulary(read(), vocab_size, frozenset(ends))
        except (KeyboardInterrupt, SystemExit):
            raise
        except (
            BaseException
        ) as error:  # the library panics on vocabularies it does not know, and that is no Exception
            if number == len(readers) - 1:
                raise UnsupportedTask(
                    f"This model's tokenizer cannot be constrained: {error}.", param="constraint"
                ) from None
    raise RuntimeError("there is no way to read a tokenizer")


def _from_backend(tokenizer: Any, num_ids: int, ends: list[int]) -> LLTokenizer:
    """A fast tokenizer with a byte-level or byte-fallback vocabulary: the library reads its description."""
    backend = copy.copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return LLTokenizer(_without_control(backend.to_str()), n_vocab=num_ids, eos_token=ends)


def _without_control(described: str) -> str:
    """A tokenizer's description in which no text holds a control token.

    The library keeps special tokens, and all added ones that look like `<b>`, out of texts. But it also asks the
    tokenizer how a text that must come is spelled, and that answers with the very token. So these get names that no
    text has, and a text that looks like one is spelled with ordinary tokens.
    """
    tokenizer = json.loads(described)
    known, unknown = tokenizer["model"].get("vocab"), tokenizer["model"].get("unk_token")
    tokenizer["post_processor"] = None  # it may name them, and only adds what begins and ends a whole text
    for added in tokenizer["added_tokens"]:
        text = added["content"]
        if text == unknown or not (added["special"] or (text.startswith("<") and text.endswith(">"))):
            continue
        added |= {"content": f"<|{added['id']} {secrets.token_hex(8)}|>", "special": True}
        if isinstance(known, dict) and text in known:
            known[added["content"]] = known.pop(text)
    return json.dumps(tokenizer, ensure_ascii=False)


def _from_decoding(tokenizer: Any, num_ids: int, ends: list[int]) -> LLTokenizer:
    """Any other tokenizer, by what its ids decode to behind other text."""
    decoded = _Decoded(tokenizer, num_ids, ends)
    reader = LLTokenizer(TokenizerWrapper(decoded), eos_token=ends)
    decoded.encode = reader.greedy_tokenize
    return reader


class _Decoded:
    """What the library asks of a tokenizer. Ids whose bytes cannot be found out have none, and are never allowed."""

    bos_token_id = None

    def __init__(self, tokenizer: Any, num_ids: int, ends: list[int]) -> None:
        special = {token_id for token_id, added in tokenizer.added_tokens_decoder.items() if added.special}
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted(special.union(ends))
        self.encode: Callable[[str], Sequence[int]] = lambda text: []  # until the vocabulary is known
        known = frozenset(tokenizer.get_vocab().values()).difference(self.special_token_ids)
        before = tokenizer("a", add_special_tokens=False).input_ids[:1]
        prefix = _decode(tokenizer, before)
        self.tokens = [
            _whole(_decode(tokenizer, [*before, token_id]).removeprefix(prefix)) if token_id in known else b""
            for token_id in range(num_ids)
        ]
        for token_id, byte in _single_bytes(tokenizer):
            if token_id in known:
                self.tokens[token_id] = byte
        for token_id in self.special_token_ids:
            self.tokens[token_id] = f"<{token_id}>".encode()

    def __call__(self, text: str | bytes) -> Sequence[int]:
        """The longest token at each place: a text that must come is spelled so."""
        return self.encode(text if isinstance(text, str) else text.decode())


def _single_bytes(tokenizer: Any) -> Iterator[tuple[int, bytes]]:
    """Ids that are one byte of a character each, found by encoding characters that together have every such byte."""
    tails = [chr(code) for code in range(0x80, 0xC0)]
    two, three, four = (
        range(0xC0, 0x800, 0x40),
        (0x800, *range(0x1000, 0x10000, 0x1000)),
        (0x10000, 0x40000, 0x80000, 0xC0000, 0x100000),
    )
    for character in [*tails, *map(chr, (*two, *three, *four))]:
        encoded = character.encode()
        token_ids = tokenizer(character, add_special_tokens=False).input_ids
        parts = [_decode(tokenizer, [token_id]) for token_id in token_ids]
        if len(token_ids) == len(encoded) and all(_REPLACEMENT in part for part in parts):
            yield from zip(token_ids, (bytes([byte]) for byte in encoded), strict=True)


def _whole(text: str) -> bytes:
    return b"" if _REPLACEMENT in text else text.encode()


def _decode(tokenizer: Any, token_ids: list[int]) -> str:
    return str(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
