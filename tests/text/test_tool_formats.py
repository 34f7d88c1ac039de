"""Every format against a corpus; in whatever pieces the text comes, the same calls and the same text."""

from __future__ import annotations

import json
import random
import time

import pytest

from llm_local.events import ToolCallDelta, ToolCallEvent
from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.registry import FORMATS, find_format
from llm_local.text.tool_reader import ToolReader, make_call_id

TOOLS = [
    ToolDefinition(
        "get_weather",
        "The weather.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "exact": {"type": "boolean"},
                "where": {"type": "object"},
            },
            "required": ["city"],
        },
    ),
    ToolDefinition("ping", "Nothing.", {"type": "object", "properties": {}}),
]
LYON = ("get_weather", {"city": "Lyon"})
DAYS = ("get_weather", {"city": "Lyon", "days": 3})
NESTED = ("get_weather", {"city": "a } ] { b", "where": {"x": [{"y": []}, {}], "z": '\\" }'}})
UNICODE = ("get_weather", {"city": "São ✓ 你好 🙂\n\ttab"})
PING = ("ping", {})


def call_json(call, name="name", arguments="arguments", **more):
    return json.dumps({name: call[0], arguments: call[1], **more}, ensure_ascii=False)


def json_corpus(opens, closes, *, listed, name="name", arguments="arguments"):
    """What every format with JSON calls must do."""

    def wrap(*calls):
        texts = [call_json(call, name, arguments) for call in calls]
        if listed:
            return f"{opens}[{', '.join(texts)}]{closes}"
        return "\n".join(f"{opens}{text}{closes}" for text in texts)

    good = [(wrap(call), "", [call]) for call in (LYON, DAYS, NESTED, UNICODE, PING)]
    cut = wrap(DAYS)[: -len(closes) - 4] if closes else wrap(DAYS)[:-4]
    unknown = wrap(("unknown", {}))
    return [
        *good,
        (wrap(LYON, PING, DAYS), "", [LYON, PING, DAYS]),
        (f"Let me see.\n\n{wrap(LYON)}\n", "Let me see.", [LYON]),
        (f"{wrap(LYON)}\n\nThat is all. ", "That is all. ", [LYON]),
        (wrap(LYON).removesuffix(closes), "", [LYON]),  # the end token instead of the closing marker
        (cut, cut, []),
        (unknown, unknown, []),
        (f"{opens}{{}}]{closes} {wrap(PING)}", f"{opens}{{}}]{closes}", [PING]),
        (f"{opens}not json{closes}", f"{opens}not json{closes}", []),
        (f"say {opens[:3]} and {opens}", f"say {opens[:3]} and {opens}", []),
        ("no call at all {} [] \n", "no call at all {} [] \n", []),
    ]


