"""The generated parts of docs/api.md: every route with its curl, the options, and the kinds of errors.

A route's part is made of its docstring and its body's schema. What is written by hand below a curl, such as an answer,
is kept.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from api.fake_service import FakeService
from llm_local.api.errors import STATUSES
from llm_local.api.native.schemas import OptionsBody
from llm_local.api_server import make_app
from llm_local.store.keys import KeyRing

MAX_WIDTH = 118
_PART = re.compile(r"(<!-- made: ([\w ]+) -->\n)(.*?)(<!-- end of made -->)", re.S)
_ROUTE = re.compile(r"^#### `([A-Z]+ \S+)`\n(.*?)(?=^#### |\Z)", re.M | re.S)
_CURL_BLOCK = re.compile(r"^```sh\n.*?^```\n", re.M | re.S)
_CURL = re.compile(r"`(curl [^`]+)`")
_OPTIONS = tuple(OptionsBody.model_fields)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of the whole application."""
    service = FakeService()
    document: dict[str, Any] = make_app(service.config, service, keys=KeyRing(None, None)).openapi()
    return document


def with_routes(page: str, document: Mapping[str, Any]) -> str:
    """The page with its generated parts made anew.

    Raises:
        ValueError: a dialect has no part on the page, or a part has no dialect.
    """
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((f"{method.upper()} {path}", operation))
    wanted = {"errors", "options", *(f"routes {tag}" for tag in groups)}
    found = [match[2] for match in _PART.finditer(page)]
    if sorted(found) != sorted(wanted):
        raise ValueError(f"docs/api.md has the parts {sorted(found)}, not {sorted(wanted)}")

    def made(match: re.Match[str]) -> str:
        if match[2] == "errors":
            return f"{match[1]}{_errors()}{match[4]}"
        if match[2] == "options":
            return f"{match[1]}{_options()}{match[4]}"
        kept = {name: _below_the_curl(text) for name, text in _ROUTE.findall(match[3])}
        parts = [
            _route(name, operation) + kept.get(name, "\n")
            for name, operation in groups[match[2].removeprefix("routes ")]
        ]
        return f"{match[1]}\n{''.join(parts)}{match[4]}"

    return _PART.sub(made, page)


def _below_the_curl(text: str) -> str:
    block = _CURL_BLOCK.search(text)
    return text[block.end() :] if block else "\n"


def _route(name: str, operation: Mapping[str, Any]) -> str:
    described = operation["description"]
    curl = _CURL.search(described)
    if curl is None:
        raise ValueError(f"{name} has no curl in its docstring")
    said = re.sub(r"\n{3,}", "\n\n", _CURL.sub("", described)).strip()
    names = ", ".join(_fields(operation))
    told = f"{'Fields' if 'requestBody' in operation else 'In the address'}: {names}.\n" if names else ""
    told = f"\n{textwrap.fill(told, MAX_WIDTH, break_on_hyphens=False)}\n" if told else ""
    return f"#### `{name}`\n\n{said}\n{told}\n```sh\n{_shown(curl[1])}\n```\n"


def _fields(operation: Mapping[str, Any]) -> Iterator[str]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    names = [parameter["name"] for parameter in operation.get("parameters", ())]
    for schema in body.get("anyOf", [body]):
        names += schema.get("properties", ())
    names = list(dict.fromkeys(names))
    if set(_OPTIONS) <= set(names):
        names = [name for name in names if name not in _OPTIONS]
        yield from (f"`{name}`" for name in names)
        yield "and the [options](#options)"
    else:
        yield from (f"`{name}`" for name in names)


def _shown(curl: str) -> str:
    """A curl on one line, or on two where it is long."""
    line = " ".join(curl.split())
    if len(line) <= MAX_WIDTH:
        return line
    head, data = line.split(" -d ", 1)
    if len(data) > MAX_WIDTH - 5:
        data = f"'{json.dumps(json.loads(shlex.split(data)[0]), indent=2)}'"
    return f"{head} \\\n  -d {data}"


def _options() -> str:
    rows = ["| option | bounds | meaning |", "|---|---|---|"]
    for name, field in OptionsBody.model_fields.items():
        extra: Mapping[str, Any] = (
            field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        )
        low = extra.get("minimum", extra.get("exclusiveMinimum"))
        above = "above " if "exclusiveMinimum" in extra else ""
        bounds = f"{above}{_number(low)} to {_number(extra['maximum'])}" if low is not None else ""
        rows.append(f"| `{name}` | {bounds} | {field.description or 'See below.'} |")
    return "\n".join([*rows, ""])


def _number(value: float) -> str:
    return "2^63 - 1" if value >= 2**63 - 1 else "-2^63" if value <= -(2**63) else f"{value:,.0f}"


def _errors() -> str:
    by_status: dict[int, list[str]] = {}
    for kind, status in STATUSES.items():
        by_status.setdefault(status, []).append(f"`{kind}`")
    rows = [f"| {status} | {', '.join(sorted(kinds))} |" for status, kinds in sorted(by_status.items())]
    return "\n".join(["| status | kinds |", "|---|---|", *rows, ""])
