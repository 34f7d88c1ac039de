"""The mixture: which families of dialogues there are and how much of each the training sees."""

import random
from collections.abc import Callable

from .dialogue import Dialogue, Exchange, system, turns
from .families import about, copying, json_replies, numbers, recall, systems, texts, tool_use, unknown, usage
from .slots import Slots, vary

Maker = Callable[[Slots], Dialogue]
Plain = Callable[[Slots], Exchange]

# Exchanges that stand alone, with their share in mixed chats.
_EXCHANGES: dict[Plain, float] = {
    copying.repeat: 5, usage.usage: 3, numbers.addition: 3, about.greeting: 1.5, about.abilities: 1, about.identity: 1,
    about.small_talk: 1, texts.capital: 1.5, json_replies.json_object: 1.5, about.joke: 0.5, texts.fixed_text: 0.5,
    numbers.counting: 0.5, about.foreign_greeting: 0.7, unknown.unknown: 2, texts.yes_or_no: 0.7,
    numbers.comparison: 0.7, about.named_greeting: 0.7, texts.hello_world: 0.4, recall.told_and_asked_at_once: 0.5,
}  # fmt: skip
_SHORT: tuple[Plain, ...] = (
    copying.repeat, numbers.addition, about.greeting, texts.capital, about.small_talk, about.joke, texts.yes_or_no,
    json_replies.json_object, numbers.comparison, about.foreign_greeting,
)  # fmt: skip


def exchange(slots: Slots) -> Exchange:
    """Any exchange, drawn by share."""
    return slots.rng.choices(list(_EXCHANGES), list(_EXCHANGES.values()))[0](slots)


def short_exchange(slots: Slots) -> Exchange:
    """An exchange that stays short, to stand between two others."""
    return slots.rng.choice(_SHORT)(slots)


def alone(plain: Plain) -> Maker:
    """A dialogue of one exchange."""
    return lambda slots: Dialogue(turns(plain(slots)))


def recall_after(least: int, most: int, facts: int = 1) -> Maker:
    """Recall with ``least`` to ``most`` other exchanges in between."""

    def make(slots: Slots) -> Dialogue:
        fillers = [short_exchange(slots) for _ in range(slots.rng.randint(least, most))]
        dialogue = recall.recall_with(slots, fillers, facts)
        if slots.chance(0.15):
            return Dialogue([system(systems.neutral(slots)), *dialogue.messages])
        return dialogue

    return make


def not_told(slots: Slots) -> Dialogue:
    """The user asks for something that was never told."""
    memory = slots.rng.choice(recall.MEMORIES)
    fillers = [short_exchange(slots) for _ in range(slots.rng.randint(0, 2))]
    other = slots.rng.choice([one for one in recall.MEMORIES if one is not memory])
    if slots.chance(0.4) and {memory.kind, other.kind} != {"name", "pet"}:
        fillers.append(recall.told(other, recall.value_of(other, slots), slots))
    last = Exchange(vary(slots, slots.phrase(memory.ask)), "You have not told me that yet.")
    return Dialogue(turns(*fillers, last))


def chat(least: int, most: int) -> Maker:
    """Several exchanges of any kind."""

    def make(slots: Slots) -> Dialogue:
        exchanges = [exchange(slots) for _ in range(slots.rng.randint(least, most))]
        start = [system(systems.neutral(slots))] if slots.chance(0.25) else []
        return Dialogue([*start, *turns(*exchanges)])

    return make


def long_chat(slots: Slots) -> Dialogue:
    """A chat that fills most of the context, with a fact told early and asked for at the end."""
    wanted = slots.rng.randint(600, 4800)  # characters; two to three to a token
    fillers: list[Exchange] = []
    while sum(len(one.user) + len(one.reply) + 40 for one in fillers) < wanted:
        fillers.append(
            unknown.pasted(slots, slots.rng.randint(4, 30)) if slots.chance(0.08) else exchange(slots)
        )
    clash = ("name", "number", "word")  # fillers may greet by name or ask for the same thing
    memory = slots.rng.choice([one for one in recall.MEMORIES if one.kind not in clash])
    value = recall.value_of(memory, slots)
    fillers = [one for one in fillers if memory.kind not in one.user]
    return Dialogue(turns(recall.told(memory, value, slots), *fillers, recall.asked(memory, value, slots)))


def long_paste(slots: Slots) -> Dialogue:
    """A long pasted text and a task that is beyond the model."""
    return Dialogue(turns(unknown.pasted(slots, slots.rng.randint(10, 70))))


def tool_chat(slots: Slots) -> Dialogue:
    """Tools, other talk, tools again."""
    return tool_use.tool_chat(slots, [short_exchange(slots) for _ in range(slots.rng.randint(0, 2))])


def no_tool_needed(slots: Slots) -> Dialogue:
    """Tools are there and any exchange that needs none."""
    return tool_use.no_tool_needed(slots, exchange)


def thinking(slots: Slots) -> Dialogue:
    """A system prompt that asks for visible reasoning before a sum."""
    asks = (
        "Think before you answer.",
        "Think first.",
        "Think step by step.",
        "Show your thoughts first.",
        "Reason before you answer.",
    )
    return Dialogue([system(slots.phrase(asks)), *turns(numbers.thought_addition(slots))])