RAW_NEWLINE = '<tool_call>{"name": "get_weather", "arguments": {"city": "a\nb"}}</tool_call>'
INNER_END = call_json(("get_weather", {"city": "</tool_call> <tool_call>"}))
HERMES = [
    *json_corpus("<tool_call>\n", "\n</tool_call>", listed=False),
    *json_corpus("<tool_call>", "</tool_call>", listed=True),
    (RAW_NEWLINE, "", [("get_weather", {"city": "a\nb"})]),
    ('<tool_call>{"name": "ping", "arguments": {"a": "\\ud83d\\ude42"}}', "", [("ping", {"a": "🙂"})]),
    (f"<tool_call>{INNER_END}</tool_call>", "", [("get_weather", {"city": "</tool_call> <tool_call>"})]),
    ('<tool_call>{"arguments": {"city": "Lyon"}, "name": "get_weather"}</tool_call>', "", [LYON]),
    (  # a quote that is never closed: the call behind it is one all the same
        '<tool_call>\n{"name": "ping", "arguments": {"a": "}}\n</tool_call>\n'
        f"<tool_call>\n{call_json(PING)}\n</tool_call>",
        '<tool_call>\n{"name": "ping", "arguments": {"a": "}}\n</tool_call>',
        [PING],
    ),
    ('<tool_call>{"name": "ping"}</tool_call>', "", [PING]),
    ('<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Lyon\\"}"}</tool_call>', "", [LYON]),
    (
        '<tool_call>{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Lyon"}}}',
        "",
        [LYON],
    ),
    *[
        (text, text, [])
        for text in (
            '<tool_call>{"name": "ping", "arguments": {"a": NaN}}</tool_call>',
            '<tool_call>{"name": "ping", "arguments": {"a": -1e999}}</tool_call>',  # infinity is no JSON
            '<tool_call>{"name": "ping", "arguments": {"a": "\\ud83d"}}</tool_call>',  # nor is half a character
            '<tool_call>{"name": "ping", "arguments": {"\\uDE00": 1}}</tool_call>',
            '<tool_call>{"name": "ping", "arguments": {"a": 1, "a": 2}}</tool_call>',
            '<tool_call>{"name": "ping", "arguments": [1]}</tool_call>',
            '<tool_call>{"name": "ping", "name": "ping"}</tool_call>',
            '<tool_call>{"name": "ping", "arguments": {}, "parameters": {}}</tool_call>',
            '<tool_call>{"name": "ping", "answer": 1}</tool_call>',
            '<tool_call>{"name": "ping", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>",
            '<tool_call>{"name": "ping", "arguments": {"a": ' + "[" * 2000 + "}}</tool_call>",
            "<tool_call>[]</tool_call>",
            "<tool_call>",
            "</tool_call>",
            "<tool_call>{",
        )
    ],
]
XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nLyon\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
XML = [
    (XML_CALL, "", [DAYS]),
    (f"Hm.\n{XML_CALL}\n{XML_CALL}", "Hm.", [DAYS, DAYS]),
    (XML_CALL.removesuffix("</tool_call>"), "", [DAYS]),
    ("<tool_call><function=ping></function></tool_call>", "", [PING]),
    (
        "<tool_call><function=get_weather><parameter=city>\n 1 < 2 > {\n\n</parameter>"
        '<parameter=where>{"a": [1]}</parameter><parameter=exact>True</parameter></function></tool_call>',
        "",
        [("get_weather", {"city": " 1 < 2 > {\n", "where": {"a": [1]}, "exact": True})],
    ),
    *[
        (text, text, [])
        for text in (
            XML_CALL[:40],
            XML_CALL.replace("get_weather", "unknown"),
            "<tool_call>nothing</tool_call>",
            "<tool_call><function=ping>text</function></tool_call>",
            "<tool_call><function=ping><parameter=a></function></tool_call>",
            "<tool_call><function=ping><parameter=a>1</parameter><parameter=a>1</parameter></function></tool_call>",
        )
    ],
]
GLM_CALL = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Lyon</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
GLM = [
    (GLM_CALL, "", [DAYS]),
    (f"{GLM_CALL}\n{GLM_CALL}", "", [DAYS, DAYS]),
    ("<tool_call>ping</tool_call>", "", [PING]),
    *[
        (text, text, [])
        for text in (
            GLM_CALL[:40],
            "<tool_call>pong</tool_call>",
            GLM_CALL.replace("</arg_key>", ""),
            GLM_CALL.replace("days", "city"),
        )
    ],
]
MISTRAL = [
    *json_corpus("[TOOL_CALLS]", "", listed=True),
    ('[TOOL_CALLS]get_weather[ARGS]{"city": "Lyon"}', "", [LYON]),
    (
        '[TOOL_CALLS]get_weather[CALL_ID]abcDEF123[ARGS]{"city": "Lyon"}[TOOL_CALLS]ping[ARGS]{}',
        "",
        [LYON, PING],
    ),
    ('[TOOL_CALLS] get_weather{"city": "Lyon"}', "", [LYON]),
    ('[TOOL_CALLS]unknown[ARGS]{"city": "Lyon"}', '[TOOL_CALLS]unknown[ARGS]{"city": "Lyon"}', []),
    ('[TOOL_CALLS]ping[ARGS]{"a": ', '[TOOL_CALLS]ping[ARGS]{"a": ', []),
]
LLAMA = [
    (call_json(LYON, arguments="parameters"), "", [LYON]),
    (f"<|python_tag|>{call_json(NESTED, arguments='parameters')}", "", [NESTED]),
    (f"{call_json(LYON)}; {call_json(PING)}", "", [LYON, PING]),
    (f"\n{call_json(UNICODE)}\n", "", [UNICODE]),
    ('{"answer": {"name": "ping"}}', '{"answer": {"name": "ping"}}', []),
    ('{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', []),
    (f"The call is {call_json(LYON)}.", f"The call is {call_json(LYON)}.", []),
    ('<|python_tag|>print("hello")', '<|python_tag|>print("hello")', []),
    (call_json(DAYS)[:-2], call_json(DAYS)[:-2], []),
    ("One; two", "One; two", []),
]
HARMONY = [
    (' to=functions.get_weather json{"city": "Lyon"}', "", [LYON]),
    ('Let me see. to=functions.get_weather{"city": "Lyon"}', "Let me see.", [LYON]),
    (" to=functions.get_weather json" + json.dumps(NESTED[1]), "", [NESTED]),
    ("import to=functions.pong{}", "import to=functions.pong{}", []),
    ('to=functions.ping{"a', 'to=functions.ping{"a', []),
]


