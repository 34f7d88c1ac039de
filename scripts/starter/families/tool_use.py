"""Dialogues with tools: one call, several calls, the result in a sentence, and no call when none is needed."""

import json
from collections.abc import Callable
from typing import Any

from ..dialogue import Dialogue, Exchange, assistant, system, user
from ..slots import Slots
from .tool_makers import Call, Tool, call_for, calls_for_both, toolbox

_RESULT_KEYS = (
    "temperature sky wind time price status result total balance distance weight answer state humidity stock rating "
    "duration location owner name color city count amount title message"
).split()


def _calls_turn(calls: list[Call]) -> dict[str, Any]:
    made = [
        {"type": "function", "function": {"name": call.tool.name, "arguments": call.arguments}}
        for call in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


def _result(slots: Slots) -> tuple[str, str]:
    """What a tool may return and the sentence that tells it."""
    kind = slots.rng.random()
    if kind < 0.15:
        text = " ".join(slots.word() for _ in range(slots.rng.randint(1, 4)))
        if slots.chance(0.4):
            text += (
                f", {slots.number(10, 999)} {slots.any(('degrees', 'percent', 'euros', 'minutes', 'pieces'))}"
            )
        return text, f"The result is {text}."
    if kind < 0.25:
        number = slots.number(10, 9999)
        return str(number), f"The result is {number}."
    if kind < 0.33:
        problem = " ".join(slots.word() for _ in range(slots.rng.randint(1, 3)))
        return json.dumps({"error": problem}), f"The tool failed: {problem}."
    values: dict[str, Any] = {}
    for _ in range(slots.rng.choices((1, 2, 3), (5, 4, 1))[0]):
        key = slots.one(_RESULT_KEYS) if slots.chance(0.8) else slots.invented()
        if key in ("city", "location"):
            values[key] = slots.city()
        elif key in ("owner", "name"):
            values[key] = slots.name()
        else:
            values[key] = slots.number(10, 999) if slots.chance(0.5) else slots.word()
    parts = [f"{key} is {value}" for key, value in values.items()]
    said = " and the ".join(parts) if len(parts) < 3 else f"{', the '.join(parts[:-1])} and the {parts[-1]}"
    return json.dumps(values, ensure_ascii=False), f"The {said}."


def _start(slots: Slots) -> list[dict[str, Any]]:
    if slots.chance(0.8):
        return []
    return [system(str(slots.any(("You are a helpful assistant.", "You can use tools.", "Use the tools when they help.",
                                  "You are a helpful assistant with tools."))))]  # fmt: skip


def _schemas(tools: list[Tool]) -> list[dict[str, Any]]:
    return [tool.schema() for tool in tools]


def _two_calls(slots: Slots, tools: list[Tool]) -> list[Call]:
    simple = [tool for tool in tools if [one.get("type") for one in tool.parameters.values()] == ["string"]]
    if simple and slots.chance(0.4):
        return calls_for_both(slots, simple[0])
    first = call_for(slots, slots.rng.choice(tools))
    second = call_for(slots, slots.rng.choice(tools))
    return [first, second] if first.request != second.request else [first]


def _joined(slots: Slots, calls: list[Call]) -> str:
    requests = list(dict.fromkeys(call.request for call in calls))
    joint = str(slots.any((" ", "\n", " And ", " Then ")))
    return joint.join(requests)


def tool_call(slots: Slots) -> Dialogue:
    """One call."""
    tools = toolbox(slots)
    call = call_for(slots, slots.rng.choice(tools))
    return Dialogue([*_start(slots), user(call.request), _calls_turn([call])], _schemas(tools))


def two_tool_calls(slots: Slots) -> Dialogue:
    """Two calls in one turn."""
    tools = toolbox(slots, 2)
    calls = _two_calls(slots, tools)
    return Dialogue([*_start(slots), user(_joined(slots, calls)), _calls_turn(calls)], _schemas(tools))


def tool_result(slots: Slots) -> Dialogue:
    """One or two calls, their results, and the sentence."""
    tools = toolbox(slots, 2)
    calls = _two_calls(slots, tools) if slots.chance(0.2) else [call_for(slots, slots.rng.choice(tools))]
    results = [_result(slots) for _ in calls]
    messages = [*_start(slots), user(_joined(slots, calls)), _calls_turn(calls)]
    messages += [
        {"role": "tool", "name": call.tool.name, "content": text}
        for call, (text, _) in zip(calls, results, strict=True)
    ]
    messages.append(assistant(" ".join(said for _, said in results)))
    return Dialogue(messages, _schemas(tools))


def tool_chat(slots: Slots, fillers: list[Exchange]) -> Dialogue:
    """A call, its result, other talk, and another call."""
    first = tool_result(slots)
    tools = toolbox(slots, 2)
    call = call_for(slots, slots.rng.choice(tools))
    messages = list(first.messages)
    for exchange in fillers:
        messages += [user(exchange.user), assistant(exchange.reply)]
    messages += [user(call.request), _calls_turn([call])]
    known = {schema["function"]["name"]: schema for schema in (*first.tools, *_schemas(tools))}
    known[call.tool.name] = call.tool.schema()
    return Dialogue(messages, list(known.values()))


def _belongs_to(exchange: Exchange, tools: list[Tool]) -> bool:
    """Whether one of the tools is made for the question: a sum for the adder, the weather, the time."""
    names = " ".join(tool.name for tool in tools)
    topics = {"add": "+", "weather": "weather", "time": "time"}
    return any(tool in names and topic in exchange.user + exchange.reply for tool, topic in topics.items())


def no_tool_needed(slots: Slots, plain: Callable[[Slots], Exchange]) -> Dialogue:
    """Tools are there, but the question needs none."""
    tools = toolbox(slots)
    exchange = plain(slots)
    while _belongs_to(exchange, tools):
        exchange = plain(slots)
    return Dialogue([*_start(slots), user(exchange.user), assistant(exchange.reply)], _schemas(tools))
