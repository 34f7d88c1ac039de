"""Constraints of every kind to the one form the library compiles."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from llm_local.constraints.json_schemas import any_object_grammar, schema_grammar
from llm_local.constraints.lark import checked_lark, is_lark
from llm_local.constraints.refusals import check_regex, check_repeats, first_line, refusal
from llm_local.options import Constraint

__all__ = ["CallGrammar", "to_grammar"]

MAX_GBNF_RULES: Final = 500  # the converter's time grows with their square
MAX_GBNF_CHARS: Final = 64 * 1024
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$#&~/-]")


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """A Lark grammar of tool calls. It is ours, so unlike a caller's it may name tokens, as `<[5]>`.

    `is_json`: what stands outside of double quotes is JSON, so that the longest numbers can be told from texts.
    """

    text: str
    is_json: bool = True

    @property
    def kind(self) -> str:
        """What messages call it."""
        return "tool call"

    @property
    def choices(self) -> tuple[str, ...]:
        """See `Constraint`."""
        return (self.text,)


def to_grammar(constraint: Constraint | CallGrammar) -> str:
    """The library's grammar of a constraint, checked for what the library would ignore or not survive.

    Raises:
        InvalidRequest: a part that cannot be enforced.
    """
    try:
        return _to_grammar(constraint)
    except RecursionError:
        raise refusal(f"The {constraint.kind} constraint is nested too deeply.") from None
    except ValueError as error:
        reason = first_line(str(error))
        raise refusal(f"The {constraint.kind} constraint cannot be read: {reason}.") from None


def _to_grammar(constraint: Constraint | CallGrammar) -> str:
    text = constraint.choices[0]
    if isinstance(constraint, CallGrammar):
        return json.dumps({"grammars": [{"lark_grammar": checked_lark(text, tokens=True)}]})
    match constraint.kind:
        case "json":
            return any_object_grammar()
        case "json_schema":
            return schema_grammar(json.loads(text))
        case "regex":
            check_regex(text, "The regex")
            return LLMatcher.grammar_from_regex(text)
        case "choice":
            return LLMatcher.grammar_from_regex("|".join(_literal(one) for one in constraint.choices))
        case "gbnf":
            text = _from_gbnf(text)
        case "grammar" if not is_lark(text):
            text = _from_gbnf(text)
    # in this form a text is a grammar whatever it begins with
    return json.dumps({"grammars": [{"lark_grammar": checked_lark(text)}]})


def _literal(text: str) -> str:
    """`text` as a regex that matches nothing else."""
    return _META.sub(r"\\\g<0>", text).replace("\n", r"\n").replace("\r", r"\r")


def _from_gbnf(text: str) -> str:
    check_repeats(text, "The grammar")
    if text.count("::=") > MAX_GBNF_RULES or len(text) > MAX_GBNF_CHARS:
        raise refusal(
            f"A GBNF grammar may have {MAX_GBNF_RULES} rules and {MAX_GBNF_CHARS} characters, and this has more.",
            "Lark grammars may be larger.",
        )
    try:
        return gbnf_to_lark(_ESCAPE.sub(_plain, text))
    except RecursionError:
        raise
    except Exception as error:  # the converter raises bare exceptions, too
        reason = first_line(str(error)) or type(error).__name__
        raise refusal(
            f"The GBNF grammar cannot be read: {reason}.",
            "It needs a rule root ::= ..., Lark a rule start: ...",
        ) from None


def _plain(escape: re.Match[str]) -> str:
    """The converter mangles `\\u00e9`: characters above ASCII are written as they are, ASCII as `\\x41`."""
    digits = escape[1] or escape[2]
    if digits is None:
        return escape[0]
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise refusal(f"The grammar has the escape {escape[0]}, which is no character.")
    return chr(code) if code > 0x7F else f"\\x{code:02x}"
