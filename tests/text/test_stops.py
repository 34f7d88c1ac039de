"""Stop strings against the plainest reference there is: read the whole text character by character."""

from __future__ import annotations

import random

import pytest

from llm_local.text.stops import StopMatcher


def naive(text, stops):
    """Text before the stop string that is complete first (of two, the longer), and that stop string."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(pieces, stops):
    matcher = StopMatcher(stops)
    return [*(matcher.feed(piece) for piece in pieces), matcher.finish()], matcher.matched


def random_pieces(rng, text):
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("alphabet", ["ab", "abc", "aé🙂", "\n#U", "a\u0301\u0300"])
def test_any_split_equals_the_whole(alphabet):
    """Random texts, stops and splits: the same text and the same stop string as on the whole."""
    rng = random.Random(alphabet)
    matches = 0
    for _ in range(1500):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 14)))
        stops = ["".join(rng.choices(alphabet, k=rng.randint(1, 5))) for _ in range(rng.randint(0, 4))]
        expected, stop = naive(text, stops)
        for pieces in ([text], list(text), random_pieces(rng, text)):
            out, matched = run(pieces, stops)
            assert ("".join(out), matched) == (expected, stop), (pieces, stops)
        matches += stop is not None
    assert 300 < matches < 1500, "both outcomes must occur"


def test_nothing_of_a_stop_string_leaks_and_nothing_else_is_late():
    """At every moment exactly the text is out that cannot be the beginning of a stop string."""
    rng = random.Random(7)
    for _ in range(1500):
        text = "".join(rng.choices("ab", k=rng.randint(1, 14)))
        stops = ["".join(rng.choices("ab", k=rng.randint(2, 6))) for _ in range(rng.randint(1, 3))]
        expected, stop = naive(text, stops)
        matcher, shown = StopMatcher(stops), ""
        for end, char in enumerate(text, start=1):
            shown += matcher.feed(char)
            assert expected.startswith(shown)
            if matcher.matched is None:
                held = text[len(shown) : end]
                begun = [text[i:end] for i in range(end) if any(s.startswith(text[i:end]) for s in stops)]
                assert held == max(begun, key=len, default="")
        assert (shown + matcher.finish(), matcher.matched) == (expected, stop)


TABLE = {
    "at the very first character": ("#abc", ("#",), "", "#"),
    "the whole text": ("END", ("END",), "", "END"),
    "at the end": ("abcEND", ("END",), "abc", "END"),
    "only its beginning": ("abcEN", ("END",), "abcEN", None),
    "its beginning twice": ("EENEND.", ("END",), "EEN", "END"),
    "overlapping itself": ("aaab", ("aab",), "a", "aab"),
    "the first of two": ("one two", ("two", "one"), "", "one"),
    "the one that is complete first": ("abcd", ("abcd", "bc"), "a", "bc"),
    "the longer of two that end together": ("xabc", ("bc", "abc"), "x", "abc"),
    "one that begins another": ("a\n\nb", ("\n\n", "\n"), "a", "\n"),
    "only the first of many": ("a.b.c.", (".",), "a", "."),
    "beyond ASCII": ("你好。再见", ("。",), "你好", "。"),
    "an emoji of many code points": ("ok 👩‍👩‍👧!", ("👩‍👩‍👧",), "ok ", "👩‍👩‍👧"),
    "another emoji with the same beginning": ("ok 👩‍👩‍👦", ("👩‍👩‍👧",), "ok 👩‍👩‍👦", None),
    "case matters": ("end END", ("END",), "end ", "END"),
    "no pattern": ("a+b.", (".", "a+"), "", "a+"),
    "not a stop string of its own": ("abc", (), "abc", None),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_rules_one_by_one(name):
    """Each rule on the whole text and character by character."""
    text, stops, expected, stop = TABLE[name]
    for pieces in ([text], list(text)):
        out, matched = run(pieces, stops)
        assert ("".join(out), matched) == (expected, stop)


def test_after_a_match_there_is_silence():
    """Text after the stop string is never shown, neither in the same piece nor later nor at the end."""
    out, matched = run(["ab#cd", "ef", "#", "gh"], ["#"])
    assert (out, matched) == (["ab", "", "", "", ""], "#")


def test_finish_gives_the_beginning_back_once():
    """The reply is over, so what was held back is text; a second finish has nothing."""
    matcher = StopMatcher(["<end>"])
    assert (matcher.feed("a<en"), matcher.finish(), matcher.finish()) == ("a", "<en", "")


def test_without_stop_strings_nothing_is_held():
    """Every piece comes out at once as it is."""
    assert run(["a", "", "bc"], [])[0] == ["a", "", "bc", ""]
