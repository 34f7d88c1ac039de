"""Laws of masks: any model that follows one keeps the constraint, and only the right tokens are ever allowed."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from constraints.sampling_models import RandomModel
from constraints.schema_generator import make_schema
from fakes import ByteTokenizer
from llm_local import starter
from llm_local.errors import InvalidRequest, UnsupportedTask
from llm_local.options import Constraint
from text.small_tokenizers import TOKENIZERS, byte_fallback, byte_level, unigram

SCHEMAS = [make_schema(seed) for seed in range(200)]


@functools.cache
def model(name: str) -> RandomModel:
    if name == "bytes":
        return RandomModel(ByteTokenizer(), 260, [256])  # three ids of padding
    return RandomModel(AutoTokenizer.from_pretrained(starter.__path__[0]), 2048, [2, 0])


def check(schema: dict, text: str) -> None:
    value = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("name", ["bytes", "starter"])
def test_any_reply_under_a_bounded_schema_ends_and_is_valid(name: str) -> None:
    for seed, schema in enumerate(SCHEMAS):
        reply = model(name).reply(Constraint("json_schema", schema), seed, max_new=3000)
        assert reply.ended, (seed, schema)
        check(schema, reply.text)


@pytest.mark.parametrize("name", ["bytes", "starter"])
def test_a_batch_of_eight_gives_what_each_gives_alone(name: str) -> None:
    jobs = [(Constraint("json_schema", schema), seed) for seed, schema in enumerate(SCHEMAS)]
    for start in range(0, len(jobs), 8):
        group = jobs[start : start + 8]
        together = model(name).replies(group, 3000)
        assert together == [model(name).reply(*job, 3000) for job in group]


def test_sequences_under_one_constraint_do_not_disturb_each_other() -> None:
    constraint = Constraint("json_schema", SCHEMAS[0])
    together = model("starter").replies([(constraint, seed) for seed in range(8)], 3000)
    assert together == [model("starter").reply(constraint, seed, 3000) for seed in range(8)]


def test_json_mode_gives_an_object() -> None:
    ended = 0
    for seed in range(30):
        reply = model("starter").reply(Constraint("json"), seed, max_new=600)
        assert reply.text.startswith("{")
        if reply.ended:
            ended += 1
            assert isinstance(json.loads(reply.text), dict)
    assert ended > 5


@pytest.mark.parametrize("wanted", ["space", "digit", "first", "last"])
def test_a_bounded_schema_ends_even_for_a_model_that_wants_one_thing_only(wanted: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "number"},
            "i": {"type": "integer"},
            "l": {"type": "array", "maxItems": 2},
        },
        "required": ["n", "i", "l"],
    }
    schema["properties"]["l"]["items"] = {"type": "boolean"}
    favorites = set({"space": b" \n", "digit": b"0123456789.e"}.get(wanted, b""))
    mask = model("bytes").compiler.mask(Constraint("json_schema", schema))
    text = bytearray()
    for _ in range(400):
        choices = np.flatnonzero(np.asarray(mask.allowed()) == 0).tolist()
        wishes = [token_id for token_id in choices if token_id in favorites] or choices
        token_id = wishes[-1 if wanted == "last" else 0]
        mask.accept(token_id)
        if token_id == 256:
            break
        text.append(token_id)
    else:
        pytest.fail(f"no end after {bytes(text)!r}")
    check(schema, text.decode())


@pytest.mark.parametrize("wanted", [b"9e", b"e+9", b"-e-9", b"1E0"])
@pytest.mark.parametrize("name", ["bytes", "starter"])
def test_no_number_is_too_large_for_who_reads_it(name: str, wanted: bytes) -> None:
    """1e999 is JSON, and infinity to all that read it."""
    one = model(name)
    mask = one.compiler.mask(
        Constraint(
            "json_schema", {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
        )
    )
    vocabulary = one.compiler._known_vocabulary().tokenizer
    taken: list[int] = []
    for _ in range(200):
        choices = np.flatnonzero(np.asarray(mask.allowed()) == 0).tolist()
        # the longest digits after e, else what comes first in `wanted`
        ranked = sorted(choices, key=lambda token_id: _wish(vocabulary.decode_bytes([token_id]), wanted))
        taken.append(ranked[0])
        mask.accept(ranked[0])
        if ranked[0] in one.end_ids:
            break
    values = json.loads(one.text([token_id for token_id in taken if token_id not in one.end_ids]))
    assert len(values) >= 2
    assert all(math.isfinite(value) for value in values)


def _wish(token: bytes, wanted: bytes) -> tuple[int, int]:
    known = bool(token) and all(byte in wanted for byte in token)
    place = wanted.rfind(token[-1:]) if known else -1
    return (-place, -len(token)) if known else (1, len(token))


def test_no_number_outside_of_its_bounds_is_let_through() -> None:
    """Every pair of bounds, inclusive or not, alone and in parts; and what is let through is not nothing."""
    bounds, numbers = (
        (-1, -0.5, 0, 0.5, 1.0, 861, 861.5),
        ("-1", "-0.7", "-0", "0.0", "0.2", "1", "861", "861.25"),
    )
    let_through = 0
    for low, high in itertools.combinations(bounds, 2):
        for lowest, highest in itertools.product(
            ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
        ):
            for schema in (
                {"type": "number", lowest: low, highest: high},
                {"allOf": [{"type": "number", lowest: low}, {highest: high}]},
            ):
                for number in numbers:
                    if spells(Constraint("json_schema", schema), number):
                        check(schema, number)
                        let_through += 1
    assert let_through > 400
    integers = {"allOf": [{"type": "integer", "exclusiveMinimum": 3}, {"maximum": 9}]}
    assert [n for n in range(12) if spells(Constraint("json_schema", integers), str(n))] == [4, 5, 6, 7, 8, 9]


def spells(constraint: Constraint, text: str) -> bool:
    """True when a mask lets `text` through as a whole."""
    mask = model("bytes").compiler.mask(constraint)
    for byte in text.encode():
        if np.asarray(mask.allowed())[byte] != 0:
            return False
        mask.accept(byte)
    return bool(np.asarray(mask.allowed())[256] == 0)


def test_names_in_other_spellings_cannot_slip_past_a_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": {"type": "string"},
    }
    mask = model("bytes").compiler.mask(Constraint("json_schema", schema))
    for byte in b'{"\\':
        assert mask.allowed()[byte] == 0
        mask.accept(byte)
    assert mask.allowed()[ord("u")] != 0


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_every_family_of_tokenizers_keeps_a_choice(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    end = tokenizer.get_vocab().get(getattr(tokenizer, "eos_token", None) or "[SEP]", 256)
    any_model = RandomModel(tokenizer, len(tokenizer.get_vocab()) + 5, [end])
    choices = ("the dog", "dogs", "hello")
    before = tokenizer("a", add_special_tokens=False).input_ids
    for seed in range(12):
        reply = any_model.reply(Constraint("choice", choices), seed)
        assert reply.ended
        # behind other text, as a reply is: a decoder may drop the space before a first word
        whole = any_model.text([*before, *reply.token_ids])
        assert whole.removeprefix(any_model.text(before)) in choices


@pytest.mark.parametrize("name", ["byte-level BPE", "byte-fallback BPE", "bytes"])
def test_bytes_spell_what_the_vocabulary_has_no_token_for(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    end = tokenizer.get_vocab().get(getattr(tokenizer, "eos_token", None), 256)
    any_model = RandomModel(tokenizer, len(tokenizer.get_vocab()), [end])
    assert any_model.reply(Constraint("choice", ("龘ÿ𝄞",)), 3).text == "龘ÿ𝄞"


def test_special_tokens_and_padding_are_never_allowed() -> None:
    tokenizer = model("starter").tokenizer
    special = [token_id for token_id, added in tokenizer.added_tokens_decoder.items() if added.special]
    forbidden = [*special, *range(len(tokenizer), 2048)]
    mask = model("starter").compiler.mask(Constraint("regex", "(?s).+"))
    allowed = np.asarray(mask.allowed()) == 0
    assert allowed.dtype == np.bool_
    assert allowed.shape == (2048,)
    assert not allowed[forbidden].any()


@pytest.mark.parametrize("make", [byte_level, byte_fallback, unigram])
def test_a_text_that_looks_like_a_token_is_spelled_with_others(make) -> None:
    """Ordinary added tokens that look like tags, and special ones: none is forced, allowed, or refused once sampled."""
    tokenizer = make()
    tags = ["<b>", "<arg key>"]
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    any_model = RandomModel(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    before = tokenizer("a", add_special_tokens=False).input_ids
    texts = ["a<b>b", "<b>", "<arg key>!", "a<|im_start|>b", "</s>", "<think>x</think>"]
    for text in [one for one in texts if make is not unigram or "!" not in one]:
        reply = any_model.reply(Constraint("choice", (text,)), 1)
        whole = any_model.text([*before, *reply.token_ids])
        assert whole.removeprefix(any_model.text(before)) == text
        assert not set(reply.token_ids) & set(tokenizer.all_special_ids)
    for seed in range(20):
        regex = Constraint("regex", r"(<b>|a|<arg key>| |<think>|<\|im_end\|>){1,10}")
        assert any_model.reply(regex, seed).ended


def test_every_end_token_is_allowed_exactly_where_the_reply_may_end() -> None:
    tokenizer = model("starter").tokenizer
    mask = model("starter").compiler.mask(Constraint("choice", ("a", "ab")))
    seen = []
    for letter in "ab":
        seen.append((np.asarray(mask.allowed()) == 0)[[2, 0]].tolist())
        mask.accept(tokenizer(letter).input_ids[0])
    seen.append((np.asarray(mask.allowed()) == 0)[[2, 0]].tolist())
    assert seen == [[False, False], [True, True], [True, True]]
    assert np.flatnonzero(np.asarray(mask.allowed()) == 0).tolist() == [0, 2]
    mask.accept(0)


def test_a_vocabulary_wider_than_the_model_is_cut() -> None:
    narrow = RandomModel(ByteTokenizer(), 200, [10])
    mask = narrow.compiler.mask(Constraint("regex", "[a-z]+"))
    assert (np.asarray(mask.allowed()) == 0).shape == (200,)


def test_a_model_without_an_end_token_takes_no_constraint() -> None:
    for ends in ([], [300]):
        with pytest.raises(UnsupportedTask, match="no end token"):
            RandomModel(ByteTokenizer(), 400, ends).compiler.mask(Constraint("json"))


def test_a_grammar_that_grows_without_bound_fails_only_its_own_sequence() -> None:
    compiler = model("bytes").compiler
    # a new state of the regex for nearly every text, more than are allowed
    bad = compiler.mask(Constraint("regex", "(a|b)*a(a|b){1000}c"))
    good = compiler.mask(Constraint("regex", "[ab]+"))
    draw = random.Random(1)
    with pytest.raises(InvalidRequest, match="could not be followed"):
        for _ in range(60_000):
            token_id = draw.choice(b"ab")
            assert bad.allowed()[token_id] == 0
            bad.accept(token_id)
    good.accept(ord("a"))
    assert good.allowed()[ord("b")] == 0
    again = compiler.mask(Constraint("regex", "(a|b)*a(a|b){1000}c"))
    assert again.allowed()[ord("a")] == 0


def test_masks_may_be_made_from_many_threads() -> None:
    compiler = RandomModel(ByteTokenizer(), 257, [256])
    constraints = [Constraint("json_schema", SCHEMAS[number % 10]) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda pair: compiler.reply(pair[1], pair[0], 3000), enumerate(constraints)))
    for number, reply in enumerate(replies):
        check(SCHEMAS[number % 10], reply.text)
