"""Regexes, choices and grammars: what a random model writes under them, and what is refused."""

from __future__ import annotations

import functools
import json
import re

import pytest

from constraints.sampling_models import RandomModel
from fakes import ByteTokenizer
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint


@functools.cache
def bytes_model() -> RandomModel:
    return RandomModel(ByteTokenizer(), 257, [256])


REGEXES = [
    r"[a-z]{3,8}( [A-Z]{2})?",
    r"(yes|no|maybe)!",
    r"\$[0-9]{1,3}\.[0-9]{2}",
    r"^(a|b)*a(a|b){5}$",
    r"[äöü]{2,4}🙂?",
    r"(?i)hello",
    r"a/b\\c\"d",
    r"(a+)+b",
    r"\n?x",
]


@pytest.mark.parametrize("regex", REGEXES)
def test_a_regex_is_matched_as_a_whole(regex: str) -> None:
    for seed in range(5):
        reply = bytes_model().reply(Constraint("regex", regex), seed)
        assert reply.ended
        assert re.fullmatch(regex, reply.text)


@pytest.mark.parametrize(
    "regex", ["(?=a)b", r"(a)\1", "a$b", r"\bx", "(", "[^\\s\\S]", "x{20000}", "(?P<a", "a\\", "\\\\\\"]
)
def test_a_regex_that_cannot_be_kept_is_refused(regex: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bytes_model().compiler.mask(Constraint("regex", regex))
    assert caught.value.param == "constraint"


def test_a_choice_is_exactly_one_of_the_texts() -> None:
    choices = (
        "yes",
        "yes, please",
        "no.",
        "a|b",
        "(.*)",
        "größe 🙂",
        'q"\\',
        "two\nlines",
        "[x]{2}",
        "<|im_end|>",
        " ",
    )
    replies = [bytes_model().reply(Constraint("choice", choices), seed) for seed in range(80)]
    assert all(reply.ended for reply in replies)
    assert {reply.text for reply in replies} == set(choices)


GBNF_LIST = """
# a list of small sums
root ::= item ("," ws item){0,3}
item ::= number op number
op   ::= [-+*/]
number ::= [1-9] [0-9]{0,2}
ws ::= " "?
"""
LARK_LIST = """
start: item ("," WS? item){0,3}
item: NUMBER OP NUMBER
OP: /[-+*\\/]/
NUMBER: /[1-9][0-9]{0,2}/
WS: " "
"""


@pytest.mark.parametrize(
    ("kind", "text"),
    [("gbnf", GBNF_LIST), ("lark", LARK_LIST), ("grammar", GBNF_LIST), ("grammar", LARK_LIST)],
)
def test_both_grammar_syntaxes_are_kept_named_or_found_out(kind: str, text: str) -> None:
    for seed in range(10):
        reply = bytes_model().reply(Constraint(kind, text), seed)
        assert reply.ended
        assert re.fullmatch(
            r"[1-9]\d{0,2}[-+*/][1-9]\d{0,2}(, ?[1-9]\d{0,2}[-+*/][1-9]\d{0,2}){0,3}", reply.text
        )


def test_escapes_of_gbnf_are_characters() -> None:
    grammar = r'root ::= "\u00e9\x41\u0022\\u0041\U0001F642\n" [\u0042-\u0043\u00e8]'
    for seed in range(6):
        reply = bytes_model().reply(Constraint("gbnf", grammar), seed)
        assert re.fullmatch('éA"\\\\u0041🙂\n[BCè]', reply.text)


def test_a_recursive_grammar_balances() -> None:
    for seed in range(20):
        reply = bytes_model().reply(Constraint("gbnf", 'root ::= "(" root? ")" | "[" root? "]"'), seed)
        rest = reply.text
        while rest and reply.ended:
            rest = rest.replace("()", "", 1) if "()" in rest else rest.replace("[]", "", 1)
        assert reply.ended


def test_a_schema_inside_a_grammar_is_checked_and_narrowed_like_any() -> None:
    grammar = 'start: "call " %json {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]} "!"'
    for seed in range(5):
        reply = bytes_model().reply(Constraint("lark", grammar), seed)
        assert reply.ended
        assert json.loads(reply.text.removeprefix("call ").removesuffix("!")) in ({"a": 1}, {"a": 2})
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        bytes_model().compiler.mask(Constraint("lark", 'start: %json {"type": "array", "uniqueItems": true}'))


@pytest.mark.parametrize(
    ("kind", "text", "word"),
    [
        ("lark", 'start: <|im_start|> "a"', "im_start"),
        ("lark", 'start: <[1-5]> "a"', "special"),
        ("lark", '%llguidance {"no_forcing": true}\nstart: "a"', "options"),
        ("lark", 'start[temperature=0.5]: "a"', "temperature"),
        ("lark", 'start: a\na[stop="x"]: /.*/', "stop"),
        ("lark", "start: missing", "missing"),
        ("lark", "start: %json [1]", "JSON"),
        ("lark", 'other: "a"', "start"),
        ("lark", '{"grammars": [{"json_schema": {"x-guidance": {"lenient": true}}}]}', "lark"),
        ("gbnf", "root ::= missing", "missing"),
        ("gbnf", 'other ::= "a"', "root"),
        ("gbnf", 'root ::= "open', "GBNF"),
        ("gbnf", 'root ::= "a"{20000}', "10000"),
        ("gbnf", r'root ::= "\ud800"', "ud800"),
        ("grammar", "what is this?", "GBNF"),
        ("lark", "start: start", "satisfied"),
    ],
)
def test_a_grammar_that_cannot_be_kept_is_refused_by_what_is_wrong(kind: str, text: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        bytes_model().compiler.mask(Constraint(kind, text))


def test_what_stands_in_quotes_is_never_taken_for_more() -> None:
    grammar = 'start: "<|im_start|>" "[stop=1]:" /<x:>/ // <comment>\n'
    assert bytes_model().reply(Constraint("lark", grammar), 1).text == "<|im_start|>[stop=1]:<x:>"
