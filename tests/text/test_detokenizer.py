"""Token by token must read as all at once, and never show half a character."""

from __future__ import annotations

import random

import pytest

from fakes import ByteTokenizer
from llm_local.text.detokenizer import Detokenizer
from text.small_tokenizers import TOKENIZERS

ATOMS = [
    *("a", "Hello", "fox", "##ing", "n't", "'s", " don't", " .", ".", "?", "▁", "<0x41>", "<think>"),
    *(" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u200b", "\x00", "\ufeff"),
    *("é", "ÿ", "ß", "你", "好", "こん", "한", "a\u0301", "\u0301", "\u0300\u0301", "नि"),
    *("🙂", "👩‍👩‍👧", "👍🏽", "🇩🇪", "\u200d", "\ufe0f", "\ufffd", "\U0010ffff", "\ue000"),
]


@pytest.fixture(params=TOKENIZERS)
def name(request):
    return request.param


def random_text(rng):
    return "".join(rng.choices(ATOMS, k=rng.randint(0, 12)))


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def deltas(tokenizer, ids):
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.feed(token_id) for token_id in ids), detokenizer.finish()]


def test_joined_deltas_are_the_whole_text(name):
    """For texts in many scripts, with spaces, joiners and marks anywhere: joined == decode(all ids)."""
    tokenizer, rng = TOKENIZERS[name](), random.Random(1)
    for _ in range(400):
        ids = encode(tokenizer, random_text(rng))
        assert "".join(deltas(tokenizer, ids)) == decode(tokenizer, ids)


@pytest.mark.parametrize("other", [other for other in TOKENIZERS if other != "byte-fallback BPE"])
def test_joined_deltas_are_the_whole_text_for_any_ids(other):
    """Also for ids in an order no text has: broken characters, special tokens, unknown ones."""
    tokenizer, rng = TOKENIZERS[other](), random.Random(2)
    for _ in range(400):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(0, 14))]
        assert "".join(deltas(tokenizer, ids)) == decode(tokenizer, ids)


def test_byte_fallback_never_loses_a_character_to_a_broken_neighbor():
    """One broken byte makes this decoder blank the whole run of bytes around it, when asked for all at once.

    A character that is out stays out, so streaming shows at least what the whole shows.
    """
    tokenizer, rng = TOKENIZERS["byte-fallback BPE"](), random.Random(3)
    for _ in range(400):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(0, 14))]
        shown = iter("".join(deltas(tokenizer, ids)))
        assert all(char in shown for char in decode(tokenizer, ids).replace("\ufffd", ""))
    ids = tokenizer.convert_tokens_to_ids(["<0xE4>", "<0xBD>", "<0xA0>", "<0xE5>"])
    assert "".join(deltas(tokenizer, ids)).startswith("你")


def test_every_delta_is_final(name):
    """What is out is a beginning of the whole at every moment: no replacement character to be taken back."""
    tokenizer, rng = TOKENIZERS[name](), random.Random(4)
    for _ in range(150):
        ids = encode(tokenizer, random_text(rng))
        whole, shown = decode(tokenizer, ids), ""
        for delta in deltas(tokenizer, ids):
            shown += delta
            assert whole.startswith(shown)


def test_byte_by_byte_shows_each_character_as_soon_as_it_is_complete():
    """After every byte exactly the complete characters are out: not half a one, and none late."""
    rng = random.Random(5)
    for _ in range(200):
        text = random_text(rng).replace("\ufffd", "")
        detokenizer, shown = Detokenizer(ByteTokenizer()), ""
        data = text.encode()
        for end, byte in enumerate(data, start=1):
            shown += detokenizer.feed(byte)
            assert shown == data[:end].decode(errors="ignore")
        assert detokenizer.finish() == ""


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_cut_off_by_the_end_is_a_replacement_character(cut):
    """The reply may end inside a character: finish shows what decoding shows, and only then."""
    data = "a🙂".encode()[: 1 + cut]
    assert deltas(ByteTokenizer(), list(data)) == ["a", *[""] * cut, "\ufffd"]


def test_a_real_replacement_character_comes_through():
    """U+FFFD that the model did say is text like any other, at the end and in the middle."""
    for text in ("\ufffd", "a\ufffdb", "\ufffd\ufffdé\ufffd"):
        assert "".join(deltas(ByteTokenizer(), list(text.encode()))) == text


@pytest.mark.parametrize(
    ("name", "ids_text", "special"),
    [("byte-level BPE", "Hello 你", "<|im_end|>"), ("byte-fallback BPE", "Hello 你", "</s>")],
)
def test_special_tokens_are_silent_wherever_they_come(name, ids_text, special):
    """They make no text and do not disturb what is held around them, a leading space least of all."""
    tokenizer = TOKENIZERS[name]()
    ids, mark = encode(tokenizer, ids_text), tokenizer.convert_tokens_to_ids(special)
    for place in range(len(ids) + 1):
        mixed = [*ids[:place], mark, *ids[place:]]
        assert "".join(deltas(tokenizer, mixed)) == decode(tokenizer, mixed)


def test_the_window_stays_short(name):
    """However long the reply, each step decodes a handful of ids: the work per token does not grow."""
    tokenizer, longest = TOKENIZERS[name](), 0

    class Watched:
        def decode(self, token_ids, **options):
            nonlocal longest
            longest = max(longest, len(token_ids))
            return tokenizer.decode(token_ids, **options)

    ids = encode(tokenizer, "the quick brown fox 你好 🙂 don't. " * 40)
    assert len(ids) > 300
    assert "".join(deltas(Watched(), ids)) == decode(tokenizer, ids)
    assert longest <= 24


def test_nothing_in_nothing_out(name):
    """No ids, no text."""
    assert deltas(TOKENIZERS[name](), []) == [""]
