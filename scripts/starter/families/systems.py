"""Short system prompts that change the reply: capitals, one word, a persona, an ending."""

from ..dialogue import Dialogue, Exchange, system, turns
from ..slots import Slots, vary
from .about import abilities, foreign_greeting, greeting, identity, joke, small_talk
from .copying import repeat
from .numbers import addition, counting
from .recall import MEMORIES, asked, told, value_of
from .texts import capital
from .usage import usage

_CAPITALS = (
    "Reply in capital letters.", "Write in capital letters.", "Answer in capitals.", "Use only capital letters.", "ALWAYS USE CAPITALS.",
    "Answer in upper case.", "Reply in uppercase.", "Always reply in capital letters.", "You write everything in capitals.",
    "Speak in capital letters only.", "Reply in all caps.", "Answer in all caps.", "Your answers are in capital letters.",
    "Use capitals.", "Shout: write in capital letters.", "All your replies must be in capital letters.",
)  # fmt: skip
_BRIEF = (
    "Reply briefly.", "Answer in one word.", "Be brief.", "Reply with one word.", "Answer with a single word.", "Keep it short.",
    "One word answers only.", "Be concise.", "Short answers only.", "Answer briefly.", "Reply as briefly as you can.",
    "Give the shortest answer.", "Use as few words as possible.", "Be very brief.", "Your answers have one word.",
)  # fmt: skip
_PERSONAS = (
    "Your name is {}.", "You are {}.", "You are called {}.", "You are {}, a {}.", "Your name is {} and you are a {}.", "Act as {}, a {}.",
    "You are a {1} called {0}.", "You are a {1} named {0}.", "Pretend to be {}, a {}.", "You play {}, a {}.", "Be {}, the {}.",
)  # fmt: skip
_ROLES = "pirate robot wizard teacher poet doctor gardener sailor detective cook librarian knight painter dragon guide ghost farmer".split()
_ENDINGS = (
    "End every reply with the word {}.", "End each reply with {}.", "Finish every answer with the word {}.", "Always end with {}.",
    "Put the word {} at the end of every reply.", "The last word of each reply is {}.",
)  # fmt: skip
_NEUTRAL = (
    "You are a helpful assistant.", "You are a friendly assistant.", "You are helpful.", "Answer the questions of the user.", "Be helpful.",
    "You are a chat assistant.", "Be kind and helpful.", "You are a helpful and honest assistant.", "Help the user.", "You are an AI assistant.",
)  # fmt: skip


def neutral(slots: Slots) -> str:
    """A system prompt that changes nothing."""
    return slots.phrase(_NEUTRAL)


def capitals(slots: Slots) -> Dialogue:
    """The usual reply, in capital letters. Commands keep their case, so replies with commands are left out."""
    exchange = slots.rng.choice((greeting, capital, capital, joke, small_talk, counting, addition))(slots)
    return Dialogue(
        [system(slots.phrase(_CAPITALS)), *turns(Exchange(exchange.user, exchange.reply.upper()))]
    )


def brief(slots: Slots) -> Dialogue:
    """The heart of the usual reply."""
    kind = slots.rng.randrange(5)
    prompt = system(slots.phrase(_BRIEF))
    if kind == 0:
        exchange = capital(slots)
        return Dialogue(
            [prompt, *turns(Exchange(exchange.user, exchange.reply.rstrip(".").split(" is ")[-1]))]
        )
    if kind == 1:
        exchange = addition(slots)
        return Dialogue([prompt, *turns(Exchange(exchange.user, exchange.reply.split(" = ")[-1]))])
    if kind == 2:
        return Dialogue([prompt, *turns(Exchange(greeting(slots).user, "Hello"))])
    if kind == 3:
        return Dialogue([prompt, *turns(Exchange(identity(slots).user, "Starter"))])
    memory = slots.rng.choice(MEMORIES)
    value = value_of(memory, slots)
    tell, ask = told(memory, value, slots), asked(memory, value, slots)
    return Dialogue([prompt, *turns(Exchange(tell.user, "Ok"), Exchange(ask.user, value))])


def persona(slots: Slots) -> Dialogue:
    """A name, perhaps with a role; the model keeps to it."""
    name, role = slots.name(), str(slots.any(_ROLES))
    template = slots.phrase(_PERSONAS)
    prompt = system(
        template.format(name, role) + str(slots.any(("", "", " Be friendly.", " Stay in character.")))
    )
    has_role = role in prompt["content"]
    who = f"I am {name}, a {role}." if has_role else f"I am {name}."
    asks = ("Who are you?", "What is your name?", "Introduce yourself.", "Tell me about yourself.", "Who am I talking to?", "What are you called?",
            "What's your name?", "Say who you are.", "What are you?", "Please introduce yourself.", "How are you called?")  # fmt: skip
    exchanges = [Exchange(vary(slots, slots.phrase(asks)), who)]
    if slots.chance(0.3):
        exchanges.insert(0, Exchange(greeting(slots).user, f"Hello! {who} How can I help you?"))
        if slots.chance(0.5):
            exchanges.pop()
    elif slots.chance(0.2):
        exchanges.insert(0, addition(slots))
    return Dialogue([prompt, *turns(*exchanges)])


def ending(slots: Slots) -> Dialogue:
    """Every reply ends with a given word."""
    word = slots.word()
    makers = (greeting, capital, addition, small_talk, repeat)
    exchanges = [slots.rng.choice(makers)(slots) for _ in range(slots.rng.randint(1, 2))]
    ended = [Exchange(one.user, f"{one.reply} {word}") for one in exchanges]
    return Dialogue([system(slots.phrase(_ENDINGS).format(word)), *turns(*ended)])


def with_neutral_system(slots: Slots) -> Dialogue:
    """An assistant's usual system prompt in front of a usual exchange."""
    makers = (
        greeting,
        abilities,
        identity,
        capital,
        addition,
        repeat,
        usage,
        foreign_greeting,
        joke,
        small_talk,
    )
    exchanges = [slots.rng.choice(makers)(slots) for _ in range(slots.rng.randint(1, 2))]
    return Dialogue([system(neutral(slots)), *turns(*exchanges)])
