"""The bytes of tokens are those of the text they came from, whatever the tokenizer calls them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.loaders.saved_tokenizer import SavedTokenizer, saved_state
from llm_local.text.token_bytes import TokenBytes
from text.small_tokenizers import TOKENIZERS

TEXTS = ["Hello world, how are you?", "naïve café 你好 🙂 ☃ \x00", "  two  spaces\nand\ttabs", "ꙮ𝄞"]
REAL = {name: make for name, make in TOKENIZERS.items() if name != "bytes"}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("text", TEXTS)
def test_joined_they_are_the_text(name: str, text: str) -> None:
    tokenizer: Any = REAL[name]()
    token_ids = tokenizer(text, add_special_tokens=False).input_ids
    token_bytes = TokenBytes(tokenizer)
    special = set(tokenizer.all_special_ids)  # of characters that the tokenizer does not know
    joined = b"".join(token_bytes(token_id) for token_id in token_ids if token_id not in special).decode()
    expected = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert joined in (expected, " " + expected)


@pytest.mark.parametrize("name", REAL)
def test_special_tokens_are_their_names_and_unknown_ids_are_empty(name: str) -> None:
    tokenizer: Any = REAL[name]()
    token_bytes = TokenBytes(tokenizer)
    for token_id, token in tokenizer.added_tokens_decoder.items():
        assert token_bytes(token_id) == str(token).encode()
    assert token_bytes(10_000_000) == b""


def test_parts_of_a_character() -> None:
    tokenizer: Any = TOKENIZERS["byte-level BPE"]()
    token_bytes = TokenBytes(tokenizer)
    token_ids = tokenizer("ꙮ", add_special_tokens=False).input_ids
    assert [token_bytes(token_id) for token_id in token_ids] == [bytes([byte]) for byte in "ꙮ".encode()]


@pytest.mark.parametrize("name", REAL)
def test_a_kept_tokenizer_has_the_same(name: str) -> None:
    tokenizer: Any = REAL[name]()
    state = saved_state(tokenizer)
    assert state is not None
    real, kept = TokenBytes(tokenizer), TokenBytes(SavedTokenizer(state))
    for token_id in range(len(tokenizer)):
        assert kept(token_id) == real(token_id)


def test_a_tokenizer_of_bytes() -> None:
    token_bytes = TokenBytes(TOKENIZERS["bytes"]())
    assert [token_bytes(ord(character)) for character in "Hi"] == [b"H", b"i"]
