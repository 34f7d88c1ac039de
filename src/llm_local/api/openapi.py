"""The OpenAPI document, whole: bodies, keys and errors of every route; and a page that shows it without the network."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException

from llm_local.api.errors import json_response

__all__ = ["describe_api", "pages"]

_SCHEMA: Final = "/openapi.json"
_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'"
)
_MEANINGS: Final = {
    "400": "The request is wrong; the error names the field.",
    "401": "A key is needed, and none, or a wrong one, came.",
    "403": "The key's role is not enough, or a page of another site asked.",
    "404": "No such path, model or object.",
    "405": "The path has no such method.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "421": "The Host header names another server.",
    "422": "The model's files are damaged or unsafe.",
    "429": "This caller has asked too often; Retry-After says when to come back.",
    "431": "Address and headers are too large.",
    "500": "The server failed.",
    "502": "The hub, or a tool server, cannot be reached.",
    "503": "No room, not ready, or shutting down; Retry-After says when to come back.",
    "504": "The deadline passed.",
    "507": "The model does not fit into memory, or the disk is full.",
}

pages: Final = APIRouter(include_in_schema=False)


@pages.get(_SCHEMA)
async def schema(request: Request) -> Response:
    """The document. Describing all routes takes a while the first time, in which nobody else should wait."""
    return json_response(await asyncio.to_thread(request.app.openapi))


@pages.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """A page to read and try it, which loads nothing from anywhere else."""
    page = get_swagger_ui_html(
        openapi_url=_SCHEMA,
        title=f"{request.app.title} API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    page.headers["content-security-policy"] = _POLICY
    return page


@pages.get("/docs/{name}")
async def docs_asset(name: str) -> FileResponse:
    """What the page is made of."""
    if name not in _ASSETS:
        raise HTTPException(404)
    folder = Path(str(files("fastapi_offline"))) / "static"
    return FileResponse(folder / name, media_type=_ASSETS[name])


def describe_api(app: FastAPI) -> dict[str, Any]:
    """The document of all routes of `app`. Made once; `app.openapi` is this."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Error"] = _ERROR
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        for operations in document["paths"].values():
            for operation in operations.values():
                _complete(operation, schemas)
        app.openapi_schema = document
    return app.openapi_schema


_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Error",
    "description": "A failure in the words of the path's dialect; request_id is that of the server's log.",
    "properties": {"error": {}, "request_id": {"type": "string"}},
    "required": ["error"],
}


def _complete(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    operation["responses"].pop("422", None) if _is_fastapis_own(operation) else None
    for content in operation.get("requestBody", {}).get("content", {}).values():
        _hoist(content["schema"], schemas)
    public = "public" in operation.get("tags", ())
    for status, meaning in _MEANINGS.items():
        if public and status not in ("400", "405", "421", "431", "503"):
            continue
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        operation["responses"].setdefault(status, {"description": meaning, "content": content})
    if not public:
        # Without keys on the server, nothing is needed; that is the empty one.
        operation["security"] = [{"bearer": []}, {"x-api-key": []}, {}]


def _is_fastapis_own(operation: dict[str, Any]) -> bool:
    """True for the answer FastAPI promises to wrong parameters: ours is 400."""
    found = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
    return str(found.get("schema", {}).get("$ref", "")).endswith("/HTTPValidationError")


def _hoist(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move the definitions inside a body's schema to where its references point."""
    for name, definition in schema.pop("$defs", {}).items():
        if schemas.setdefault(name, definition) != definition:
            raise RuntimeError(f"two different schemas are called {name}; rename one of the models")
