"""Tools for the corpus: everyday ones with natural requests, and invented ones with any name and parameters."""

from dataclasses import dataclass
from typing import Any

from .. import words
from ..slots import Slots

VERBS = (
    "get find create delete update send set start stop check convert search book open close play add remove show read "
    "write save load order cancel schedule measure rename move print lock share track fetch compute list"
).split()

# Verbs of tools that one can also ask for with a question.
_ASKING = ("get", "find", "check", "show", "read", "fetch", "compute", "track")


@dataclass(frozen=True)
class Tool:
    """A tool as the chat template wants it, with ways to ask for it. Requests name every parameter they need."""

    name: str
    description: str
    parameters: dict[str, dict[str, Any]]
    required: tuple[str, ...]
    requests: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """The tool in the form of the OpenAI dialect, which is also that of chat templates."""
        parameters = {"type": "object", "properties": self.parameters, "required": list(self.required)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


@dataclass(frozen=True)
class Call:
    """A request in words and the arguments it stands for."""

    tool: Tool
    request: str
    arguments: dict[str, Any]


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "string", "description": description} if description else {"type": "string"}


_INTEGER = {"type": "integer"}
# name, description, parameters, requests. The slots of a request are the parameters it gives.
_EVERYDAY: tuple[tuple[str, str, dict[str, dict[str, Any]], tuple[str, ...]], ...] = (
    ("get_weather", "Get the weather in a city", {"city": _text()},
     ("What is the weather in {city}?", "What's the weather like in {city}?", "How is the weather in {city}?", "Weather in {city}?",
      "Is it raining in {city}?", "Tell me the weather in {city}.", "Get the weather in {city}", "What is the weather in {city} today?")),
    ("get_current_weather", "Get the current weather in a given location", {"location": _text("The city")},
     ("What is the weather in {location}?", "How is the weather in {location} now?", "What's the weather like in {location}?",
      "Weather for {location}", "Is it cold in {location}?", "What is the current weather in {location}?")),
    ("get_time", "Get the current time in a city", {"city": _text()},
     ("What time is it in {city}?", "Tell me the time in {city}.", "What is the time in {city}?", "Time in {city}?")),
    ("add", "Add two numbers", {"a": _INTEGER, "b": _INTEGER},
     ("What is {a} plus {b}?", "Add {a} and {b}.", "{a} + {b}", "What is {a} + {b}?", "Use the tool to add {a} and {b}.")),
    ("multiply", "Multiply two numbers", {"a": _INTEGER, "b": _INTEGER},
     ("What is {a} times {b}?", "Multiply {a} by {b}.", "{a} * {b}", "How much is {a} times {b}?")),
    ("search", "Search the web", {"query": _text()},
     ('Search for "{query}".', "Search the web for {query}", "Look up {query}.", "Find {query} on the web.", "Search for {query}")),
    ("read_file", "Read a file", {"path": _text("Path of the file")},
     ("Read the file {path}", "Show me {path}", "Open {path}", "What is in {path}?", "Read {path}, please.")),
    ("send_message", "Send a message to someone", {"to": _text(), "text": _text()},
     ('Send "{text}" to {to}.', 'Write to {to}: "{text}"', 'Tell {to} "{text}".', 'Send {to} the message "{text}"')),
    ("set_timer", "Set a timer", {"minutes": _INTEGER},
     ("Set a timer for {minutes} minutes.", "Timer for {minutes} minutes", "Wake me in {minutes} minutes.", "Start a timer: {minutes} minutes")),
    ("convert_currency", "Convert money", {"amount": _INTEGER, "source": _text(), "target": _text()},
     ("Convert {amount} {source} to {target}.", "How much is {amount} {source} in {target}?", "{amount} {source} in {target}?")),
    ("book_flight", "Book a flight", {"origin": _text(), "destination": _text()},
     ("Book a flight from {origin} to {destination}.", "I want to fly from {origin} to {destination}", "Flight {origin} to {destination}, please.")),
    ("set_light", "Set a light", {"color": _text(), "level": _INTEGER},
     ("Set the light to {color} at level {level}.", "Make the light {color}, level {level}.", "Light: {color}, level {level}")),
)  # fmt: skip
_CURRENCIES = ("euros", "dollars", "yen", "pounds", "francs", "pesos", "rupees", "crowns")


