"""From an error to an answer: one table of statuses, and the envelope of the dialect that the path belongs to.

Every failure goes this way: ours, a wrong path or method, and what nobody expected. No body of an error holds text of
the request but names of its fields.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from llm_local.errors import Busy, InvalidRequest, LocalLLMError

__all__ = [
    "STATUSES",
    "Envelope",
    "Envelopes",
    "Failure",
    "NativeEnvelope",
    "error_response",
    "failure_of",
    "json_response",
    "json_text",
    "large_json_response",
    "render",
]

logger = logging.getLogger(__name__)

STATUSES: Final[Mapping[str, int]] = {
    "internal_error": 500,
    "invalid_value": 400,
    "invalid_json": 400,
    "invalid_config": 400,
    "body_too_large": 413,
    "head_too_large": 431,
    "unsupported_content_encoding": 415,
    "context_length_exceeded": 400,
    "unsupported_task": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "misdirected_request": 421,
    "model_not_found": 404,
    "conversation_not_found": 404,
    "request_not_found": 404,
    "model_in_use": 409,
    "conversation_in_use": 409,
    "access_denied": 403,
    "rate_limit_exceeded": 429,
    "hub_unavailable": 502,
    "insufficient_storage": 507,
    "insufficient_memory": 507,
    "model_corrupt": 422,
    "unsafe_weights": 422,
    "busy": 503,
    "server_busy": 503,
    "queue_timeout": 503,
    "shutting_down": 503,
    "worker_died": 503,
    "model_quarantined": 503,
    "deadline_exceeded": 504,
    "plugin_failed": 500,
    "tool_server_failed": 502,
    "engine_error": 500,
    "numerical_error": 500,
}
"""Error kind to HTTP status. A kind that is not here counts as the kind of its class."""

_BY_STATUS: Final = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
# Kept: `json.dumps` with options makes an encoder for every call, and a stream calls for every token.
_encode_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_LINE_ENDS: Final = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_PIECES_DEPTH: Final = 2  # of an object, of a list in it: each vector is a piece
_MAX_RETRY_S: Final = 120  # clients give up on more
_INTERNAL: Final = "The server failed at this request; its log says why."


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as every envelope says it in its own words.

    - `status`: the HTTP status of the table; `kind`: stable snake_case; `message` and `hint`: one sentence each.
    - `param`: the field that is at fault; `retry_after_s`: whole seconds, when another try makes sense.
    - `error`: what was raised, for envelopes that need its numbers.
    """

    status: int
    kind: str
    message: str
    hint: str
    param: str | None
    retry_after_s: int | None
    request_id: str
    error: Exception

    @property
    def text(self) -> str:
        """Message and hint."""
        return f"{self.message} {self.hint}" if self.hint else self.message


class Envelope:
    """How one dialect words a failure. Overrides `body`, and `status` and `headers` where it has others."""

    def status(self, failure: Failure) -> int:
        """The HTTP status."""
        return failure.status

    def headers(self, failure: Failure) -> dict[str, str]:
        """Headers beside those of every failure (retry-after, x-should-retry, www-authenticate, x-request-id)."""
        return {}

    def body(self, failure: Failure) -> dict[str, Any]:
        """The JSON object. It should hold `failure.request_id` under "request_id"."""
        raise NotImplementedError


class NativeEnvelope(Envelope):
    """llm-local's own: `{"error": {"kind", "message", "hint", "param"}, "request_id"}`."""

    def body(self, failure: Failure) -> dict[str, Any]:
        """The JSON object."""
        told = {
            "kind": failure.kind,
            "message": failure.message,
            "hint": failure.hint,
            "param": failure.param,
        }
        return {"error": told, "request_id": failure.request_id}


class Envelopes:
    """Which envelope a path has: that of the longest prefix, else the native one."""

    def __init__(self, by_prefix: Mapping[str, Envelope] | None = None) -> None:
        self._by_prefix: Sequence[tuple[str, Envelope]] = sorted(
            (by_prefix or {}).items(), key=lambda entry: -len(entry[0])
        )
        self._native = NativeEnvelope()

    def of(self, path: str) -> Envelope:
        """The envelope of a path. `/v1` is the prefix of `/v1` and `/v1/x`, not of `/v10`."""
        for prefix, envelope in self._by_prefix:
            if path == prefix or path.startswith(f"{prefix.rstrip('/')}/"):
                return envelope
        return self._native