# Rows of training by share, at first. Copying has the largest, because recall, JSON and tool calls are copying too.
FAMILIES: dict[str, tuple[float, Maker]] = {
    "repeat": (18, alone(copying.repeat)),
    "repeat_often": (0.7, alone(copying.repeat_often)),
    "pick_part": (1, alone(copying.pick_part)),
    "as_list": (1.2, alone(copying.as_list)),
    "context": (2.5, alone(copying.from_context)),
    "greeting": (2, alone(about.greeting)),
    "named_greeting": (0.8, alone(about.named_greeting)),
    "foreign_greeting": (1, alone(about.foreign_greeting)),
    "identity": (1.5, alone(about.identity)),
    "abilities": (2, alone(about.abilities)),
    "small_talk": (1, alone(about.small_talk)),
    "joke": (0.7, alone(about.joke)),
    "usage": (12, alone(usage.usage)),
    "fallback": (8, alone(unknown.unknown)),
    "pasted": (1.2, alone(unknown.pasted)),
    "long_paste": (0.25, long_paste),
    "recall_1": (3, recall_after(0, 0)),
    "recall_2": (2, recall_after(1, 1)),
    "recall_3": (2, recall_after(2, 4)),
    "recall_many": (1.5, recall_after(0, 2, facts=2)),
    "recall_changed": (0.6, recall.changed_mind),
    "recall_at_once": (0.8, alone(recall.told_and_asked_at_once)),
    "recall_system": (0.8, recall.from_system),
    "not_told": (1, not_told),
    "addition": (5, alone(numbers.addition)),
    "addition_small": (0, alone(numbers.small_addition)),
    "comparison": (1, alone(numbers.comparison)),
    "counting": (0.8, alone(numbers.counting)),
    "thinking": (0.6, thinking),
    "capital": (2.5, alone(texts.capital)),
    "fixed_text": (0.8, alone(texts.fixed_text)),
    "hello_world": (0.7, alone(texts.hello_world)),
    "story": (0.8, alone(texts.story)),
    "yes_or_no": (1, alone(texts.yes_or_no)),
    "choice": (0.7, alone(texts.choice)),
    "json": (6, alone(json_replies.json_object)),
    "json_extracted": (2, alone(json_replies.extracted)),
    "json_system": (1.2, json_replies.under_system_prompt),
    "system_capitals": (2, systems.capitals),
    "system_brief": (2.2, systems.brief),
    "system_persona": (2, systems.persona),
    "system_ending": (1.2, systems.ending),
    "system_neutral": (1.5, systems.with_neutral_system),
    "tool_call": (7, tool_use.tool_call),
    "tool_calls_two": (1.5, tool_use.two_tool_calls),
    "tool_result": (3.5, tool_use.tool_result),
    "tool_chat": (0.8, tool_chat),
    "tool_not_needed": (3.2, no_tool_needed),
    "chat": (2.5, chat(2, 5)),
    "chat_long": (0.5, chat(6, 9)),
    "long_chat": (0.4, long_chat),
}
# Later in the training: less of what is learned early (facts, copying), more of what takes long (sums, tools, choices).
_LATE: dict[str, float] = {
    "repeat": 10, "usage": 7, "fallback": 6, "greeting": 1.5, "abilities": 1.2, "identity": 1, "addition": 7, "addition_small": 10,
    "thinking": 2.5, "story": 2.5, "not_told": 3, "recall_1": 2, "json": 8, "json_extracted": 2.5, "tool_call": 8, "tool_calls_two": 2.2,
    "tool_not_needed": 4.5, "system_brief": 3.5, "system_capitals": 3.5, "system_ending": 2.2, "system_persona": 2.5, "context": 3.5,
    "yes_or_no": 1.5, "comparison": 2, "counting": 1.4, "pick_part": 2, "as_list": 1.8, "repeat_often": 1.5, "long_chat": 0.5,
}  # fmt: skip
_NAMES = list(FAMILIES)
_EARLY_SHARES = [share for share, _ in FAMILIES.values()]
_LATE_SHARES = [_LATE.get(name, share) for name, (share, _) in FAMILIES.items()]
# These may be longer than the rest; the others must fit into ROW_TOKENS.
LONG_FAMILIES = frozenset({"long_chat", "long_paste", "chat_long", "tool_chat"})


def draw(rng: random.Random, late: bool = False, varied: bool = False) -> tuple[str, Dialogue]:
    """One row of training: the family and the dialogue, with values and phrasings from the seen side only."""
    name = rng.choices(_NAMES, _LATE_SHARES if late else _EARLY_SHARES)[0]
    return name, FAMILIES[name][1](Slots(rng, varied=varied))


def drawn_for_evaluation(name: str, rng: random.Random, new_phrasings: bool) -> Dialogue:
    """A dialogue with unseen values, and with unseen phrasings if asked."""
    return FAMILIES[name][1](Slots(rng, new_values=True, new_phrasings=new_phrasings))
