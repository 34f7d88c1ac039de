"""Slot values and phrasings on one side of the split: seen in training, or kept for the evaluation.

The side of a value is a hash of the value itself, so it is the same in every run, on every machine and in every
family: a name that the evaluation uses in a tool call was not learned as a name in a greeting either.
"""

import functools
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import words

T = TypeVar("T")

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t tr v w y z".split()
_VOWELS = "a e i o u a e i o ai ea oo ou".split()
_CODAS = ["", "", "", "", "l", "n", "r", "s", "t", "x", "m", "nd", "rk", "st", "ck"]

# Words that the fixed texts of the corpus use: they are seen in training, so they cannot be held out.
FIXED_WORDS = frozenset(
    """cat dog red blue green yellow story poem song light small full map table letter picture old tiny quick clock
    river garden happy sad cold warm early late simple story coffee fire ice snow winter summer spring autumn sugar
    city language path format style unit query title label status limit port page size count age minutes days
    temperature public private hidden Paris London Berlin Tokyo Rome Madrid Alice Bob Sam library school apples
    bread cheese chicken cow pig horse mouse fish duck frog snake sheep goat penguin owl spider rabbit fox amount
    gold silver station office morning evening price product category weight level rice soup pizza pasta bread sharp
    score volume seats country animal fruit color topic verbose available ready hours speed distance humidity
    owner turns rich stops market stock flag works ruby
    Will Grace Iris Violet Frank Wolf Nice Split Linz black white iron hard soft dry wet big heavy round""".split()
) | {city for _, city in words.CAPITALS}


def share_of(text: str, parts: int) -> int:
    """Which of ``parts`` equal shares ``text`` falls into, by a hash that never changes."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % parts


@functools.cache
def is_held_out(value: str) -> bool:
    """Whether a slot value is kept for the evaluation (about one in six)."""
    return value not in FIXED_WORDS and share_of(f"slot {value.lower()}", 6) == 0


@functools.cache
def is_held_out_phrasing(template: str) -> bool:
    """Whether a phrasing is kept for the evaluation (about one in six)."""
    return share_of(f"phrasing {template}", 6) == 0


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of one to three syllables that means nothing."""
    syllables = rng.choices((1, 2, 3), (1, 5, 2))[0]
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))


@dataclass
class Slots:
    """Draws slot values and phrasings. ``new_values`` and ``new_phrasings`` choose the side of the split.

    ``varied`` asks for rarer values: late in the training they keep the model from guessing what it should copy.
    """

    rng: random.Random
    new_values: bool = False
    new_phrasings: bool = False
    varied: bool = False

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def any(self, items: Sequence[T]) -> T:
        """One of ``items``, with no regard to the split (for things that are no slot values)."""
        return self.rng.choice(items)

    def one(self, values: Sequence[str]) -> str:
        """A value on the right side of the split (any value, if a short list has none there)."""
        side = [value for value in values if is_held_out(value) == self.new_values]
        return self.rng.choice(side or values)

    def draw(self, source: Callable[[], str]) -> str:
        """Draw from ``source`` until the value lies on the right side of the split."""
        for _ in range(2000):
            value = source()
            if is_held_out(value) == self.new_values:
                return value
        raise ValueError("no value on this side of the split; the list is too short")

    def phrase(self, templates: Sequence[str]) -> str:
        """A phrasing on the right side of the split. The first of a list is always seen in training."""
        held = [text for text in templates[1:] if is_held_out_phrasing(text)]
        if self.new_phrasings and held:
            return self.rng.choice(held)
        return self.rng.choice([text for text in templates if text not in held])

    def word(self) -> str:
        """A word, real or invented."""
        if self.chance(0.5):
            return self.draw(lambda: invented_word(self.rng))
        return self.one(
            self.rng.choice((words.NOUNS, words.NOUNS, words.ADJECTIVES, words.ANIMALS, words.VERBS))
        )

    def invented(self) -> str:
        """An invented word."""
        return self.draw(lambda: invented_word(self.rng))

    def name(self) -> str:
        """A given name, real or invented."""
        if self.chance(0.4):
            return self.draw(lambda: invented_word(self.rng).capitalize())
        return self.one(words.NAMES)

    def city(self) -> str:
        """A city, real or invented."""
        if self.chance(0.35):
            return self.draw(lambda: invented_word(self.rng).capitalize())
        return self.one(words.CITIES)

    def color(self) -> str:
        """A color."""
        return self.one(words.COLORS)

    def number(self, low: int, high: int) -> int:
        """A whole number in [low, high]; numbers below ten are on both sides of the split."""
        if high < 10:
            return self.rng.randint(low, high)
        return int(self.draw(lambda: str(self.rng.randint(max(low, 10), high))))

    def key(self, usual: Sequence[str] = words.TEXT_KEYS) -> str:
        """A name for a parameter or a JSON key: one of the usual ones, or any word."""
        if self.varied and self.chance(0.45):
            return self.word()
        return self.invented() if self.chance(0.2) else self.one(usual)


def vary(slots: Slots, text: str) -> str:
    """Write a request the way people do: with please, without capitals, without the full stop."""
    rng = slots.rng
    if rng.random() < 0.08:
        text = (
            rng.choice(("Please ", "please ", "Hey, ", "Hi, ", "Ok, ", "So, ")) + text[0].lower() + text[1:]
        )
    elif rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    if text[-1] in "?." and rng.random() < 0.15:
        text = text[:-1]
    elif text[-1] == "?" and rng.random() < 0.04:
        text = text[:-1] + " please?"
    return text
