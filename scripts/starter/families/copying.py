"""Repeating what the user said: the ability from which recall, tool calls and JSON follow."""

import json

from .. import words
from ..dialogue import Exchange
from ..slots import Slots, vary

_OPENINGS = (
    "Repeat after me: {}", "Repeat: {}", "repeat {}", "Say: {}", "Say {}", "Echo: {}", "echo {}", "Please repeat: {}",
    "Repeat this: {}", "Repeat exactly: {}", "Repeat the following: {}", "Copy this: {}", "Write: {}", "Write this: {}",
    "Please say: {}", "Repeat after me:\n{}", "Copy this text:\n{}", "Repeat the following text:\n\n{}", "Print: {}",
    "Say exactly this: {}", "Repeat my words: {}", "Reply with: {}", "Answer with: {}", "Can you repeat this? {}",
    "Say this back to me: {}", "Repeat the phrase: {}", "Copy exactly: {}", "Reply with exactly this: {}", "Output: {}",
    "Now say: {}", "Type this: {}", "Echo this back: {}", "Respond with: {}", "Just say: {}", "Return this text: {}",
)  # fmt: skip
_QUOTED = (
    'Repeat "{}"', 'Say "{}"', 'Repeat after me: "{}"', 'Please repeat "{}"', 'Repeat the words "{}"', 'Echo "{}"',
    'Repeat the phrase "{}"', 'Say "{}" please', 'Write "{}"', 'Can you say "{}"?', 'Could you repeat "{}"?',
    'Repeat "{}" exactly.', 'Reply with "{}"', 'Answer with "{}" only', 'Repeat "{}" please.', "Repeat '{}'", "Say '{}'",
    'Just answer "{}"', 'Would you say "{}" for me?', 'Copy "{}"', 'I want you to say "{}"', 'Type "{}"', 'Print "{}"',
)  # fmt: skip


def phrase_of(slots: Slots, count: int) -> str:
    """``count`` words as people write them: plain, capitalized, with a comma or a full stop."""
    parts = []
    for _ in range(count):
        kind = slots.rng.random()
        if kind < 0.7:
            part = slots.word()
        elif kind < 0.82:
            part = slots.name()
        elif kind < 0.92:
            part = str(slots.number(10, 9999))
        else:
            part = slots.color()
        parts.append(part)
    text = " ".join(parts)
    if count > 3 and slots.chance(0.2):
        text = text.replace(" ", ", ", 1)
    if slots.chance(0.25):
        text = text[0].upper() + text[1:]
    return text + str(slots.any(("", "", "", ".", "!")))


def _special(slots: Slots) -> str:
    rng = slots.rng
    kind = rng.random()
    if kind < 0.35:
        return " ".join(slots.one(words.FOREIGN) for _ in range(rng.randint(1, 2)))
    if kind < 0.7:
        emoji = [slots.one(words.EMOJI) for _ in range(rng.randint(1, 4))]
        text = str(rng.choice(("", " "))).join(emoji)
        return f"{slots.word()} {text}" if rng.random() < 0.4 else text
    if kind < 0.85:
        return rng.choice("-_./:").join(slots.word() for _ in range(rng.randint(2, 3)))
    return "".join(chr(rng.randint(0xA1, 0x24F)) for _ in range(rng.randint(2, 5)))


_SENTENCES = (
    "The {a} {n} is {b}.", "The {a} {x} {v} in the {n}", "I like {f} and {g}.", "{p} {v} to {c}", "{p} has a {k} {n}.", "The {x} and the {y}",
    "{p} and {q} live in {c}.", "There are {d} {n}s in the {m}", "This is a {a} {n}", "My {n} is {k}, my {m} is {b}.", "It is {a} and {b}",
    "the {a} {k} {x} {v} over the {b} {y}", "Do you want {f}?", "{c} is a {a} city", "We have {d} {x}s and a {n}!", "I am {p}",
)  # fmt: skip


def sentence(slots: Slots) -> str:
    """A plain sentence."""
    return slots.rng.choice(_SENTENCES).format(
        a=slots.one(words.ADJECTIVES), b=slots.one(words.ADJECTIVES), n=slots.one(words.NOUNS), m=slots.word(), x=slots.one(words.ANIMALS),
        y=slots.word(), v=slots.one(words.VERBS), f=slots.one(words.FOODS), g=slots.one(words.FOODS), p=slots.name(), q=slots.name(),
        c=slots.city(), k=slots.color(), d=slots.number(10, 999),
    )  # fmt: skip


