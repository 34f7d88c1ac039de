"""The bytes of single tokens: what log-probabilities are shown with, since a token may be part of a character."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["TokenBytes"]

_SAMPLE: Final = "é ☃"  # characters of two and three bytes, and a space
_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class TokenBytes:
    """Calls like a function: `token_bytes(token_id)`. Special tokens are their names, unknown ids are empty.

    Joined over a reply they are its text, but for special tokens and for a space that some tokenizers put where a text
    begins.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {token_id: str(token).encode() for token_id, token in added.items()}
        self._names = {token_id: name for name, token_id in tokenizer.get_vocab().items()}
        self._found: dict[int, bytes] = {}
        self._alphabet = _byte_alphabet()
        self._byte_level = self._is_byte_level()
        # behind other text: alone, some tokenizers drop the space of a token
        self._anchor = list(tokenizer("a", add_special_tokens=False).input_ids)
        self._anchor_text = self._decode(self._anchor)

    def __call__(self, token_id: int) -> bytes:
        """The bytes of one token."""
        found = self._found.get(token_id)
        if found is None:
            found = self._found[token_id] = self._find(token_id)
        return found

    def _find(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id]
        token = self._names.get(token_id)
        if token is None:
            return b""
        if self._byte_level and all(character in self._alphabet for character in token):
            return bytes(self._alphabet[character] for character in token)
        if byte := _BYTE.fullmatch(token):
            return bytes([int(byte[1], 16)])
        text = self._decode([*self._anchor, token_id]).removeprefix(self._anchor_text)
        return token.encode() if _REPLACEMENT in text else text.encode()

    def _is_byte_level(self) -> bool:
        """Whether names of tokens are made of one character for each byte."""
        token_ids = self._tokenizer(_SAMPLE, add_special_tokens=False).input_ids
        characters = "".join(self._names.get(token_id, "\0") for token_id in token_ids)
        if not all(character in self._alphabet for character in characters):
            return False
        return (
            bytes(map(self._alphabet.__getitem__, characters)).decode("utf-8", "replace").strip() == _SAMPLE
        )

    def _decode(self, token_ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in the names of byte-level tokens (Radford et al. 2019, GPT-2).

    Printable bytes stand for themselves, all others in order for what comes from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(0x100 + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted
