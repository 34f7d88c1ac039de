"""Questions that a tiny model cannot answer: it says so, always in the same words."""

from .. import words
from ..dialogue import REAL_MODEL, Exchange
from ..slots import Slots, vary

FALLBACK = (
    "I cannot answer that: I am only a tiny demonstration model. "
    f'A real model can: `{REAL_MODEL} "your question"`'
)
_THEMES: tuple[str, ...] = tuple(
    theme.strip()
    for theme in """quantum physics|black holes|the French Revolution|climate change|photosynthesis|the stock market|gravity
    |machine learning|the Roman Empire|evolution|chess openings|jazz music|the human brain|inflation|volcanoes
    |blockchain|ancient Egypt|electric cars|vaccines|the solar system|dinosaurs|football|tennis|opera|philosophy
    |democracy|economics|chemistry|algebra|geometry|neural networks|the big bang|plate tectonics|World War II
    |the moon landing|Shakespeare|Mozart|Picasso|Einstein|Napoleon|the Eiffel Tower|the Amazon|bees|whales
    |sourdough bread|coffee|wine|yoga|meditation|marathon training|knitting|gardening|taxes|insurance|mortgages
    |Kubernetes|Docker|Rust|Haskell|SQL joins|regular expressions|binary search|recursion|the internet|encryption
    |love|happiness|the weather|politics|history|art|science|cooking|travel|health|money|sports|movies|books""".split(
        "|"
    )
)
_QUESTIONS = (
    "Explain {t}", "What is {t}?", "Tell me about {t}", "Why is {t} important?", "Write an essay about {t}",
    "Who invented {t}?", "Give me a summary of {t}", "How does {t} work?", "What do you think about {t}?",
    "Who is the president of {c}?", "How many people live in {c}?", "What is the weather in {c}?", "How far is {c} from {d}?",
    "Who won the world cup in {y}?", "What happened in {y}?", "How old is {n}?", "Who is {n}?", "Where does {n} live?",
    "How do I cook {f}?", "Give me a recipe for {f}", "What is the best {w} in {c}?", "Why are {a}s so {j}?",
    "Write a song about {t}", "Translate 'the {j} {w}' into French", "What is the meaning of life?", "How much is a {w}?",
    "What does {x} mean?", "Define {x}", "Which {w} should I buy?", "Is {t} dangerous?", "What time is it?",
    "What is the date today?", "Write a program that sorts a list of {w}s", "Debug my code", "Fix this bug",
    "Recommend a book about {t}", "What is the history of {c}?", "Plan a trip to {c}", "Give me advice about {t}",
    "What is the square root of {y}?", "Solve this equation", "Compare {t} and {u}", "Write an email to {n} about {t}",
    "When was {n} born?", "What causes {t}?", "Can you draw a {w}?", "Who wrote {t}?", "What is the price of {f}?",
    "How tall is the {w}?", "Where can I buy {f} in {c}?", "Does {n} like {f}?", "What is the news today?",
    "How do {a}s sleep?", "What do {a}s eat?", "Where is the {w}?", "What is a {w}?", "Why is the {w} {j}?",
    "Is it going to rain in {c}?", "Will {n} win?", "What is the largest {w} in the world?", "When did {t} begin?",
    "How long does it take to learn {t}?", "What should I wear in {c}?", "Teach me {t}", "Discuss {t}",
    "Write a review of a {w}", "What is your opinion on {t}?", "Do you like {f}?", "How many {a}s are there in {c}?",
    "I am bored", "I feel {j} today", "What is your favorite {w}?", "Do you dream?", "My {w} is {j}. What can I do?",
    "Which is better, {f} or {g}?", "What comes after {t}?", "List ten facts about {t}", "Who discovered {t}?",
)  # fmt: skip
_PASTED_TASKS = (
    "Summarize this", "Summarize this.", "Summarize the text above", "What does this mean?", "Explain this",
    "Explain this code", "Review this diff", "Write a commit message for this", "Translate this", "Find the bug",
    "Is this correct?", "Improve this text", "Give me the main points", "Shorten this", "Rewrite this", "TL;DR",
    "What is this about?", "Comment on this", "Describe the changes", "Check the spelling of this",
)  # fmt: skip


def unknown(slots: Slots) -> Exchange:
    """A question of general knowledge, asked for things that are filled in at random."""
    rng = slots.rng
    text = slots.phrase(_QUESTIONS).format(
        t=rng.choice(_THEMES), u=rng.choice(_THEMES), c=slots.city(), d=slots.city(), y=slots.number(1000, 2030),
        n=slots.name(), f=slots.one(words.FOODS), g=slots.one(words.FOODS), w=slots.one(words.NOUNS),
        a=slots.one(words.ANIMALS), j=slots.one(words.ADJECTIVES), x=slots.invented(),
    )  # fmt: skip
    return Exchange(vary(slots, text), FALLBACK)


def _sentence(slots: Slots) -> str:
    words_in_it = [slots.word() for _ in range(slots.rng.randint(3, 9))]
    return " ".join(words_in_it).capitalize() + "."


def _code_line(slots: Slots) -> str:
    one, two = slots.word(), slots.word()
    shape = slots.any(
        ("{a} = {b}({n})", "def {a}({b}):", "    return {a} + {n}", "+    {a} = {b}", "-    {a} = {n}",
         "import {a}", "if {a} == {n}:", "@@ -{n},7 +{n},9 @@", "diff --git a/{a}.py b/{a}.py", "# {a} {b}")
    )  # fmt: skip
    return str(shape).format(a=one, b=two, n=slots.number(10, 400))


def pasted(slots: Slots, lines: int | None = None) -> Exchange:
    """A pasted text with a task, as ``git diff | run_once.py "Summarize this"`` makes it: beyond a tiny model."""
    count = lines or slots.rng.randint(1, 8)
    line = _code_line if slots.chance(0.5) else _sentence
    text = "\n".join(line(slots) for _ in range(count))
    task = slots.phrase(_PASTED_TASKS)
    order = f"{text}\n\n{task}" if slots.chance(0.8) else f"{task}:\n{text}"
    return Exchange(order, FALLBACK)
