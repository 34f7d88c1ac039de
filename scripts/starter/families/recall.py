"""Facts about the user, told in one turn and asked for in a later one."""

from dataclasses import dataclass

from .. import words
from ..dialogue import Dialogue, Exchange, system, turns
from ..slots import Slots, vary


@dataclass(frozen=True)
class Memory:
    """One kind of fact: how it is told, acknowledged, asked for and answered."""

    kind: str
    tell: tuple[str, ...]
    heard: str
    ask: tuple[str, ...]
    answer: str


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


# fmt: off
MEMORIES: tuple[Memory, ...] = (
    Memory("name", _lines("My name is {}.|I am called {}.|I am {}.|Hi, my name is {}.|Call me {}.|You can call me {}."
                          "|Hello, I am {}.|People call me {}.|My name is {}, remember it.|Remember my name: {}|I'm {}."),
           "Hello {}! How can I help you?",
           _lines("What is my name?|Who am I?|What am I called?|Do you remember my name?|Tell me my name.|Say my name."
                  "|What's my name?|How am I called?|Can you tell me my name?|Which name did I tell you?|Do you know my name?"
                  "|My name is?|What was my name?|what is my name"),
           "Your name is {}."),
    Memory("color", _lines("My favorite color is {}.|I like the color {}.|My favorite color is {}, remember it."
                           "|The color I like best is {}.|I love the color {}.|Remember: my favorite color is {}."
                           "|My favourite color is {}.|My preferred color is {}."),
           "I will remember that your favorite color is {}.",
           _lines("What is my favorite color?|Which color do I like?|Do you remember my favorite color?|Which color is my favorite?"
                  "|Tell me my favorite color.|What color do I like best?|What was my favorite color?|My favorite color is?"
                  "|What's my favorite color?|Which color do I like best?"),
           "Your favorite color is {}."),
    Memory("number", _lines("My number is {}.|My lucky number is {}.|Remember the number {}.|The number is {}.|Keep the number {} in mind."
                            "|Please remember the number {}.|Remember this number: {}|Note the number {}.|My favorite number is {}."),
           "I will remember the number {}.",
           _lines("What is my number?|What number did I tell you?|Which number did I tell you?|What was the number?|What was my number?"
                  "|Tell me the number.|Do you remember the number?|What is the number?|Which number should you remember?"
                  "|What is my lucky number?|Say the number again.|What number was it?"),
           "The number is {}."),
    Memory("city", _lines("I live in {}.|My home is in {}.|I am from {}.|My city is {}.|I come from {}.|My home town is {}."),
           "{} sounds like a nice place.",
           _lines("Where do I live?|Which city do I live in?|Where am I from?|What is my city?|Do you remember where I live?"
                  "|In which city do I live?|Tell me where I live.|Where is my home?"),
           "You live in {}."),
    Memory("pet", _lines("I have a pet called {}.|My pet is called {}.|The name of my pet is {}.|My pet's name is {}.|I have a pet named {}."),
           "{} is a nice name for a pet.",
           _lines("What is my pet called?|What is the name of my pet?|Do you remember the name of my pet?|What is my pet's name?"
                  "|How is my pet called?|Tell me the name of my pet."),
           "Your pet is called {}."),
    Memory("word", _lines("The secret word is {}.|Remember the word {}.|My code word is {}.|The password is {}.|Remember this word: {}"
                          "|Please remember the word {}.|The magic word is {}."),
           "I will remember the word {}.",
           _lines("What is the secret word?|What was the word?|What is the word?|Which word did I tell you?|Do you remember the word?"
                  "|What is the password?|Tell me the word.|What is my code word?|What is the magic word?|Say the word."),
           "The word is {}."),
    Memory("food", _lines("My favorite food is {}.|I like to eat {}.|The food I like best is {}.|I love {}."),
           "I will remember that you like {}.",
           _lines("What is my favorite food?|What do I like to eat?|Which food do I like?|Do you remember my favorite food?"),
           "You like {}."),
)
# fmt: on


def value_of(memory: Memory, slots: Slots) -> str:
    """A value for one kind of fact."""
    sources = {
        "name": slots.name,
        "pet": slots.name,
        "city": slots.city,
        "color": slots.color,
        "word": slots.word,
    }
    if memory.kind == "number":
        return str(slots.number(10, int(str(slots.any((99, 99, 999, 9999))))))
    if memory.kind == "food":
        return slots.one(words.FOODS)
    return sources[memory.kind]()


def told(memory: Memory, value: str, slots: Slots) -> Exchange:
    """The turn in which the fact is told."""
    return Exchange(slots.phrase(memory.tell).format(value), memory.heard.format(value))


def asked(memory: Memory, value: str, slots: Slots) -> Exchange:
    """The turn in which the fact is asked for."""
    return Exchange(vary(slots, slots.phrase(memory.ask)), memory.answer.format(value))


def recall_with(slots: Slots, fillers: list[Exchange], how_many: int = 1) -> Dialogue:
    """Tell one or more facts, talk of something else, then ask for one of them (or for all, in turn)."""
    memories = slots.rng.sample(MEMORIES, how_many)
    values = [value_of(memory, slots) for memory in memories]
    exchanges = [told(memory, value, slots) for memory, value in zip(memories, values, strict=True)]
    middle = exchanges + fillers
    if how_many > 1:
        slots.rng.shuffle(middle)
    order = list(range(how_many))
    slots.rng.shuffle(order)
    asks = order if slots.chance(0.4) else order[:1]
    middle += [asked(memories[index], values[index], slots) for index in asks]
    return Dialogue(turns(*middle))


def told_and_asked_at_once(slots: Slots) -> Exchange:
    """The fact and the question in one turn."""
    memory = slots.rng.choice(MEMORIES)
    value = value_of(memory, slots)
    tell = slots.phrase(memory.tell).format(value)
    joint = str(slots.any((" ", "\n", "\n\n")))
    return Exchange(f"{tell}{joint}{slots.phrase(memory.ask)}", memory.answer.format(value))


def changed_mind(slots: Slots) -> Dialogue:
    """The fact changes; the newer one counts."""
    memory = slots.rng.choice(MEMORIES[:3])
    old, new = value_of(memory, slots), value_of(memory, slots)
    return Dialogue(turns(told(memory, old, slots), told(memory, new, slots), asked(memory, new, slots)))


def from_system(slots: Slots) -> Dialogue:
    """The fact stands in the system prompt."""
    memory = slots.rng.choice(MEMORIES)
    value = value_of(memory, slots)
    forms = {
        "name": "The name of the user is {}.", "color": "The favorite color of the user is {}.", "number": "The number is {}.",
        "city": "The user lives in {}.", "pet": "The pet of the user is called {}.", "word": "The secret word is {}.",
        "food": "The favorite food of the user is {}.",
    }  # fmt: skip
    return Dialogue([system(forms[memory.kind].format(value)), *turns(asked(memory, value, slots))])
