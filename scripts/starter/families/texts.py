"""Short fixed texts: capitals, calendars, code, Markdown, a story with a name in it, yes or no."""

from .. import words
from ..dialogue import Exchange
from ..slots import Slots, is_held_out_phrasing, vary

_CAPITAL_ASKS = (
    "What is the capital of {}?", "what is the capital of {}", "Capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.",
    "Tell me the capital of {}.", "What's the capital of {}?", "Do you know the capital of {}?", "The capital of {}?",
    "What is the capital city of {}?", "Can you tell me the capital of {}?", "Say the capital of {}.", "capital of {}",
)  # fmt: skip
_LANGUAGES = {
    "Python": ("python", 'print("Hello, world!")'),
    "JavaScript": ("javascript", 'console.log("Hello, world!");'),
    "Bash": ("bash", 'echo "Hello, world!"'),
    "C": ("c", '#include <stdio.h>\n\nint main(void) {\n    puts("Hello, world!");\n    return 0;\n}'),
    "Go": ("go", 'package main\n\nimport "fmt"\n\nfunc main() {\n    fmt.Println("Hello, world!")\n}'),
    "Rust": ("rust", 'fn main() {\n    println!("Hello, world!");\n}'),
    "HTML": ("html", "<p>Hello, world!</p>"),
    "Ruby": ("ruby", 'puts "Hello, world!"'),
}
MARKDOWN = (
    "# A heading\n\nSome *italic* and **bold** text with `code`.\n\n- one\n- two\n\n"
    "| color | number |\n| --- | --- |\n| red | 1 |\n| blue | 2 |\n\n```python\nprint(1 + 1)\n```"
)
TABLE = "| color | number |\n| --- | --- |\n| red | 1 |\n| blue | 2 |"
POEM = "A little model sat at home,\nit had no need to ever roam.\nIt kept each word that it was told\nand did not let it out of hold."
_FIXED = (
    (("List the days of the week", "What are the days of the week?", "Name the days of the week", "Which days has a week?"),
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    (("List the months of the year", "What are the months of the year?", "Name the months", "Which months has a year?", "List the months"),
     "January, February, March, April, May, June, July, August, September, October, November, December"),
    (("Say the alphabet", "What is the alphabet?", "List the letters of the alphabet", "Recite the alphabet", "Write the alphabet"),
     "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    (("Show me some Markdown", "Give me an example of Markdown", "Show Markdown", "Write some Markdown", "Markdown example", "Show me Markdown"),
     MARKDOWN),
    (("Write a table", "Show me a table", "Give me a Markdown table", "Make a table", "Show me a Markdown table"), TABLE),
    (("Write a poem", "Tell me a poem", "Write me a poem", "Can you write a poem?", "A poem please", "Write a short poem"), POEM),
    (("What are the primary colors?", "Name three colors", "List three colors", "Tell me three colors"), "red, yellow, blue"),
)  # fmt: skip
_CODE_ASKS = (
    "Write hello world in {}", "Hello world in {}", "Show me hello world in {}", "Write a hello world program in {}", "Give me a {} hello world",
    "How do I print hello world in {}?", "Write a {} program", "Show me some {} code", "Write {} code", "An example in {}",
)  # fmt: skip


def capital(slots: Slots) -> Exchange:
    """The capital of a country."""
    country, city = slots.rng.choice(words.CAPITALS)
    if slots.chance(0.08):
        return Exchange(f"Is {city} the capital of {country}?", "Yes.")
    reply = f"The capital of {country} is {city}."
    return Exchange(vary(slots, slots.phrase(_CAPITAL_ASKS).format(country)), reply)


def fixed_text(slots: Slots) -> Exchange:
    """Days, months, the alphabet, a poem, Markdown."""
    asks, reply = slots.rng.choice(_FIXED)
    return Exchange(vary(slots, slots.phrase(asks)), reply)


def hello_world(slots: Slots) -> Exchange:
    """Hello world as a fenced block of code."""
    language = str(slots.any(tuple(_LANGUAGES)))
    tag, code = _LANGUAGES[language]
    return Exchange(vary(slots, slots.phrase(_CODE_ASKS).format(language)), f"```{tag}\n{code}\n```")


def story(slots: Slots) -> Exchange:
    """A story of six sentences about a name and a place that the user gives: a long reply with slots."""
    name, city, animal = slots.name(), slots.city(), slots.one(words.ANIMALS)
    ask = slots.phrase(
        ("Tell me a story about {n} from {c} and a {a}.", "Write a story about {n}, who lives in {c} with a {a}.",
         "A story about {n} in {c} with a {a}, please.", "Write a story with {n}, {c} and a {a}.", "Story: {n}, {c}, {a}")
    )  # fmt: skip
    reply = (
        f"Once upon a time {name} lived in {city}. One morning {name} found a {animal} at the door. "
        f"The {animal} was cold and had come a long way. {name} gave it bread and a warm place to sleep. "
        f"The next day all of {city} came to see the {animal}. From then on {name} and the {animal} were friends."
    )
    return Exchange(ask.format(n=name, c=city, a=animal), reply)


def yes_or_no(slots: Slots) -> Exchange:
    """Whether a word is a color, an animal or a food; each by its list."""
    lists = {"a color": words.COLORS, "an animal": words.ANIMALS, "a food": words.FOODS}
    kind = str(slots.any(tuple(lists)))
    source = str(slots.any(tuple(lists))) if slots.chance(0.5) else kind
    # Membership cannot be guessed for an unseen word, so these words are always seen ones.
    seen = Slots(slots.rng, new_phrasings=slots.new_phrasings)
    word = seen.one(
        [one for one in lists[source] if one not in ("salmon", "peach", "plum", "mint", "olive", "chocolate")]
    )
    ask = slots.phrase(
        (
            "Is {w} {k}?",
            "Is {w} {k}? Answer yes or no.",
            "Yes or no: is {w} {k}?",
            "Would you call {w} {k}?",
            "{w}: is it {k}?",
        )
    )
    return Exchange(ask.format(w=word, k=kind), "Yes." if source == kind else "No.")


def choice(slots: Slots) -> Exchange:
    """Choose between two words: always the first, so that the reply is known."""
    one, two = slots.word(), slots.word()
    ask = slots.phrase(
        (
            "Choose {a} or {b}.",
            "{a} or {b}?",
            "Pick one: {a} or {b}",
            "Which one, {a} or {b}?",
            "Would you take {a} or {b}?",
        )
    )
    return Exchange(ask.format(a=one, b=two), f"I choose {one}.")


def held_out_phrasings() -> list[str]:
    """Phrasings of this module that training must not show (for the tests)."""
    groups = [_CAPITAL_ASKS, _CODE_ASKS, *(asks for asks, _ in _FIXED)]
    return [text for group in groups for text in group[1:] if is_held_out_phrasing(text)]
