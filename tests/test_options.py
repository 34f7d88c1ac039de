"""Bounds of every generation option, and the meaning of "not given"."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from llm_local.errors import InvalidRequest
from llm_local.options import BOUNDS, UNSET, Bound, Constraint, GenerationOptions, Unset, given

OPTIONAL = ("max_new_tokens", "seed", "max_thinking_tokens")
NEVER_A_NUMBER = [
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    "1",
    "",
    b"1",
    [],
    {},
    object(),
    1j,
    10**400,
    -(10**400),
]


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", NEVER_A_NUMBER, ids=lambda value: repr(value)[:20])
def test_no_option_takes_what_is_no_finite_number_in_reach(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationOptions(**{name: value, "logprobs": True})
    assert caught.value.param == name
    assert name in caught.value.message


@pytest.mark.parametrize("name", BOUNDS)
def test_both_ends_of_a_bound_hold(name: str) -> None:
    bound = BOUNDS[name]
    step = 1 if bound.integer else 1e-9
    inside = [bound.high, bound.low + step if bound.open_low else bound.low]
    outside = [bound.high + step, bound.low if bound.open_low else bound.low - step]
    for value in inside:
        assert getattr(GenerationOptions(**{name: value, "logprobs": True}), name) == value
    for value in outside:
        with pytest.raises(InvalidRequest):
            GenerationOptions(**{name: value, "logprobs": True})


@pytest.mark.parametrize("name", [name for name, bound in BOUNDS.items() if bound.integer])
def test_an_integer_option_takes_no_float(name: str) -> None:
    with pytest.raises(InvalidRequest):
        GenerationOptions(**{name: 1.0, "logprobs": True})


@pytest.mark.parametrize("name", BOUNDS)
def test_none_only_where_it_means_something(name: str) -> None:
    if name in OPTIONAL:
        assert getattr(GenerationOptions(**{name: None}), name) is None
    else:
        with pytest.raises(InvalidRequest):
            GenerationOptions(**{name: None})


def test_seed_covers_exactly_64_bits() -> None:
    assert GenerationOptions(seed=2**63 - 1).seed == 2**63 - 1
    assert GenerationOptions(seed=-(2**63)).seed == -(2**63)
    for seed in (2**63, -(2**63) - 1):
        with pytest.raises(InvalidRequest):
            GenerationOptions(seed=seed)


def test_every_number_has_a_bound() -> None:
    numeric = {
        f.name for f in dataclasses.fields(GenerationOptions) if f.type in ("int", "float", "int | None")
    }
    assert numeric == set(BOUNDS)


def test_defaults_are_the_off_position() -> None:
    options = GenerationOptions()
    off = (options.temperature, options.top_k, options.top_p, options.min_p, options.typical_p)
    assert off == (1.0, 0, 1.0, 0.0, 1.0)
    assert (options.repetition_penalty, options.presence_penalty, options.frequency_penalty) == (
        1.0,
        0.0,
        0.0,
    )
    assert (options.max_new_tokens, options.seed, options.greedy) == (None, None, False)


def test_greedy_is_temperature_zero() -> None:
    assert GenerationOptions(temperature=0).greedy
    assert GenerationOptions(temperature=0.0).greedy
    assert not GenerationOptions(temperature=1e-6).greedy


def test_messages_name_the_field_the_value_and_what_is_allowed() -> None:
    with pytest.raises(InvalidRequest, match=r"^top_p is 1\.5, but must be a number above 0 to 1\.$"):
        GenerationOptions(top_p=1.5)
    with pytest.raises(
        InvalidRequest, match=r"^max_new_tokens is 0, but must be an integer from 1 to 10000000\.$"
    ):
        GenerationOptions(max_new_tokens=0)


def test_a_huge_value_does_not_make_a_huge_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationOptions(temperature="x" * 1_000_000)  # type: ignore[arg-type]
    assert len(caught.value.message) < 200


def test_the_words_for_a_bound_have_every_digit() -> None:
    assert str(Bound(1, 10_000_000, integer=True)) == "an integer from 1 to 10000000"
    assert str(Bound(0.0, 2.5, open_low=True)) == "a number above 0 to 2.5"


@pytest.mark.parametrize("stop", [["a"], "a", ("a", 1), None, ("",), ("x" * 257,), ("é" * 129,), ("a",) * 17])
def test_bad_stops(stop: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationOptions(stop=stop)
    assert caught.value.param == "stop"


def test_good_stops() -> None:
    stops = ("é" * 128, "\n", "\ud800", *(f"s{i}" for i in range(13)))
    assert GenerationOptions(stop=stops).stop == stops


@pytest.mark.parametrize(
    "bias",
    [
        None,
        [(1, 1.0)],
        {-1: 1.0},
        {"5": 1.0},
        {True: 1.0},
        {1: 101},
        {1: math.nan},
        {1: "x"},
        dict.fromkeys(range(1025), 0.0),
    ],
)
def test_bad_logit_bias(bias: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationOptions(logit_bias=bias)
    assert caught.value.param is not None
    assert caught.value.param.startswith("logit_bias")


def test_good_logit_bias() -> None:
    bias = dict.fromkeys(range(1024), -100.0)
    assert GenerationOptions(logit_bias=bias).logit_bias == bias


def test_top_logprobs_needs_logprobs() -> None:
    with pytest.raises(InvalidRequest, match="top_logprobs needs logprobs"):
        GenerationOptions(top_logprobs=3)
    with pytest.raises(InvalidRequest, match="true or false"):
        GenerationOptions(logprobs=1)  # type: ignore[arg-type]


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationOptions().temperature = 2.0  # type: ignore[misc]


def test_replace_changes_what_is_given_and_checks_it() -> None:
    options = GenerationOptions(temperature=0.5, seed=7)
    changed = options.replace(temperature=UNSET, seed=None, top_k=3)
    assert (changed.temperature, changed.seed, changed.top_k) == (0.5, None, 3)
    assert (options.seed, options.top_k) == (7, 0)
    with pytest.raises(InvalidRequest) as caught:
        options.replace(top_k=-1)
    assert caught.value.param == "top_k"
    with pytest.raises(InvalidRequest, match="Unknown generation option 'temprature'") as caught:
        options.replace(temprature=0.1)
    assert caught.value.param == "temprature"


def test_unset_is_neither_none_nor_true() -> None:
    assert not UNSET
    assert repr(UNSET) == "UNSET"
    assert isinstance(UNSET, Unset)
    assert given({"a": UNSET, "b": None, "c": 0, "d": ""}) == {"b": None, "c": 0, "d": ""}


def test_a_constraint_is_a_value() -> None:
    spelled = Constraint("json_schema", '{ "type" : "object", "title": "é" }')
    assert spelled == Constraint("json_schema", {"type": "object", "title": "é"})
    assert len({spelled, Constraint("json_schema", {"type": "object", "title": "é"})}) == 1
    assert Constraint("choice", ["a", "b"]).choices == ("a", "b")
    assert Constraint("regex", "a|b").choices == ("a|b",)
    assert GenerationOptions(constraint=spelled).replace(seed=1).constraint is spelled


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        ("yaml", "", "json_schema"),
        ("json", "{}", "no value"),
        ("json_schema", "{", "not valid JSON"),
        ("json_schema", "", "not valid JSON"),
        ("json_schema", "[]", "JSON object"),
        ("json_schema", "true", "JSON object"),
        ("json_schema", None, "JSON object"),
        ("json_schema", {"minimum": math.nan}, "not valid JSON"),
        ("json_schema", {"const": {1, 2}}, "not valid JSON"),
        ("json_schema", '{"a":' * 5_000 + "1" + "}" * 5_000, "nested"),
        ("json_schema", '{"title": "' + "x" * 300_000 + '"}', "bytes"),
        ("json_schema", '{"title": "\\ud800"}', "surrogate"),
        ("regex", "", "empty"),
        ("regex", 3, "text"),
        ("lark", " \n", "empty"),
        ("gbnf", None, "text"),
        ("grammar", "x" * 300_000, "bytes"),
        ("choice", "abc", "sequence"),
        ("choice", [], "at least one"),
        ("choice", ["a", ""], "empty"),
        ("choice", ["a", 1], "sequence"),
        ("choice", ["x"] * 10_001, "10000"),
    ],
)
def test_a_constraint_of_the_wrong_form_is_refused(kind: Any, value: Any, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word) as caught:
        Constraint(kind, value)
    assert caught.value.param == "constraint"


def test_a_constraint_has_its_type() -> None:
    with pytest.raises(InvalidRequest, match="Constraint"):
        GenerationOptions(constraint={"type": "object"})  # type: ignore[arg-type]
