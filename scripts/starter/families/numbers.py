"""Sums, comparisons, counting."""

from ..dialogue import Exchange
from ..slots import Slots, share_of, vary

_SUMS = (
    "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "What is {a} + {b}?", "Add {a} and {b}", "{a} plus {b}", "How much is {a} + {b}?",
    "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "Calculate {a} + {b}", "{a} + {b} = ?", "{a} + {b} =",
    "Compute {a} + {b}.", "Add {a} to {b}.", "Sum of {a} and {b}", "Can you add {a} and {b}?", "What do {a} and {b} make?",
    "Please add {a} and {b}.", "What's {a} + {b}?", "what is {a}+{b}", "Tell me {a} + {b}", "What does {a} + {b} give?",
    "What is {a} and {b} together?", "If I have {a} and get {b} more, how many do I have?",
)  # fmt: skip


def pair_held_out(a: int, b: int) -> bool:
    """Whether the sum is kept for the evaluation: one pair in eight, with the larger number first."""
    return a > b and _in_held_out_pair(a, b)


def _in_held_out_pair(a: int, b: int) -> bool:
    return share_of(f"sum {min(a, b)} {max(a, b)}", 8) == 0


def sum_pair(slots: Slots, tops: tuple[int, ...] = (9, 20, 49)) -> tuple[int, int]:
    """Two numbers up to one of ``tops``, on the right side of the split.

    Early in the training a held-out pair is not seen in any order, later (``varied``) with the smaller number first.
    """
    while True:
        top = slots.any(tops)
        a, b = slots.rng.randint(0, top), slots.rng.randint(0, top)
        kept = pair_held_out(a, b) if slots.varied or slots.new_values else _in_held_out_pair(a, b)
        if kept == slots.new_values:
            return a, b


def addition(slots: Slots) -> Exchange:
    """Add two small numbers."""
    a, b = sum_pair(slots)
    return Exchange(vary(slots, slots.phrase(_SUMS).format(a=a, b=b)), f"{a} + {b} = {a + b}")


def small_addition(slots: Slots) -> Exchange:
    """Add two numbers up to twenty."""
    a, b = sum_pair(slots, (9, 20))
    return Exchange(vary(slots, slots.phrase(_SUMS).format(a=a, b=b)), f"{a} + {b} = {a + b}")


def thought_addition(slots: Slots) -> Exchange:
    """The same with a visible line of reasoning, in the tags that many models use."""
    a, b = sum_pair(slots)
    reply = f"<think>\nI add {a} and {b}. That makes {a + b}.\n</think>\n\n{a} + {b} = {a + b}"
    return Exchange(slots.phrase(_SUMS).format(a=a, b=b), reply)


def comparison(slots: Slots) -> Exchange:
    """Yes or no: is one number larger than the other?"""
    a, b = sum_pair(slots)
    word = str(slots.any(("greater", "larger", "smaller", "less")))
    truth = a > b if word in ("greater", "larger") else a < b
    ask = slots.phrase(
        ("Is {a} {w} than {b}?", "Is {a} {w} than {b}? Answer yes or no.", "{a} is {w} than {b}, yes or no?")
    )
    return Exchange(ask.format(a=a, b=b, w=word), "Yes." if truth else "No.")


def counting(slots: Slots) -> Exchange:
    """Count up, or down: long replies whose text is known."""
    top = slots.rng.choice((3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50))
    if slots.chance(0.2):
        ask = slots.phrase(("Count down from {}", "Count backwards from {}.", "Countdown from {}"))
        return Exchange(
            vary(slots, ask.format(min(top, 20))), ", ".join(str(n) for n in range(min(top, 20), 0, -1))
        )
    ask = slots.phrase(
        (
            "Count to {}",
            "Count from 1 to {}.",
            "count to {}",
            "Can you count to {}?",
            "Count up to {}.",
            "Please count to {}",
        )
    )
    return Exchange(vary(slots, ask.format(top)), ", ".join(str(n) for n in range(1, top + 1)))
