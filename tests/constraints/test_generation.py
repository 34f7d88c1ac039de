"""Constraints through the generator on the shipped model: every kind, every path of the engine."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from constraints.schema_generator import make_schema
from llm_local.engine.sequence import Sequence
from llm_local.errors import InvalidRequest
from llm_local.events import Delta, fold
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.options import Constraint, GenerationOptions
from llm_local.specs import EngineOptions, ModelSpec

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["tea", "cake", "rain"]}, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
}
TIGHT_BYTES = 4_000_000  # two sequences fit until their replies grow
ASK = [Message("user", "My name is Ada and I am 36. Who am I?")]


@pytest.fixture(scope="module")
def loaded():
    resolved = resolve_model(ModelSpec("starter", dtype="float32"), explicit=True)
    return load_tokenizer_and_model(resolved.spec, path=resolved.path)


@pytest.fixture(scope="module")
def generator(loaded):
    return TextGenerator(loaded, engine_options=EngineOptions(prefix_cache=False, speculation="off"))


def options(constraint, *, seed=None, max_new_tokens=300, **more):
    temperature = 0 if seed is None else 1.5
    return GenerationOptions(
        constraint=constraint, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens, **more
    )


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize(
    ("constraint", "keeps"),
    [
        (
            Constraint("json_schema", PERSON),
            lambda text: jsonschema.validate(json.loads(text), PERSON) is None,
        ),
        (Constraint("regex", "[A-Z][a-z]{2,9}, [0-9]{2}"), re.compile("[A-Z][a-z]{2,9}, [0-9]{2}").fullmatch),
        (Constraint("choice", ("Ada", "Grace", " Ada")), lambda text: text in ("Ada", "Grace", " Ada")),
        (Constraint("gbnf", 'root ::= "I am " [a-z]+ "."'), re.compile(r"I am [a-z]+\.").fullmatch),
        (Constraint("lark", 'start: "I am " /[a-z]{1,9}/ "."'), re.compile(r"I am [a-z]{1,9}\.").fullmatch),
    ],
    ids=["json_schema", "regex", "choice", "gbnf", "lark"],
)
def test_a_reply_that_ends_by_itself_keeps_its_constraint(generator, constraint, keeps, seed):
    completion = generator.generate_chat(ASK, options(constraint, seed=seed))
    if completion.finish_reason == "stop":
        assert keeps(completion.text)
    else:
        assert completion.finish_reason == "length"
        assert constraint.kind == "gbnf"  # the only one here without a longest reply
    raw = generator.generate_text("I am", options(constraint, seed=seed))
    assert raw.finish_reason == "length" or keeps(raw.text)


def test_a_reply_that_is_cut_says_so(generator):
    completion = generator.generate_chat(ASK, options(Constraint("json_schema", PERSON), max_new_tokens=4))
    assert completion.finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(completion.text)


def test_streamed_in_a_batch_equals_alone(generator):
    """Bounded schemas, sampled, eight at a time beside one without constraint."""
    schemas = [make_schema(seed) for seed in range(16)]
    wanted = [
        options(Constraint("json_schema", schema), seed=seed, max_new_tokens=400)
        for seed, schema in enumerate(schemas)
    ]
    for start in (0, 8):
        group = wanted[start : start + 8]
        free = generator.stream(generator.prepare_chat(ASK, options(None, max_new_tokens=40)))
        streams = [generator.stream(generator.prepare_chat(ASK, one)) for one in group]
        together = [list(stream) for stream in streams]
        alone = [generator.generate_chat(ASK, one) for one in group]
        assert fold(free).text == generator.generate_chat(ASK, options(None, max_new_tokens=40)).text
        for schema, events, completion in zip(schemas[start:], together, alone, strict=False):
            assert (
                "".join(
                    event.text for event in events if isinstance(event, Delta) and event.channel == "content"
                )
                == completion.text
            )
            if completion.finish_reason == "stop":
                jsonschema.Draft202012Validator(schema).validate(json.loads(completion.text))


@pytest.mark.parametrize("seed", [None, 4])
def test_guessing_ahead_changes_nothing(loaded, generator, seed):
    constraint = Constraint("regex", "(tea cake ){3,12}and (rain){1,9}")
    plain = generator.generate_chat(ASK, options(constraint, seed=seed))
    guessing = TextGenerator(loaded, engine_options=EngineOptions(prefix_cache=False, speculation="ngram"))
    completion = guessing.generate_chat(ASK, options(constraint, seed=seed))
    assert completion.text == plain.text
    assert completion.token_ids == plain.token_ids
    assert completion.usage.accepted_tokens > 0


def test_preemption_does_not_replay_a_mask(loaded, generator, monkeypatch):
    preempted = []
    restart = Sequence.restart
    monkeypatch.setattr(Sequence, "restart", lambda one: (preempted.append(one.sequence_id), restart(one)))
    constraint = Constraint("regex", "([0-9] ){150}")
    wanted = [options(constraint, seed=seed, max_new_tokens=400) for seed in range(3)]
    alone = [generator.generate_chat(ASK, one) for one in wanted]
    assert not preempted
    tight = TextGenerator(
        loaded,
        engine_options=EngineOptions(prefix_cache=False, speculation="off", kv_cache_bytes=TIGHT_BYTES),
    )
    streams = [tight.stream(tight.prepare_chat(ASK, one)) for one in wanted]
    assert [fold(stream).text for stream in streams] == [one.text for one in alone]
    assert preempted


def test_the_stops_of_a_template_do_not_cut_a_constrained_reply(generator):
    prepared = generator.prepare_chat(ASK, options(Constraint("json"), stop=("mine",)))
    assert prepared.stops == ("mine",)


def test_what_cannot_be_kept_is_refused_before_it_is_queued(generator):
    constraint = Constraint("json_schema", {"type": "array", "uniqueItems": True})
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        generator.generate_chat(ASK, options(constraint))
    assert generator.generate_chat(ASK, options(None, max_new_tokens=3)).text
