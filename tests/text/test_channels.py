"""Reasoning apart from answers: by family, in any pieces, closed or not."""

from __future__ import annotations

import random
import time

import pytest

from fakes import ByteTokenizer
from llm_local.text.channels import FAMILIES, ChannelSplitter, find_tags

THINK = next(tags for tags in FAMILIES if tags.opens == "<think>")
HARMONY = FAMILIES[0]
COHERE = next(tags for tags in FAMILIES if tags.opens == "<|START_THINKING|>")


def split(tags, pieces, **options):
    """Joined reasoning, joined answer."""
    splitter = ChannelSplitter(tags, **options)
    said = [one for piece in pieces for one in splitter.feed(piece)] + splitter.finish()
    assert all(text for _, text in said)
    return tuple(
        "".join(text for name, text in said if name == channel) for channel in ("reasoning", "content")
    )


CASES = [
    # tags, opened, text, reasoning, answer
    (THINK, False, "<think>\nI see.\n</think>\n\nYes.\n", "I see.", "Yes.\n"),
    (THINK, False, "\n <think>a</think>b", "a", "b"),
    (THINK, False, "  plain answer ", "", "  plain answer "),
    (THINK, False, "", "", ""),
    (THINK, False, " \n ", "", " \n "),
    (THINK, False, "<think>\n\n</think>\n\nYes", "", "Yes"),
    (THINK, False, "<think>never closed \n", "never closed \n", ""),
    (THINK, False, "<think>cut </thi", "cut </thi", ""),
    (
        THINK,
        False,
        "The tag <think> opens and </think> closes.",
        "",
        "The tag <think> opens and </think> closes.",
    ),
    (THINK, False, "<think>a <think> b</think>c", "a <think> b", "c"),
    (THINK, False, "<thi", "", "<thi"),
    (THINK, False, "<think>a</think> b <think>c</think>", "a", "b <think>c</think>"),
    (THINK, True, "I see.\n</think>\n\nYes.", "I see.", "Yes."),
    (THINK, True, "<think>\nrepeated</think>Yes", "repeated", "Yes"),
    (THINK, True, "never closed", "never closed", ""),
    (THINK, True, "</think>Yes", "", "Yes"),
    (
        HARMONY,
        False,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "Hm.",
        "Yes.",
    ),
    (
        HARMONY,
        False,
        "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>commentary<|message|>Look."
        "<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
        "AB",
        "Look.to=functions.f{}",
    ),
    (  # a call in the channel of reasoning
        HARMONY,
        False,
        "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis to=functions.f code<|message|>{}",
        "A",
        "to=functions.f code{}",
    ),
    (HARMONY, False, "<|channel|>final <|constrain|>json<|message|>{}<|return|>", "", "{}"),
    (
        HARMONY,
        False,
        "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}",
        "",
        " to=functions.f{}",
    ),
    (HARMONY, False, "<|channel|>final<|message|>Yes.", "", "Yes."),
    (COHERE, False, "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "a", "b"),
]


@pytest.mark.parametrize(("tags", "opened", "text", "reasoning", "answer"), CASES)
def test_reasoning_and_answer(tags, opened, text, reasoning, answer):
    assert split(tags, [text], opened=opened) == (reasoning, answer)
    assert split(tags, text, opened=opened) == (reasoning, answer)


@pytest.mark.parametrize("tags", FAMILIES, ids=lambda tags: tags.opens)
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_any_pieces_say_the_same(tags, opened, exact):
    """Random texts of tags, white space and words, whole, by character, and cut anywhere."""
    rng = random.Random(tags.opens)
    atoms = [*tags.strings, *" \n", "\n\n", "word", "é🙂", "<", tags.opens[:3], tags.closes[:-1]]
    for _ in range(150):
        text = "".join(rng.choices(atoms, k=rng.randint(0, 12)))
        whole = split(tags, [text], opened=opened, exact=exact)
        assert split(tags, text, opened=opened, exact=exact) == whole
        cuts = sorted(rng.choices(range(len(text) + 1), k=4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(tags, pieces, opened=opened, exact=exact) == whole


@pytest.mark.parametrize("tags", FAMILIES, ids=lambda tags: tags.opens)
def test_only_tags_and_the_space_around_them_are_left_out(tags):
    """Every other character is in one of the two, however often it comes."""
    rng = random.Random(tags.closes)
    for _ in range(200):
        text = "".join(rng.choices([*tags.strings, "a", "b ", "\nc", "<"], k=rng.randint(0, 10)))
        bare, said = text, "".join(split(tags, [text]))
        for one in sorted(tags.strings, key=len, reverse=True):
            bare, said = bare.replace(one, ""), said.replace(one, "")
        assert sorted(said.replace(" ", "").replace("\n", "")) == sorted(
            bare.replace(" ", "").replace("\n", "")
        )


def test_an_exact_answer_keeps_its_white_space():
    """What a constraint promised is not trimmed."""
    assert split(THINK, ["<think>a</think>  b "], exact=True) == ("a", "  b ")
    assert split(THINK, ["  b "], exact=True) == ("", "  b ")


@pytest.mark.parametrize(
    ("source", "tokens", "opens"),
    [
        ("{{ content.split('</think>')[-1] }}<think>\n", (), "<think>"),
        ("{{ content.split('</think>')[-1] }}", ("<think>", "</think>"), "<think>"),
        ("{{ messages }}", ("<think>", "</think>", "<|im_end|>"), "<think>"),
        ("[THINK]{{ x }}[/THINK]", (), "[THINK]"),
        ("<|channel|>analysis<|message|>{{ x }}<|end|>", (), "<|channel|>analysis<|message|>"),
        ("<|START_THINKING|>{{ x }}<|END_THINKING|>", (), "<|START_THINKING|>"),
        ("<|channel>thought\n<channel|>", (), "<|channel>thought"),
        ("Here is my thought process: ... Here is my response:", (), "Here is my thought process:"),
    ],
)
def test_the_template_or_the_vocabulary_names_the_family(source, tokens, opens):
    assert find_tags(source, tokens).opens == opens


def test_a_model_without_tags_has_no_reasoning():
    assert find_tags("<|im_start|>{{ messages }}<|im_end|>", ("<|im_end|>", "<think>")) is None
    assert find_tags("", ByteTokenizer.added_tokens_decoder) is None


@pytest.mark.parametrize("tags", [THINK, HARMONY], ids=lambda tags: tags.opens)
@pytest.mark.parametrize("opened", [False, True])
def test_a_megabyte_of_garbage_takes_linear_time(tags, opened):
    """Tags, halves of tags and white space without end: each character is looked at a bounded number of times."""
    for unit in (tags.opens, tags.closes, tags.opens[:-1], "<", " ", "\n a"):
        text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
        began = time.process_time()
        split(tags, [text[i : i + 1000] for i in range(0, len(text), 1000)], opened=opened)
        assert time.process_time() - began < 6