def _value(slots: Slots, name: str, schema: dict[str, Any]) -> Any:
    if schema["type"] == "integer":
        return slots.number(0, 9) if slots.chance(0.15) else slots.number(10, 999)
    if schema["type"] == "boolean":
        return slots.chance(0.5)
    if "enum" in schema:
        return slots.rng.choice(schema["enum"])
    places = ("city", "location", "origin", "destination", "place")
    if name in places:
        return slots.city()
    if name in ("to", "owner", "author", "recipient", "customer", "sender"):
        return slots.name()
    if name in ("source", "target"):
        return str(slots.any(_CURRENCIES))
    if name == "path":
        return f"{slots.word()}.{slots.any(('txt', 'md', 'py', 'csv', 'json'))}"
    if name == "color":
        return slots.color()
    if name in ("text", "query", "title"):
        return " ".join(slots.word() for _ in range(slots.rng.randint(1, 4)))
    return slots.name() if slots.chance(0.2) else slots.word()


def everyday(slots: Slots) -> Tool:
    """One of the tools that examples everywhere use."""
    name, description, parameters, requests = slots.rng.choice(_EVERYDAY)
    return Tool(name, description, parameters, tuple(parameters), requests)


def _parameter(slots: Slots) -> tuple[str, dict[str, Any]]:
    kind = slots.rng.random()
    if kind < 0.55:
        schema = _text()
        if slots.chance(0.15):
            schema = {"type": "string", "enum": [slots.word() for _ in range(slots.rng.randint(2, 3))]}
        return slots.key(), schema
    if kind < 0.9:
        return slots.key(words.NUMBER_KEYS) if slots.varied else slots.one(words.NUMBER_KEYS), _INTEGER
    return slots.one(words.FLAG_KEYS), {"type": "boolean"}


def invented(slots: Slots) -> Tool:
    """A tool with a name that may never have been seen: a verb and a thing."""
    verb = str(slots.any(VERBS))
    things = [slots.word() for _ in range(slots.rng.choices((1, 2), (3, 1))[0])]
    joint = "_" if slots.chance(0.9) else "-"
    parameters = dict(_parameter(slots) for _ in range(slots.rng.choices((1, 2, 3), (5, 4, 1))[0]))
    names = list(parameters)
    required = tuple(names) if slots.chance(0.7) else tuple(names[:1])
    thing = " ".join(things)
    do = f"{verb} the {thing}"
    listed = _listings([name for name in names if name in required or slots.chance(0.6)])
    requests = tuple(
        f"{start}{do}{rest}" for start in ("", "Please ", "I want to ", "Can you ") for rest in listed
    )
    if len(names) == 1 and verb in _ASKING:
        requests += tuple(
            one.format(thing) + f"{{{names[0]}}}?"
            for one in ("What is the {} of ", "What is the {} for ", "Which {} has ")
        )
    description = do.capitalize() + slots.any(("", "", f" for a {names[0]}", f" by {names[0]}"))
    return Tool(joint.join([verb, *things]), description, parameters, required, requests)


def _listings(names: list[str]) -> tuple[str, ...]:
    with_words = " and ".join(f"{name} {{{name}}}" for name in names)
    equals = ", ".join(f"{name}={{{name}}}" for name in names)
    colons = ", ".join(f"{name}: {{{name}}}" for name in names)
    quoted = " and ".join(f'{name} "{{{name}}}"' for name in names)
    lines = "\n".join(f"{name}: {{{name}}}" for name in names)
    many = (
        f" with {with_words}.",
        f": {equals}",
        f" ({colons})",
        f" with {quoted}.",
        f"\n{lines}",
        f", {with_words}",
    )
    return (*many, f" for {{{names[0]}}}.", f" {{{names[0]}}}") if len(names) == 1 else many


def call_for(slots: Slots, tool: Tool) -> Call:
    """A request for the tool, with values."""
    template = slots.phrase(tool.requests)
    given = [name for name in tool.parameters if "{" + name + "}" in template]
    arguments = {name: _value(slots, name, tool.parameters[name]) for name in given}
    shown = {
        key: str(value).lower() if isinstance(value, bool) else value for key, value in arguments.items()
    }
    request = template.format(**shown)
    return Call(tool, request[0].upper() + request[1:] if slots.chance(0.8) else request, arguments)


def calls_for_both(slots: Slots, tool: Tool) -> list[Call]:
    """One request for two values of a tool with one parameter: the weather in one city and another."""
    template = slots.phrase(tool.requests)
    (name,) = tool.parameters
    one, two = (_value(slots, name, tool.parameters[name]) for _ in range(2))
    request = template.format(**{name: f"{one} and {two}"})
    return [Call(tool, request, {name: one}), Call(tool, request, {name: two})]


def toolbox(slots: Slots, most: int = 3) -> list[Tool]:
    """One to ``most`` tools with different names."""
    count = slots.rng.choices(range(1, most + 1), (5, 4, 3, 2)[:most])[0]
    tools: dict[str, Tool] = {}
    while len(tools) < count:
        tool = everyday(slots) if slots.chance(0.3) else invented(slots)
        if tool.description not in {one.description for one in tools.values()}:
            tools[tool.name] = tool
    return list(tools.values())
