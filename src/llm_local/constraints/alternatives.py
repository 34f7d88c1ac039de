"""Two ways for a reply to go: what a constraint says, or something else that begins with tokens of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llm_local.constraints.grammars import CallGrammar, to_grammar
from llm_local.options import Constraint

__all__ = ["Alternative", "either_grammar"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """The ids of `opens`, then what `body` allows; else the ids of `answers`, then the constraint.

    Ids may be of special tokens.
    """

    opens: tuple[int, ...]
    body: CallGrammar
    answers: tuple[int, ...] = ()


def either_grammar(constraint: Constraint | CallGrammar, other: Alternative) -> str:
    """The library's grammar of a reply that is one or the other, each checked as it would be alone.

    Raises:
        InvalidRequest: a part that cannot be enforced.
    """
    one = " ".join([*map(_token, other.answers), "@answer"])
    way = " ".join([*map(_token, other.opens), "@other"])
    grammars = [
        {"lark_grammar": f"start: {one} | {way}"},
        _part(constraint) | {"name": "answer"},
        _part(other.body) | {"name": "other"},
    ]
    return json.dumps({"grammars": grammars})


def _part(constraint: Constraint | CallGrammar) -> dict[str, Any]:
    (grammar,) = json.loads(to_grammar(constraint))["grammars"]
    return dict(grammar)


def _token(token_id: int) -> str:
    return f"<[{token_id}]>"