def gemma(opens, closes, quote):
    def text(value):
        return f"{quote}{value}{quote}"

    one = f"{opens}call:get_weather{{city:{text('Lyon')},days:3}}{closes}"
    nested = f"{opens}call:get_weather{{city:{text('a, } b:')},where:{{x:[1,{{y:true}}],z:null}}}}{closes}"
    return [
        (one, "", [DAYS]),
        (f"Well.\n{one}\n{one}", "Well.", [DAYS, DAYS]),
        (one.removesuffix(closes), "", [DAYS]),
        (nested, "", [("get_weather", {"city": "a, } b:", "where": {"x": [1, {"y": True}], "z": None}})]),
        (f"{opens}call:ping{{}}{closes}", "", [PING]),
        (f"{opens}call:get_weather{{city:{text('你 ✓')}}}{closes}", "", [("get_weather", {"city": "你 ✓"})]),
        (f"{opens}call:get_weather{{city:Lyon}}{closes}", "", [LYON]),
        *[
            (bad, bad, [])
            for bad in (
                one[:-3].replace(closes, "")[:-8],
                f"{opens}call:pong{{}}{closes}",
                f"{opens}ping{closes}",
                f"{opens}call:ping{{a:1,a:2}}{closes}",
                f"{opens}call:ping{{a:{'[' * 3000}}}{closes}",
                f"{opens}call:ping{{}} and more{closes}",
            )
        ],
    ]