def failure_of(error: Exception, request_id: str) -> Failure:
    """What an exception means to a client."""
    if isinstance(error, LocalLLMError):
        kinds = [error.kind, *(getattr(cls, "kind", "") for cls in type(error).__mro__)]
        status = next((STATUSES[kind] for kind in kinds if kind in STATUSES), 500)
        if isinstance(error, InvalidRequest) and status >= 500:
            status = 400  # a mistake of the caller's is never ours
        param = error.param if isinstance(error, InvalidRequest) else None
        retry = _retry_after_s(error) if isinstance(error, Busy) else None
        return Failure(status, error.kind, error.message, error.hint, param, retry, request_id, error)
    if isinstance(error, HTTPException):
        kind = _BY_STATUS.get(
            error.status_code, "invalid_value" if error.status_code < 500 else "internal_error"
        )
        return Failure(error.status_code, kind, _plain(error), "", None, None, request_id, error)
    return Failure(500, "internal_error", _INTERNAL, "", None, None, request_id, error)


def error_response(request: Request, error: Exception) -> Response:
    """The answer to a request that failed, in the envelope of its path."""
    failure = failure_of(error, getattr(request.state, "request_id", ""))
    request.state.failure_kind = failure.kind  # for the access log
    if failure.status >= 500 and not isinstance(error, Busy):
        logger.error("request failed: %s", failure.kind, exc_info=error)
    return render(request, failure)


def render(request: Request, failure: Failure) -> Response:
    """A failure as a response."""
    envelope: Envelope = request.app.state.envelopes.of(request.scope["path"])
    headers = dict(envelope.headers(failure))
    if failure.retry_after_s is not None:
        headers["retry-after"] = str(failure.retry_after_s)
    elif failure.status >= 500:
        # Clients repeat what failed with 5xx two to six times; the same request would fail the same way.
        headers["x-should-retry"] = "false"
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    headers |= getattr(failure.error, "headers", None) or {}
    return json_response(envelope.body(failure), envelope.status(failure), headers)


def json_response(
    body: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    media_type: str = "application/json",
) -> Response:
    """Any JSON value as a response."""
    return Response(json_text(body).encode(), status, dict(headers or {}), media_type=media_type)


async def large_json_response(
    body: object, headers: Mapping[str, str] | None = None, *, media_type: str = "application/json"
) -> Response:
    """The same for what may hold a million numbers: written in a thread, and in pieces.

    Writing one value of any size lets nobody else compute until it is done; a piece is done at once.
    """
    text = await asyncio.to_thread(_text_in_pieces, body, _PIECES_DEPTH)
    return Response(text.encode(), 200, dict(headers or {}), media_type=media_type)


def json_text(value: object) -> str:
    """Any JSON value as text of one line, also for who takes U+2028 for the end of one, as httpx does.

    Halves of surrogate pairs become U+FFFD: they must not cost an answer.
    """
    text = _encode_json(value)
    if text.isascii():
        return text
    text = text.translate(_LINE_ENDS)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text_in_pieces(value: object, depth: int) -> str:
    """The same text as `json_text` makes, from one piece for each value that is `depth` levels down."""
    if depth and isinstance(value, dict):
        parts = [f"{json_text(name)}:{_text_in_pieces(part, depth - 1)}" for name, part in value.items()]
        return "{" + ",".join(parts) + "}"
    if depth and isinstance(value, list | tuple):
        return "[" + ",".join(_text_in_pieces(part, depth - 1) for part in value) + "]"
    return json_text(value)


def _retry_after_s(error: Busy) -> int:
    return max(1, min(_MAX_RETRY_S, ceil(error.retry_after_s or 1)))


def _plain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is no such path."
    if error.status_code == 405:
        return "This path has no such method."
    return str(error.detail) if isinstance(error.detail, str) else "The request cannot be served."