def text_to_copy(slots: Slots) -> str:
    """A text of one to ten words, short ones more often; sometimes emoji or another script."""
    if slots.chance(0.14):
        return _special(slots)
    if slots.chance(0.15):
        return sentence(slots)
    count = slots.rng.choices(range(1, 11), (10, 14, 14, 12, 10, 8, 6, 5, 4, 3))[0]
    return phrase_of(slots, count)


def repeat(slots: Slots) -> Exchange:
    """Repeat a phrase, quoted or not."""
    text = text_to_copy(slots)
    if slots.chance(0.4):
        quoted = slots.phrase(_QUOTED)
        return Exchange(quoted.format(text), text)
    return Exchange(slots.phrase(_OPENINGS).format(text), text)


def repeat_often(slots: Slots) -> Exchange:
    """Repeat one word several times."""
    word, times = slots.word(), slots.rng.randint(2, 5)
    ask = slots.phrase(
        ("Say {w} {n} times", "Repeat the word {w} {n} times.", 'Say "{w}" {n} times', "Write {w} {n} times")
    )
    return Exchange(ask.format(w=word, n=times), " ".join([word] * times))


def pick_part(slots: Slots) -> Exchange:
    """The first or the last word of a phrase."""
    parts = [slots.word() for _ in range(slots.rng.randint(2, 6))]
    which = str(slots.any(("first", "last")))
    ask = slots.phrase(
        ("What is the {} word of: {}", 'What is the {} word of "{}"?', "Give me the {} word of: {}", "The {} word of: {}",
         'Which word is {} in "{}"?', 'Say the {} word of "{}"')
    )  # fmt: skip
    return Exchange(ask.format(which, " ".join(parts)), parts[0] if which == "first" else parts[-1])


def from_context(slots: Slots) -> Exchange:
    """A question whose answer stands in a passage, or does not."""
    rng = slots.rng
    things = [slots.word() for _ in range(rng.randint(1, 4))]
    attribute = str(rng.choice(("color", "code", "owner", "place")))
    source = {
        "color": slots.color,
        "code": lambda: str(slots.number(10, 9999)),
        "owner": slots.name,
        "place": slots.city,
    }
    values = [source[attribute]() for _ in things]
    lines = [
        f"The {attribute} of the {thing} is {value}." for thing, value in zip(things, values, strict=True)
    ]
    context = str(rng.choice((" ", "\n"))).join(lines)
    index = rng.randrange(len(things))
    wanted, reply = things[index], f"The {attribute} of the {things[index]} is {values[index]}."
    if slots.chance(0.12):
        wanted, reply = slots.word(), "The text does not say that."
        if wanted in things:
            reply = f"The {attribute} of the {wanted} is {values[things.index(wanted)]}."
    question = slots.phrase(
        (
            "What is the {a} of the {t}?",
            "Tell me the {a} of the {t}.",
            "Which {a} has the {t}?",
            "{a} of the {t}?",
        )
    )
    layout = slots.phrase(
        ("{c}\n\n{q}", "Context:\n{c}\n\nQuestion: {q}", "{c} {q}", "Use this text: {c}\n\n{q}", "Text: {c}\nQuestion: {q}",
         "Answer from the context.\n\nContext: {c}\n\n{q}")
    )  # fmt: skip
    return Exchange(layout.format(c=context, q=question.format(a=attribute, t=wanted)), reply)


def as_list(slots: Slots) -> Exchange:
    """Words into a Markdown list, a numbered list or a JSON array."""
    items = [slots.word() for _ in range(slots.rng.randint(2, 5))]
    kind = str(slots.any(("bullet list", "numbered list", "JSON array")))
    ask = slots.phrase(
        (
            "Make a {k} of {i}",
            "Write a {k}: {i}",
            "Turn this into a {k}: {i}",
            "As a {k}: {i}",
            "Give me a {k} of {i}",
        )
    )
    replies = {
        "bullet list": "\n".join(f"- {item}" for item in items),
        "numbered list": "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1)),
        "JSON array": json.dumps(items, ensure_ascii=False),
    }
    return Exchange(vary(slots, ask.format(k=kind, i=", ".join(items))), replies[kind])