CORPUS = {
    "hermes": HERMES,
    "generic": [*HERMES, *LLAMA[:1], *LLAMA[4:7]],
    "qwen-xml": XML,
    "glm": GLM,
    "mistral": MISTRAL,
    "mistral-named": MISTRAL,
    "llama": LLAMA,
    "harmony": HARMONY,
    "granite": json_corpus("<|tool_call|>", "", listed=True) + json_corpus("<tool_call>", "", listed=True),
    "phi": json_corpus("<|tool_call|>", "<|/tool_call|>", listed=True)
    + json_corpus("functools", "", listed=True),
    "cohere": json_corpus(
        "<|START_ACTION|>", "<|END_ACTION|>", listed=True, name="tool_name", arguments="parameters"
    ),
    "function-gemma": gemma("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
}
BY_NAME = {one.name: one for one in FORMATS}
CASES = [(name, *case) for name, cases in CORPUS.items() for case in cases]


def read(name, pieces, tools=TOOLS):
    """Text, calls and deltas, as a front-end folds them; the deltas' laws are checked on the way."""
    reader = ToolReader(BY_NAME[name], tools)
    said = [one for piece in pieces for one in reader.feed(piece)] + reader.finish()
    assert "" not in said
    deltas, calls = {}, []
    for one in said:
        if isinstance(one, ToolCallDelta):
            known = deltas.setdefault(one.index, [one.id, one.name, ""])
            assert known[:2] == [one.id, one.name]
            known[2] += one.arguments
        elif isinstance(one, ToolCallEvent):
            index = max(deltas)
            assert deltas[index][:2] == [one.call.id, one.call.name]
            assert json.loads(deltas[index][2]) in (one.call.arguments, json.dumps(one.call.arguments))
            calls.append(one.call)
    assert list(deltas) == list(range(len(deltas)))
    assert len({call.id for call in calls}) == len(calls) == reader.num_calls
    text = "".join(one for one in said if isinstance(one, str))
    return text, [(call.name, call.arguments) for call in calls], [one[1:] for one in deltas.values()]


def test_every_format_has_a_corpus():
    assert set(CORPUS) == {one.name for one in FORMATS}


@pytest.mark.parametrize(("name", "text", "content", "calls"), CASES)
def test_the_corpus(name, text, content, calls):
    assert read(name, [text])[:2] == (content, calls)


@pytest.mark.parametrize("name", CORPUS)
def test_any_pieces_say_the_same(name):
    """Each text, and texts joined of several, whole, by character, and in random pieces."""
    rng = random.Random(name)
    texts = [case[0] for case in CORPUS[name]]
    texts += ["".join(rng.choices(texts, k=3)) for _ in range(20)]
    for text in texts:
        text = text[:6000]
        whole = read(name, [text])
        assert read(name, text) == whole
        for _ in range(6):
            cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 8)))
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert read(name, pieces) == whole


def test_garbage_is_never_dropped_and_never_raises():
    """Markers, brackets and words in any order: what is no call is in the text, character by character."""
    for name, tool_format in BY_NAME.items():
        rng = random.Random(name)
        atoms = [*tool_format.strings, *tool_format.bare_starts]
        atoms += [*'{}[]":,\\ \n', "name", '"name": "pong"', "call:", "é", "<", "arguments"]
        for _ in range(300):
            text = "".join(rng.choices(atoms, k=rng.randint(1, 25)))
            said, calls, _ = read(name, [text])
            assert calls == []
            assert said == text


@pytest.mark.parametrize("name", CORPUS)
def test_a_megabyte_of_garbage_takes_linear_time(name):
    """Twice the text, about twice the time, whatever is repeated."""
    tool_format = BY_NAME[name]
    start = (*tool_format.starts, *tool_format.bare_starts)[0]
    for unit in (start, start[:-1], "{", '"', "\\", " ", f'{start}{{"name": "', f"{start}call:ping{{a:["):
        text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
        began = time.process_time()
        said, calls, _ = read(name, [text[i : i + 1000] for i in range(0, len(text), 1000)])
        assert time.process_time() - began < 6
        assert (said, calls) == (text, [])


def test_strict_tools_take_only_what_their_schema_allows():
    strict = [ToolDefinition(tool.name, "", tool.parameters, strict=True) for tool in TOOLS]
    wrong = '<tool_call>{"name": "get_weather", "arguments": {"city": 1}}</tool_call>'
    good = f"<tool_call>{call_json(LYON)}</tool_call>"
    assert read("hermes", [wrong], TOOLS)[:2] == ("", [("get_weather", {"city": 1})])
    assert read("hermes", [wrong, good], strict)[:2] == (wrong, [LYON])
    assert read("hermes", wrong + good, strict) == read("hermes", [wrong + good], strict)


