"""Small JSON objects whose keys and values the user gives."""

import json
from typing import Any

from .. import words
from ..dialogue import Dialogue, Exchange, assistant, system, user
from ..slots import Slots

_PLAIN = (
    "Give me a JSON object with {p}.", "Reply with JSON: {p}", "Make a JSON object with {p}.", "Write a JSON object: {p}",
    "As JSON: {p}", "Answer with a JSON object: {p}", "Return JSON with {p}.", "Convert to JSON: {p}", "JSON: {p}",
    "I need a JSON object with {p}.", "Create JSON with {p}", "Turn this into JSON: {p}", "{p}. Answer in JSON.",
    "Give me {p} as JSON.", "Write {p} as a JSON object.", "Output a JSON object with {p}", "Format as JSON: {p}",
    "{p}\n\nReply with a JSON object.", "Please give me JSON with {p}.", "Build a JSON object from {p}.",
)  # fmt: skip
_SYSTEMS = (
    "Answer only with JSON.", "Reply with a JSON object.", "You answer in JSON.", "Reply in JSON only.", "Always answer in JSON.",
    "Your answer is a JSON object and nothing else.", "Output JSON.", "Only JSON.",
)  # fmt: skip


def value_for(slots: Slots) -> tuple[str, Any]:
    """A key and a value that suits it."""
    kind = slots.rng.random()
    if kind < 0.55:
        key = slots.one(("name",) + words.TEXT_KEYS) if slots.chance(0.85) else slots.invented()
        key = slots.word() if slots.varied and slots.chance(0.4) else key
        sources = {
            "name": slots.name,
            "owner": slots.name,
            "city": slots.city,
            "color": slots.color,
            "author": slots.name,
        }
        value = sources.get(key, slots.word)()
        return key, f"{value} {slots.word()}" if slots.chance(0.12) else value
    if kind < 0.9:
        key = slots.one(words.NUMBER_KEYS) if slots.chance(0.9) else slots.invented()
        key = slots.word() if slots.varied and slots.chance(0.4) else key
        return key, slots.number(0, 9) if slots.chance(0.2) else slots.number(10, 999)
    return slots.one(words.FLAG_KEYS), slots.chance(0.5)


def fields(slots: Slots, most: int = 4) -> dict[str, Any]:
    """One to ``most`` keys with values."""
    return dict(value_for(slots) for _ in range(slots.rng.randint(1, most)))


def spoken(value: Any) -> str:
    """A value as the user writes it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _said(slots: Slots, values: dict[str, Any]) -> str:
    style = slots.rng.randrange(6)
    pairs = [(key, spoken(value)) for key, value in values.items()]
    if style == 0:
        return "\n".join(f"{key}: {value}" for key, value in pairs)
    shapes = ("{} {}", "{} = {}", "{}: {}", '{} "{}"', "{} is {}")
    texts = [shapes[style - 1].format(key, value) for key, value in pairs]
    if style in (2, 3) or len(texts) == 1:
        return ", ".join(texts)
    return ", ".join(texts[:-1]) + " and " + texts[-1]


def json_object(slots: Slots) -> Exchange:
    """Keys and values in words, back as a JSON object."""
    values = fields(slots)
    return Exchange(
        slots.phrase(_PLAIN).format(p=_said(slots, values)), json.dumps(values, ensure_ascii=False)
    )


def extracted(slots: Slots) -> Exchange:
    """Values taken out of a sentence."""
    name, age, city, color = slots.name(), slots.number(10, 99), slots.city(), slots.color()
    text, values = slots.rng.choice(
        (
            (f"{name} is {age} years old.", {"name": name, "age": age}),
            (f"{name} lives in {city}.", {"name": name, "city": city}),
            (f"My name is {name} and I am {age} years old.", {"name": name, "age": age}),
            (f"{name} likes {color} and lives in {city}.", {"name": name, "color": color, "city": city}),
            (f"{name} is {age} and lives in {city}.", {"name": name, "age": age, "city": city}),
            (f"{name} bought {age} {slots.word()} in {city}.", {"name": name, "count": age, "city": city}),
        )
    )
    keys = list(values)
    listed = ", ".join(keys[:-1]) + " and " + keys[-1]
    ask = slots.phrase(
        ("Extract {k} as JSON: {t}", "{t}\n\nGive me {k} as JSON.", "Give me a JSON object with {k}: {t}", 'JSON with {k} from: "{t}"',
         "Read {k} from this text and answer in JSON: {t}", "{t} Extract {k} as JSON.", "Extract {k} as JSON.\n\n{t}")
    )  # fmt: skip
    return Exchange(ask.format(k=listed, t=text), json.dumps(values, ensure_ascii=False))


def under_system_prompt(slots: Slots) -> Dialogue:
    """The system prompt asks for JSON, the user only says the values."""
    values = fields(slots)
    messages = [
        system(slots.phrase(_SYSTEMS)),
        user(_said(slots, values)),
        assistant(json.dumps(values, ensure_ascii=False)),
    ]
    return Dialogue(messages)
