"""How a constraint that cannot be kept is refused: in one sentence that names what and where."""

from __future__ import annotations

import re
from typing import Final

from llm_local.errors import InvalidRequest

__all__ = ["MAX_REPEAT", "check_regex", "check_repeats", "first_line", "refusal"]

# More repetitions than any reply has tokens for; the library would unroll some of them.
MAX_REPEAT: Final = 10_000

# How the library shows where a regex is wrong: the regex, carets below the place, and what it is.
_REGEX_ERROR: Final = re.compile(
    r"(?:invalid regex .*\(in regex\): )?regex parse error:\n"
    r"    (?P<regex>.*)\n    (?P<before> *)\^+\nerror: (?P<what>.*)"
)
_PLACE: Final = re.compile(r"^(?:at )?(?P<line>\d+)\((?P<column>\d+)\): ")
_LISTING: Final = re.compile(r"\n *\d+ \|.*|\n *\^+ *(?=\n|$)|<non-verbose/>| \(at \".*\" \(.*\)\)")
_GBNF_PLACE: Final = re.compile(r" at line (?P<line>\d+),\s*(?P<before>['\"].*['\"])\s*\^.*", re.DOTALL)
_NOISE: Final = re.compile(r" Enable 'coerce_one_of' .*| while processing json-schema://\S*")
_REPEATS: Final = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")
_MAX_REASON: Final = 300


def refusal(message: str, hint: str = "") -> InvalidRequest:
    """The error for a constraint that is not taken, ready to raise."""
    return InvalidRequest(message, hint, param="constraint")


def check_repeats(text: str, what: str) -> None:
    """Refuse `x{20000}` and the like in a regex or grammar called `what` in the message.

    Raises:
        InvalidRequest: a count above MAX_REPEAT.
    """
    for match in _REPEATS.finditer(text):
        # by length first, because Python refuses to read numbers of thousands of digits
        if any(len(count) > 9 or int(count) > MAX_REPEAT for count in match.groups() if count):
            raise refusal(
                f"{what} repeats something {match[0][:20]} times, at most {MAX_REPEAT} are allowed.",
                "Use + or * for what has no bound.",
            )


def check_regex(text: str, what: str) -> None:
    """Refuse in a regex called `what` in the message what the library would leave out, or unroll.

    Raises:
        InvalidRequest: a count above MAX_REPEAT, or a backslash at the end.
    """
    check_repeats(text, what)
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise refusal(f"{what} ends in a backslash that escapes nothing.", r"Write \\ for a backslash.")


def first_line(reason: str) -> str:
    """The library's reason in one line: what is wrong and where, without pictures of the place."""
    reason = _REGEX_ERROR.sub(_in_regex, reason)
    reason = _PLACE.sub(r"line \g<line>, column \g<column>: ", _LISTING.sub("", reason).strip())
    reason = _GBNF_PLACE.sub(r" in line \g<line>, behind \g<before>", reason)
    lines = (line.strip() for line in _NOISE.sub("", reason).splitlines())
    return " ".join(line for line in lines if line)[:_MAX_REASON].rstrip(".")


def _in_regex(error: re.Match[str]) -> str:
    before, rest = error["regex"][: len(error["before"])], error["regex"][len(error["before"]) :]
    # the library escapes some characters, and counts what it shows
    place = "" if re.search(r"\\[n/]", before) else f"character {len(before) + 1}, "
    return f"{error['what']} at {place}{rest[:20]!r} of the regex"
