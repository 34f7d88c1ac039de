"""The dialect of Jinja that chat templates are written in: what they may use, and what they may reach.

A template is a program from the model's author, so it runs in a sandbox and sees plain data only. What it may use is
what transformers gives it (https://huggingface.co/docs/transformers/chat_templating_writing): block trimming, loop
controls, a `generation` block, `raise_exception`, `strftime_now`, and a `tojson` that does not escape HTML.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import ext, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

__all__ = ["REASONING_NAMES", "render_template", "undeclared_variables"]

REASONING_NAMES: tuple[str, ...] = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates read the reasoning of an earlier turn; the first is the standard one."""


def render_template(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt for the assistant's next turn. All values are plain data: text, numbers, lists and mappings.

    Without `add_generation_prompt` it ends where the last turn does.

    Raises:
        jinja2.TemplateSyntaxError: the source is no template.
        Exception: whatever the template raises.
    """
    return _compiled(source).render(
        messages=[_with_reasoning(message) for message in messages],
        tools=None if tools is None else list(tools),
        documents=None,
        add_generation_prompt=add_generation_prompt,
        **variables,
    )


def undeclared_variables(source: str) -> frozenset[str]:
    """The variables a template reads and does not set itself.

    Raises:
        jinja2.TemplateSyntaxError: the source is no template.
    """
    return frozenset(meta.find_undeclared_variables(_environment().parse(source)))


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """A turn without what it does not have, its reasoning under the standard name too."""
    turn = {name: value for name, value in message.items() if value is not None}
    reasoning = next((turn[name] for name in REASONING_NAMES if name in turn), None)
    return turn if reasoning is None else {"thinking": reasoning, **turn, "reasoning_content": reasoning}


class _GenerationBlock(ext.Extension):
    """`{% generation %} … {% endgeneration %}` marks what trainers look at; here its contents are simply written."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Called by jinja2 at the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Macro) -> str:
        return str(caller())


class _Dict:
    """`dict(...)` and `dict.fromkeys(...)`, and no way from there to the class itself."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Sequence[Any], value: Any = None) -> dict[Any, Any]:
        """A mapping in which all keys have one value."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """Variables that outlive a loop; none of Python's own names among them."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *given = args
        attributes = dict(*given, **values)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r} in a namespace")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
