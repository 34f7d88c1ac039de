"""What tools are called: names that every tool format can carry, each only once.

The rule, in one place: a name that one tool has stays as it is. Where several have the same, a function of the user's
own keeps it, and tools of servers and plug-ins are called `SERVER__NAME`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from llm_local.tools.tool import Tool

__all__ = ["MAX_NAME", "allowed_name", "distinct_names", "without_clashes"]

MAX_NAME: Final = 64
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9_-]+")
_CHOICES: Final = ("auto", "none", "required")  # what `tool_choice` means by these is no tool


def allowed_name(text: str, otherwise: str = "tool") -> str:
    """`text` with `_` for whatever a tool format might not carry, and shortened; `otherwise` where nothing is left."""
    return _FORBIDDEN.sub("_", text).strip("_")[:MAX_NAME] or otherwise


def distinct_names(names: Sequence[str]) -> list[str]:
    """The same names, those that came before with `_2`, `_3` behind."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        number, one = 1, name
        while one in taken:
            number += 1
            one = f"{name[: MAX_NAME - 1 - len(str(number))]}_{number}"
        taken.add(one)
        distinct.append(one)
    return distinct


def without_clashes(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """The same tools, renamed by the rule of this module where names clash.

    Two functions of one name stay so: that is for the user to mend, and is refused where tools are collected.
    """
    tools = tuple(tools)
    count = Counter(tool.name for tool in tools)
    own = [tool.name for tool in tools if not _is_foreign(tool)]
    wanted = []
    for tool in filter(_is_foreign, tools):
        clashes = count[tool.name] > 1 or tool.name in _CHOICES
        wanted.append(_prefixed(tool.source.partition(":")[2], tool.name) if clashes else tool.name)
    renamed = iter(distinct_names([*own, *wanted])[len(own) :])
    return tuple(_called(tool, next(renamed)) if _is_foreign(tool) else tool for tool in tools)


def _is_foreign(tool: Tool) -> bool:
    return tool.source.startswith(("mcp:", "plug-in:"))


def _prefixed(origin: str, name: str) -> str:
    room = max(MAX_NAME - len(name) - 2, 8)
    return f"{allowed_name(origin)[:room]}__{name}"[:MAX_NAME]


def _called(tool: Tool, name: str) -> Tool:
    if tool.name == name:
        return tool
    return dataclasses.replace(tool, definition=dataclasses.replace(tool.definition, name=name))
