"""The OpenAPI document is whole, and the page that shows it needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.asgi import Client
from api.conftest import Make

PUBLIC = {"/health", "/live", "/ready"}


@pytest.fixture
def document(client: Client) -> dict[str, Any]:
    answer = client.ask("GET", "/openapi.json")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert found and {name.removeprefix("#/components/schemas/") for name in found} <= schemas.keys()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_has_an_id_words_security_and_errors(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) > 20
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation.get("description"), f"{where} has no docstring"
        assert ("security" in operation) == (path not in PUBLIC), where
        assert {"400", "503"} <= operation["responses"].keys(), where
        assert "HTTPValidationError" not in json.dumps(operation), where
        if path not in PUBLIC:
            assert {"401", "403", "404", "429", "500", "507"} <= operation["responses"].keys(), where


def test_every_native_route_tells_a_curl_and_every_body_an_example(document: dict[str, Any]) -> None:
    native = [one for one in operations(document) if {"native", "public"} & set(one[2].get("tags", ()))]
    assert len(native) > 15
    for method, path, operation in native:
        assert (
            "`curl " in operation["description"]
            and path.partition("{")[0] in operation["description"]
            or path == "/live"
        )
        if method == "post":
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"], path


def test_the_examples_are_what_the_routes_take(client: Client, document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if method == "post" and "native" in operation.get("tags", ()):
            for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
                assert client.ask("POST", path, example["value"]).status == 200, path


def test_the_page_asks_nobody_else(client: Client) -> None:
    page = client.ask("GET", "/docs")
    assert page.status == 200 and "'none'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(assets) == 3 and all(asset.startswith("/docs/") for asset in assets)
    for asset in assets:
        assert len(client.ask("GET", asset).body) > 500
    assert b"http://" not in page.body and b"https://" not in page.body
    assert client.ask("GET", "/docs/redoc.standalone.js").status == 404
    assert (
        client.ask("GET", "/docs/..%2f__init__.py").status == 404
        and client.ask("GET", "/redoc").status == 404
    )


def test_with_keys_the_page_needs_one(make: Make) -> None:
    client = make(keys="some-long-key")
    for path in ("/docs", "/openapi.json", "/docs/swagger-ui.css"):
        assert client.ask("GET", path).status == 401
        assert client.ask("GET", path, headers={"x-api-key": "some-long-key"}).status == 200
