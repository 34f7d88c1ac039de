"""Whether a model reasons: switched by the variables its own chat template reads, never behind its back."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

import jinja2

from llm_local.errors import InvalidRequest
from llm_local.text.template_language import undeclared_variables

__all__ = ["not_switched", "template_variables", "thinking_variables"]

# What templates call the switch. https://huggingface.co/docs/transformers/chat_templating
SWITCHES: Final = ("enable_thinking", "thinking", "reasoning")
EFFORT: Final = "reasoning_effort"


def template_variables(source: str) -> frozenset[str]:
    """The variables a chat template reads and does not set itself; of one that cannot be parsed, every word."""
    try:
        return undeclared_variables(source)
    except jinja2.TemplateError:
        return frozenset(re.findall(r"[A-Za-z_]\w*", source))


def thinking_variables(think: str, variables: Collection[str], source: str) -> dict[str, Any] | None:
    """What to hand to a template so that the model reasons as `think` says; None when it may do so anyway or never.

    `think` is "default", "on", "off", or how much: "low", "medium", "high".

    Raises:
        InvalidRequest: the template has no such switch.
    """
    if think == "default":
        return {}
    if think in ("on", "off"):
        for name in SWITCHES:
            if name in variables:
                return {name: think == "on"}
        if think == "on":
            return {} if EFFORT in variables else None
        if EFFORT in variables and re.search("""['"]none['"]""", source):
            return {EFFORT: "none"}
    elif EFFORT in variables:
        return {EFFORT: think}
    raise not_switched(think)


def not_switched(think: str) -> InvalidRequest:
    """The error for a model that does not reason as `think` says, ready to raise."""
    what = f"be switched {think}" if think in ("on", "off") else f"take the effort {think!r}"
    return InvalidRequest(
        f"The reasoning of this model cannot {what}: its chat template has no such switch.",
        "Leave think at its default.",
        param="think",
    )