def test_deltas_of_a_call_that_is_none_get_no_event_and_their_index_is_not_used_again():
    """As `ToolCallDelta` says it: who has passed deltas on can tell whose they were."""
    wrong = '<tool_call>{"name": "ping", "arguments": {"a": 1}, "arguments": {}}'
    reader = ToolReader(BY_NAME["hermes"], TOOLS)
    said = reader.feed(wrong + f"<tool_call>{call_json(LYON)}</tool_call>") + reader.finish()
    ids = {one.index: one.id for one in said if isinstance(one, ToolCallDelta)}
    (event,) = [one for one in said if isinstance(one, ToolCallEvent)]
    assert list(ids) == [0, 1]
    assert event.call.id == ids[1] != ids[0]
    assert "".join(one for one in said if isinstance(one, str)) == wrong
    second = [one.arguments for one in said if isinstance(one, ToolCallDelta) and one.index == 1]
    assert json.loads("".join(second)) == LYON[1]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "3", "3"),
        ({"type": "integer"}, " 3\n", 3),
        ({"type": ["string", "null"]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "3", "3"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
        ({"anyOf": [{"type": "integer"}, {}]}, "3", 3),
        ({"$ref": "#/$defs/word"}, "true", "true"),
        ({"$ref": "#/$defs/nothing"}, "true", True),
        ({"$ref": "https://example.org/x"}, "true", True),
        ({"enum": ["1", 2]}, "1", "1"),
        ({"enum": ["1", 2]}, "2", 2),
        ({"const": "null"}, "null", "null"),
        ({"enum": ["a", "b"]}, "7", "7"),
        ({"type": [{}, 3]}, "7", 7),
        ({"type": 3}, "7", 7),
        (True, "7", 7),
        ({}, '"7"', '"7"'),
    ],
)
@pytest.mark.parametrize("name", ["qwen-xml", "glm"])
def test_plain_text_means_what_the_schema_says(name, schema, text, value):
    parameters = {
        "properties": {"a": schema},
        "$defs": {"word": {"$ref": "#/$defs/w"}, "w": {"type": "string"}},
    }
    tools = [ToolDefinition("ping", "", parameters)]
    call = f"<tool_call><function=ping><parameter=a>\n{text}\n</parameter></function></tool_call>"
    if name == "glm":
        call = f"<tool_call>ping\n<arg_key>a</arg_key><arg_value>{text}</arg_value></tool_call>"
    assert read(name, [call], tools)[1] == [("ping", {"a": value})]


def test_a_schema_never_fetches_anything():
    """A reference outside the schema allows nothing, and nobody is asked for it."""
    remote = [ToolDefinition("ping", "", {"$ref": "https://example.org/schema.json"}, strict=True)]
    text = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
    assert read("hermes", [text], remote)[:2] == (text, [])


def test_ids_are_what_the_strictest_template_takes():
    ids = {make_call_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 9 and one.isalnum() and one.isascii() for one in ids)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{% if tools %}<tools></tools> <tool_call>{{ x }}</tool_call>", "hermes"),
        ("<tool_call>\n<function=example>\n<parameter=p>", "qwen-xml"),
        ("<tool_call>{name}<arg_key>", "glm"),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS] [{", "mistral"),
        ("[TOOL_CALLS]' + name + '[ARGS]'", "mistral-named"),
        ("<|python_tag|>", "llama"),
        ("respond only with <|tool_call|> followed by a JSON list", "granite"),
        ("<|tool|>{{ tools }}<|/tool|>", "phi"),
        ("<|START_ACTION|>[", "cohere"),
        ("<start_function_call>call:", "function-gemma"),
        ("<|tool_call>call:", "gemma4"),
        ("<|channel|>commentary to=functions.", "harmony"),
        ("{{ messages }}", "generic"),
        ("", "generic"),
    ],
)
def test_the_template_chooses_the_format(source, name):
    assert find_format(source).name == name
