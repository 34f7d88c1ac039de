"""Constraints made to hang, crash or fill memory: refused within two seconds or kept, and the next one works."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable

import pytest

from constraints.sampling_models import RandomModel
from fakes import ByteTokenizer
from llm_local.constraints.compiler import COMPILE_SECONDS
from llm_local.constraints.deadline import PATIENCE
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint


@functools.cache
def model() -> RandomModel:
    return RandomModel(ByteTokenizer(), 257, [256])


def schema(value: object) -> Constraint:
    return Constraint("json_schema", value if isinstance(value, str) else json.dumps(value))


def chain(num: int, link: Callable[[str], dict]) -> dict:
    parts = {f"a{n}": link(f"#/$defs/a{n + 1}") for n in range(num)}
    return {"$ref": "#/$defs/a0", "$defs": {**parts, f"a{num}": {"type": "null"}}}


def lark_rules(num: int, name: str) -> str:
    rules = "\n".join(f'{name}{n}: "x" {name}{n + 1} | "y"' for n in range(num))
    return f'start: {name}0\n{rules}\n{name}{num}: "z"'


def gbnf_rules(num: int) -> str:
    return (
        "root ::= a0\n" + "\n".join(f'a{n} ::= "x" a{n + 1} | "y"' for n in range(num)) + f'\na{num} ::= "z"'
    )


def overlapping(num: int) -> list[dict]:
    return [
        {"anyOf": [{"properties": {f"p{n}_{m}": {"type": "string"}}} for m in range(num)]} for n in range(num)
    ]


REFUSED: dict[str, Callable[[], Constraint]] = {
    "nested 10,000": lambda: schema('{"items":' * 10_000 + "{}" + "}" * 10_000),
    "nested 100": lambda: schema('{"items":' * 100 + "{}" + "}" * 100),
    "constant nested 500": lambda: schema({"const": json.loads("[" * 500 + "]" * 500)}),
    "enum of 100,000": lambda: schema({"enum": [f"v{n}" for n in range(100_000)]}),
    "minItems 1e9": lambda: schema({"type": "array", "minItems": 10**9}),
    "minLength 1e9": lambda: schema({"type": "string", "minLength": 10**9}),
    "minProperties 1e9": lambda: schema({"type": "object", "minProperties": 10**9}),
    "itself": lambda: schema({"$ref": "#"}),
    "each other": lambda: schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "product of parts": lambda: schema({"allOf": overlapping(8)}),
    "20,000 properties": lambda: schema({"properties": {f"p{n}": {} for n in range(20_000)}}),
    "6,000 parts": lambda: schema({"prefixItems": [{}] * 6_000}),
    "integers of many multiples": lambda: schema(
        {"allOf": [{"type": "integer", "multipleOf": 99_991}, {"multipleOf": 99_989}]}
    ),
    "wrong type": lambda: schema({"type": "strin"}),
    "wrong shape": lambda: schema(
        {"type": "object", "properties": {"a": {"maxLength": "x", "type": "string"}}}
    ),
    "lookaround": lambda: schema({"type": "string", "pattern": "(?=a)b"}),
    "regex a{1e9}": lambda: Constraint("regex", "a{1000000000}"),
    "regex of many digits": lambda: Constraint("regex", "a{" + "9" * 5_000 + "}"),
    "regex nested 5,000": lambda: Constraint("regex", "(" * 5_000 + "a" + ")" * 5_000),
    "regex of nothing": lambda: Constraint("regex", r"[^\s\S]"),
    "100,000 choices": lambda: Constraint("choice", [f"c{n}" for n in range(100_000)]),
    "left recursion only": lambda: Constraint("lark", "start: start"),
    "no rules": lambda: Constraint("lark", "// nothing"),
    "groups nested 3,000": lambda: Constraint("lark", "start: " + "(" * 3_000 + '"a"' + ")" * 3_000),
    "GBNF groups nested 5,000": lambda: Constraint("gbnf", "root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000),
    "terminals doubled 40 times": lambda: Constraint(
        "lark", "start: A0\n" + "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(40)) + '\nA40: "z"'
    ),
    "complement": lambda: Constraint("lark", "start: A\nA: ~/(.*a.{40})/ & /[ab]*a[ab]{40}/"),
    "20,000 rules": lambda: Constraint("lark", lark_rules(9_000, "a")),
    "GBNF of 4,000 rules": lambda: Constraint("gbnf", gbnf_rules(4_000)),
}
KEPT: dict[str, Callable[[], Constraint]] = {
    "nested 60": lambda: schema('{"items":' * 60 + "{}" + "}" * 60),
    "enum of 9,000": lambda: schema({"enum": [f"value {n}" for n in range(9_000)]}),
    "choice of 9,000": lambda: Constraint("choice", [f"value {n}" for n in range(9_000)]),
    "maxItems 1e9": lambda: schema({"type": "array", "maxItems": 10**9, "items": {"type": "null"}}),
    "maxLength 1e6": lambda: schema({"type": "string", "maxLength": 10**6}),
    "backtracking": lambda: Constraint("regex", "(a+)+$"),
    "pattern and length": lambda: schema({"type": "string", "pattern": "^(a+)+$", "maxLength": 10**6}),
    "repeats of repeats": lambda: Constraint("regex", "((a{1,1000}){1,1000}){1,1000}"),
    "left recursion": lambda: Constraint("lark", 'start: start "a" | "b"'),
    "ambiguity": lambda: Constraint("gbnf", 'root ::= s\ns ::= s s | "a" | ""'),
    "empty of empty": lambda: Constraint("lark", 'start: a*\na: b*\nb: ""'),
    # these end the process on a thread's usual stack
    "chain of objects": lambda: schema(
        chain(1_600, lambda to: {"type": "object", "properties": {"x": {"$ref": to}}})
    ),
    "chain of references": lambda: schema(chain(4_900, lambda to: {"$ref": to})),
    "chain of rules": lambda: Constraint("lark", lark_rules(4_900, "a")),
    "chain of terminals": lambda: Constraint("lark", lark_rules(4_900, "A")),
    "GBNF of 400 rules": lambda: Constraint("gbnf", gbnf_rules(400)),
}


def still_works() -> None:
    reply = model().reply(Constraint("choice", ("fine",)), 0)
    assert (reply.text, reply.ended) == ("fine", True)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_is_refused_in_time(name: str) -> None:
    still_works()  # what every constraint needs is there
    wall, started = time.monotonic(), time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        model().compiler.mask(REFUSED[name]())
    # of a processor: what others do on this machine is not the bomb's
    assert time.process_time() - started < COMPILE_SECONDS
    assert time.monotonic() - wall < PATIENCE * COMPILE_SECONDS
    assert caught.value.param == "constraint"
    assert len(caught.value.message) < 500
    still_works()


@pytest.mark.parametrize("name", KEPT)
def test_what_only_looks_like_a_bomb_is_kept(name: str) -> None:
    constraint = KEPT[name]()
    assert 0 in model().compiler.mask(constraint).allowed()  # or the compiler's own deadline has refused it
    reply = model().reply(constraint, 1, max_new=60)
    assert reply.text or reply.ended
    still_works()
