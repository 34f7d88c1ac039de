"""Forced calls in every format, by a model that has learned nothing: each is a call, and its arguments are allowed."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import jsonschema
import pytest
from tokenizers import AddedToken

from constraints.sampling_models import RandomModel
from constraints.schema_generator import make_schema
from llm_local.constraints.grammars import CallGrammar
from llm_local.engine.factory import make_engine
from llm_local.errors import InvalidRequest
from llm_local.events import Delta, ToolCallDelta, ToolCallEvent, fold
from llm_local.generator import TextGenerator
from llm_local.messages import Message, ToolDefinition
from llm_local.options import Constraint, GenerationOptions
from llm_local.text.tool_formats.forcing import forced_calls
from llm_local.text.tool_formats.registry import FORMATS
from llm_local.text.tool_reader import ToolReader
from text.small_tokenizers import byte_level
from tiny_models import tiny_variant

CONTEXT = 4096
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant"
OFF = "{% if enable_thinking is defined and not enable_thinking %}"
THINK = OFF + "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
# by format: what its templates hold beside the turns, its special tokens, its other added ones, and how it thinks
TEMPLATES = {
    "hermes": ("<tool_call> {{ tools }}", [], [], THINK),
    "generic": ("", [], [], ""),
    "qwen-xml": ("<tool_call><function=x><parameter=y> {{ tools }}", [], [], THINK),
    "glm": (
        "<tool_call>{name}<arg_key> {{ tools }}",
        [],
        ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        THINK.replace("<think>\n{% endif %}", "{% endif %}"),  # the model opens its reasoning by itself
    ),
    "mistral": ("[TOOL_CALLS] {{ tools }}", ["[TOOL_CALLS]"], [], ""),
    "mistral-named": (
        "[TOOL_CALLS][ARGS] {{ tools }}",
        ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"],
        [],
        THINK.replace("<think>", "[THINK]").replace("</think>", "[/THINK]"),
    ),
    "llama": ("<|python_tag|> {{ tools }}", ["<|python_tag|>"], [], ""),
    "granite": ("<|tool_call|> {{ tools }}", ["<|tool_call|>"], [], ""),
    "phi": ("<|tool|><|/tool|> {{ tools }}", ["<|tool_call|>", "<|/tool_call|>"], [], ""),
    "cohere": (
        "<|START_ACTION|> {{ tools }}",
        ["<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>"],
        [],
        THINK.replace("<think>", "<|START_THINKING|>").replace("</think>", "<|END_THINKING|>"),
    ),
    "harmony": (
        "<|channel|>analysis<|message|><|end|> functions. {{ tools }}",
        ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>", "<|call|>"],
        [],
        "always",
    ),
    "function-gemma": (
        "<start_function_call>call: {{ tools }}",
        ["<start_function_call>", "<end_function_call>", "<escape>"],
        [],
        "",
    ),
    "gemma4": (
        "<|tool_call>call: {{ tools }}",
        ["<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>", '<|"|>'],
        [],
        THINK.replace("<think>", "<|channel>thought").replace("</think>", "<channel|>"),
    ),
}
TOOLS = [
    ToolDefinition(
        "get_weather",
        "The weather.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 1, "maxLength": 8},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "exact": {"type": "boolean"},
                "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
                "unit": {"enum": ["°C", "a<b> c", 3, None, "null"]},
                "note": {"type": ["string", "null"], "maxLength": 4},
                "or_none": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]},
                "where": {"$ref": "#/$defs/place"},
            },
            "required": ["city", "exact", "where"],
            "$defs": {
                "place": {
                    "type": "object",
                    "properties": {
                        "x": {"type": "number", "minimum": -9, "maximum": 9, "description": "East."},
                        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
                        "in side": {"type": ["integer", "null"]},
                        "one": {
                            "type": "array",
                            "items": {"const": "tab\there"},
                            "minItems": 1,
                            "maxItems": 1,
                        },
                    },
                    "required": ["x"],
                    "additionalProperties": False,
                }
            },
        },
        strict=True,
    ),
    ToolDefinition("ping", "Nothing.", {"type": "object", "properties": {}}, strict=True),
    ToolDefinition(
        "pick", "", {"properties": {"size": {"type": "number"}}, "required": ["size"]}, strict=True
    ),
]
BY_NAME = {tool.name: tool for tool in TOOLS}
HELLO = [Message("user", "Hello!")]


def tokenizer_for(name):
    _, special, ordinary, _ = TEMPLATES[name]
    tokenizer = byte_level()
    tokens = [AddedToken(one, normalized=False) for one in special]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.add_tokens([AddedToken(one, normalized=False, special=False) for one in ordinary])
    return tokenizer


def generator_for(name):
    source, _, _, think = TEMPLATES[name]
    tokenizer = tokenizer_for(name)
    shown = f"{{% if false %}}{source}{{% endif %}}{TURNS}"
    tokenizer.chat_template = shown if think in ("", "always") else f"{shown}\n{think}"
    size = len(tokenizer) + 3  # rows of padding, as most models have
    model = tiny_variant("llama", vocab_size=size, max_position_embeddings=CONTEXT)
    loaded = SimpleNamespace(
        tokenizer=tokenizer,
        model=model,
        info=SimpleNamespace(context_length=CONTEXT, vocab_size=size, device="cpu"),
        end_token_ids=frozenset({tokenizer.eos_token_id}),
    )
    return TextGenerator(loaded, engine=make_engine(model, context_length=CONTEXT)), think


def requests(think):
    """Required and named calls, with thinking and without, where there is a choice."""
    switches = ["default"] if think in ("", "always") else ["on", "off"]
    return [
        GenerationOptions(
            temperature=1.0,
            seed=seed,
            max_new_tokens=1200,
            tool_choice=choice,
            think=switch,
            max_thinking_tokens=6 if think else None,
        )
        for choice in ("required", "get_weather", "pick")
        for switch in switches
        for seed in range(2)
    ]


def test_every_format_is_here():
    assert set(TEMPLATES) == {one.name for one in FORMATS}
    assert all(one.envelope is not None for one in FORMATS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_forced_call_is_one_and_its_arguments_are_allowed(name):
    """Side by side, streamed; the first and the last again alone, and whole: the same."""
    generator, think = generator_for(name)
    assert generator._reply.tools.name == name
    jobs = requests(think)
    streams = [generator.stream(generator.prepare_chat(HELLO, one, tools=TOOLS)) for one in jobs]
    for options, stream in zip(jobs, streams, strict=True):
        events = list(stream)
        whole = fold(events)
        assert (whole.text, whole.finish_reason) == ("", "tool_calls"), whole
        assert len(whole.tool_calls) >= 1
        for call in whole.tool_calls:
            assert options.tool_choice in ("required", call.name)
            schema = {"type": "object", **BY_NAME[call.name].parameters}
            jsonschema.Draft202012Validator(schema).validate(call.arguments)
            assert call.name != "ping" or call.arguments == {}
        if options.tool_choice != "required":
            assert len(whole.tool_calls) == 1
        if options.think != "default" or think == "always":
            assert bool(whole.reasoning) == (options.think != "off") or name == "glm"
        deltas = [event for event in events if isinstance(event, ToolCallDelta)]
        assert [
            json.loads("".join(delta.arguments for delta in deltas if delta.index == index))
            for index in range(len(whole.tool_calls))
        ] == [event.call.arguments for event in events if isinstance(event, ToolCallEvent)]
        if options in (jobs[0], jobs[-1]):
            alone = generator.generate_chat(HELLO, options, tools=TOOLS)
            assert alone.token_ids == whole.token_ids
            assert [one.arguments for one in alone.tool_calls] == [one.arguments for one in whole.tool_calls]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_constrained_answer_or_a_call_in_every_format(name):
    """Beside tools the answer keeps its constraint, behind whatever begins an answer, or is a call."""
    generator, think = generator_for(name)
    kinds = set()
    for seed in range(8):
        options = GenerationOptions(
            temperature=2.0,
            seed=seed,
            max_new_tokens=1500,
            constraint=Constraint("regex", "[a-f]{1,5}!"),
            max_thinking_tokens=3 if think else None,
        )
        whole = generator.generate_chat(HELLO, options, tools=TOOLS[1:])
        kinds.add(whole.finish_reason)
        if whole.tool_calls:
            assert (whole.text, whole.finish_reason) == ("", "tool_calls")
        else:
            assert whole.finish_reason == "stop"
            assert whole.text.endswith("!")
            assert set(whole.text[:-1]) <= set("abcdef")
    assert kinds <= {"stop", "tool_calls"}


@pytest.mark.parametrize("name", ["qwen-xml", "glm", "gemma4", "function-gemma"])
def test_arguments_that_are_no_json_are_what_generated_schemas_allow(name):
    """Parameters of any schema: what comes is one call that its schema allows, or the tool is refused by name."""
    tool_format = next(one for one in FORMATS if one.name == name)
    tokenizer = tokenizer_for(name)
    model, counts = RandomModel(tokenizer, len(tokenizer), [tokenizer.eos_token_id]), Counter()

    def token_of(text):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return ids[0] if len(ids) == 1 else None

    for seed in range(120):
        root = {"type": "object", "properties": {"p": make_schema(seed)}, "required": ["p"]}
        root["$defs"] = root["properties"]["p"].pop("$defs", {})
        tool = ToolDefinition("f", "", root)
        try:
            opens, grammar = forced_calls(tool_format, [tool], "f", token_of)
            reply = model.reply(CallGrammar(grammar), seed, 1500)
        except InvalidRequest as error:
            counts["refused"] += 1
            assert "f#/properties/p" in error.message
            continue
        assert reply.ended, (seed, reply.text)
        reader = ToolReader(tool_format, [tool])
        text = opens + tokenizer.decode(reply.token_ids, skip_special_tokens=False)
        said = [*reader.feed(text), *reader.finish()]
        calls = [one.call for one in said if isinstance(one, ToolCallEvent)]
        assert len(calls) == 1, (seed, text)
        jsonschema.Draft202012Validator(root).validate(calls[0].arguments)
        counts["kept"] += 1
    assert counts["kept"] > 40


XML, GLM, GEMMA = "qwen-xml", "glm", "gemma4"


@pytest.mark.parametrize(
    ("names", "properties", "what"),
    [
        ((XML, GLM, GEMMA), {"a": {"type": "string", "format": "date"}}, "'format' at odd#/properties/a"),
        ((XML, GLM, GEMMA), {"a": {"type": "string", "not": {}}}, "'not' at odd#/properties/a"),
        ((XML, GLM, GEMMA), {"a": {"type": "string", "pattern": "^a|b$"}}, "'pattern' with |"),
        ((XML, GLM, GEMMA, "hermes"), {"a": {"type": "string", "pattern": "a\\"}}, "ends in a backslash"),
        ((XML, GLM), {"a>": {"type": "string"}}, "called 'a>'"),
        ((GEMMA,), {'a <|"|>': {"type": "string"}}, "The text 'a <|"),
        ((XML, GLM), {"a": {"enum": ["</arg_value></parameter>"]}}, "none of which"),
        ((GEMMA,), {"a": {"type": "object"}}, "properties are not listed at odd#/properties/a"),
        ((GEMMA,), {"a": {"type": "array", "uniqueItems": True}}, "'uniqueItems'"),
        ((XML, GLM, "hermes", "harmony"), {"a": {"type": "array", "uniqueItems": True}}, "'uniqueItems'"),
        ((GEMMA,), {"a": {"oneOf": [{"type": "null"}]}}, "'oneOf'"),
    ],
)
def test_what_a_format_cannot_say_is_refused_by_name(names, properties, what):
    tool = ToolDefinition("odd", "", {"type": "object", "properties": properties})
    for name in names:
        generator, _ = generator_for(name)
        for choice in ("required", "odd"):
            options = GenerationOptions(tool_choice=choice, max_new_tokens=5)
            with pytest.raises(InvalidRequest) as caught:
                generator.generate_chat(HELLO, options, tools=[tool])
            assert caught.value.param == "tool_choice"
            assert what in caught.value.message
            assert repr(choice) in caught.value.message


@pytest.mark.parametrize("name", [XML, GLM, GEMMA, "function-gemma"])
def test_control_strings_are_the_models_own_tokens(name):
    """Where a string is a token of the model it is sampled as that, and nowhere spelled out."""
    generator, _ = generator_for(name)
    options = GenerationOptions(seed=3, max_new_tokens=1000, tool_choice="get_weather", max_thinking_tokens=1)
    options = options if name != "function-gemma" else options.replace(max_thinking_tokens=None)
    whole = generator.generate_chat(HELLO, options, tools=TOOLS)
    tokenizer = generator._loaded.tokenizer
    envelope = generator._reply.tools.envelope
    text = tokenizer.decode(whole.token_ids, skip_special_tokens=False)
    for control in envelope.controls:
        token = tokenizer.convert_tokens_to_ids(control)
        assert whole.token_ids.count(token) == text.count(control) > 0


@pytest.mark.parametrize("name", [XML, GLM, GEMMA])
def test_texts_of_digits_and_dashes_are_no_long_numbers(name):
    """What bounds the numbers of JSON leaves the texts alone that stand in no double quotes."""
    generator, _ = generator_for(name)
    tool = ToolDefinition("write", "", {"properties": {"a": {"type": "string"}}, "required": ["a"]})
    options = GenerationOptions(tool_choice="write", think="off")
    gate = generator._masks.mask("", options, [tool], raw=False)
    tokenizer = generator._loaded.tokenizer
    quote = "" if name != GEMMA else '<|"|>'
    spelled = {
        XML: "<tool_call>\n<function=write>\n<parameter=a>\n",
        GLM: "<tool_call>write\n<arg_key>a</arg_key>\n<arg_value>",
        GEMMA: f"<|tool_call>call:write{{a:{quote}",
    }[name]
    for token_id in tokenizer(spelled, add_special_tokens=False).input_ids:
        assert gate.allowed()[token_id] == 0
        gate.accept(token_id)
    for character in "-" * 60 + "7" * 60:
        (token_id,) = tokenizer(character, add_special_tokens=False).input_ids
        assert gate.allowed()[token_id] == 0
        gate.accept(token_id)


def test_deltas_and_text_of_a_cut_call():
    """A call that the limit cuts is text, and says "length"."""
    generator, _ = generator_for("glm")
    options = GenerationOptions(seed=1, max_new_tokens=20, tool_choice="get_weather", think="off")
    events = list(generator.stream(generator.prepare_chat(HELLO, options, tools=TOOLS)))
    whole = fold(events)
    assert (whole.finish_reason, whole.tool_calls) == ("length", ())
    assert "".join(one.text for one in events if isinstance(one, Delta)) == whole.text
    assert whole.text.startswith("<tool_call>get_weather\n<arg_key>")
