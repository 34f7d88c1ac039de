"""The grammar of a forced reply, as formats write it: Lark rules, control strings as the tokens they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["MAX_REPEATS", "Rules", "TokenOf", "regex_of"]

TokenOf = Callable[[str], int | None]
"""The id of a control string that is one token of the model; None of any other."""

MAX_REPEATS: Final = 10_000  # as many as a constraint may count
_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$#&~/-]")


def regex_of(text: str) -> str:
    """A regex between slashes that matches nothing but `text`."""
    return _META.sub(r"\\\g<0>", text).replace("\n", r"\n").replace("\r", r"\r")


class Rules:
    """Collects rules and terminals. Expressions are parts of rules: several one after the other are a sequence."""

    def __init__(self, token_of: TokenOf, controls: Sequence[str]) -> None:
        """`controls` are written as the tokens they are, where they are tokens, wherever they stand in a literal."""
        self._tokens = {text: token for text in controls if (token := token_of(text)) is not None}
        self._split = re.compile("|".join(f"({re.escape(text)})" for text in controls) or "(?!)")
        self._lines: list[str] = []
        self._known: dict[str, str] = {}

    def literal(self, text: str) -> str:
        """Exactly this text; an empty one is no expression at all."""
        parts = [part for part in self._split.split(text) if part]
        return " ".join(self._one(part) for part in parts)

    def rule(self, expression: str) -> str:
        """A rule of its own for an expression, the same for the same one."""
        return self._named("rule", expression)

    def choice(self, expressions: Iterable[str]) -> str:
        """One of the expressions."""
        return self.rule(" | ".join(dict.fromkeys(expressions)))

    def terminal(self, expression: str) -> str:
        """A terminal: its expression is of regexes and texts, and one match of it ends where it can go on no more."""
        return self._named("T", expression)

    def json(self, schema: Mapping[str, Any]) -> str:
        """JSON that a schema allows."""
        return self.rule(f"%json {json.dumps(schema)}")

    def closed(self, content: str, close: str) -> str:
        """What the terminal expression `content` matches, which never holds `close`, and then `close`."""
        if close in self._tokens:
            return f"{self.terminal(content)} {self._one(close)}"
        # one terminal: by itself the content would take the beginning of what closes it
        return self.terminal(f"({content}) {json.dumps(close, ensure_ascii=False)}")

    def name(self, key: str) -> tuple[str, bool]:
        """A name for a rule that may refer to itself, and whether it is new and must be defined."""
        known = self._known.get(key)
        if known is not None:
            return known, False
        self._known[key] = name = f"named_{len(self._known)}"
        return name, True

    def define(self, name: str, expression: str) -> None:
        """Say what the rule `name` is."""
        self._lines.append(f"{name}: {expression}")

    def text(self, start: str) -> str:
        """The grammar whose whole is the expression `start`."""
        return "\n".join([f"start: {start}", *self._lines])

    def _one(self, text: str) -> str:
        token = self._tokens.get(text)
        return json.dumps(text, ensure_ascii=False) if token is None else f"<[{token}]>"

    def _named(self, prefix: str, expression: str) -> str:
        key = f"{prefix} {expression}"
        if key not in self._known:
            self._known[key] = name = f"{prefix}_{len(self._known)}"
            self.define(name, expression)
        return self._known[key]
