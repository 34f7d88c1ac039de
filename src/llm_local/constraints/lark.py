"""Lark grammars as users give them: what a mask cannot keep is refused, and schemas inside are checked like all."""

from __future__ import annotations

import json
import re
from typing import Final

from llm_local.constraints.json_schemas import COMPILE_OPTIONS, checked_schema
from llm_local.constraints.refusals import check_repeats, refusal

__all__ = ["checked_lark", "is_lark"]

MAX_RULES: Final = 5_000
_ATTRIBUTES: Final = frozenset({"capture", "lazy", "suffix", "max_tokens"})
_LARK: Final = re.compile(r"^\s*(%llguidance\b|start\s*(\[[^\]]*\])?\s*:)", re.MULTILINE)
# What a grammar is made of, as far as it matters here; the rest goes by character.
_TOKEN: Final = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*")
      | (?P<comment>(?://|\#)[^\n]*)
      | (?P<regex>/(?:\\.|[^/\\\n])+/)
      | (?P<json>%(?:json|regex|llguidance)\s*(?=\{))
      | (?P<special><[^>\n]*>?)
      | (?P<attributes>(?<=\w)\[[^\]\n]*\])
      | (?P<rule>:)
    """,
    re.VERBOSE,
)


def is_lark(text: str) -> bool:
    """True where a grammar looks like Lark; the other syntax is GBNF."""
    return _LARK.search(text) is not None


def checked_lark(text: str, *, tokens: bool = False) -> str:
    """The same grammar, with the schemas inside narrowed as all are. `tokens` says that it may name tokens.

    Raises:
        InvalidRequest: special tokens, options or attributes a mask cannot keep, too many rules or repetitions.
    """
    check_repeats(text, "The grammar")
    parts: list[str] = []
    position = num_rules = 0
    while match := _TOKEN.search(text, position):
        parts.append(text[position : match.end()])
        position = match.end()
        if match["special"] and not tokens:
            raise refusal(
                f"The grammar uses the special token {match['special'][:40]!r}, which no reply may contain.",
                "Put plain text in quotes.",
            )
        if match["attributes"]:
            _check_attributes(match["attributes"])
        elif match["json"]:
            inside, position = _embedded(text, match["json"].strip(), position)
            parts.append(inside)
        num_rules += match["rule"] is not None
    if num_rules > MAX_RULES:
        raise refusal(f"The grammar has {num_rules} rules, at most {MAX_RULES} allowed.")
    return "".join([*parts, text[position:]])


def _embedded(text: str, directive: str, position: int) -> tuple[str, int]:
    """The JSON after a directive, ready for the library, and where the grammar goes on."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        raise refusal(f"What follows {directive} in the grammar is no JSON object.") from None
    if directive == "%json":
        value = {**checked_schema(value), "x-guidance": dict(COMPILE_OPTIONS)}
    elif directive == "%llguidance" and value:
        raise refusal("The grammar sets %llguidance options, which are not taken.", "Use %llguidance {}.")
    return json.dumps(value), end


def _check_attributes(text: str) -> None:
    bare = re.sub(r'"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])*/', "", text)
    for name in re.findall(r"[A-Za-z_]\w*(?=\s*[=,\]])", bare):
        if name not in _ATTRIBUTES:
            raise refusal(
                f"The grammar uses the attribute {name!r}, which is not taken.",
                f"Only {', '.join(sorted(_ATTRIBUTES))} are.",
            )
