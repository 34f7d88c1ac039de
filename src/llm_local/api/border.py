"""What a request must be before anybody looks at it: sent to one of our names, and not by a page of a stranger.

A web page that a user of this machine opens can send requests to it. It cannot choose their Host, Origin and
Sec-Fetch-Site headers, so those decide, and content types do not. Host names are checked on every address, since a
stranger's name may be made to point anywhere.
"""

from __future__ import annotations

import ipaddress
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_local.api.dependencies import Forbidden
from llm_local.api.errors import error_response
from llm_local.api.protocol import MAX_HEAD_BYTES
from llm_local.errors import AccessDenied, InvalidRequest, LocalLLMError

__all__ = ["Border", "BorderRules", "HeadTooLarge", "WrongHost", "is_loopback"]

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::\d{1,5})?", re.ASCII)
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30})://([^/\s]{0,260})", re.ASCII)
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_,\s-]{1,2048}", re.ASCII)
_TRUSTED_SCHEMES: Final = frozenset({"tauri", "vscode-webview"})
_OUR_NAMES: Final = ("localhost", "host.docker.internal")
_READING: Final = frozenset({"GET", "HEAD"})
_ACTING: Final = frozenset({"/generate/stream", "/chat/stream"})
_PAGES: Final = frozenset({"/", "/docs"})  # a link on any page may lead here: they do nothing
_EXPOSED: Final = (
    "x-request-id, request-id, retry-after, x-should-retry, x-persisted, x-llm-local-ignored, "
    "x-llm-local-context-trimmed, x-llm-local-seed, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests"
)


class HeadTooLarge(InvalidRequest):
    """Address and headers have more bytes than a request's may."""

    def __init__(self) -> None:
        super().__init__(f"The request's head has over {MAX_HEAD_BYTES} bytes.", kind="head_too_large")


class WrongHost(AccessDenied):
    """The request was sent to a name that is not ours."""

    def __init__(self) -> None:
        super().__init__(
            "This server does not go by the name in the Host header.",
            "API_ALLOWED_HOSTS can add it.",
            kind="misdirected_request",
        )


@dataclass(frozen=True, slots=True)
class BorderRules:
    """Names and origins that are let in.

    - `hosts`: beside localhost, this machine's name and every IP address; `*.example.com` also, `*` is all.
    - `origins`: beside those of this machine and of desktop programs; `*` is all.
    """

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    machine: str = field(default_factory=lambda: platform.node().lower())

    def allows_host(self, host: str) -> bool:
        """True when `host`, with or without a port, is one of ours."""
        name = _name_of(host)
        if name is None:
            return False
        # An address is what it says. Only a name can be made to point at us.
        if _address(name) is not None or name in _OUR_NAMES or name.endswith(".localhost"):
            return True
        return (bool(self.machine) and name == self.machine) or _matches(name, self.hosts)

    def allows_origin(self, origin: str, host: str) -> bool:
        """True when pages of `origin` may use this server, which they call `host`."""
        if "*" in self.origins or origin in self.origins:
            return True
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            return False
        scheme, place = match.groups()
        if scheme in _TRUSTED_SCHEMES:
            return True
        if scheme not in ("http", "https"):
            return False
        return place.lower() == host.lower() or is_loopback(_name_of(place) or "")


class Border:
    """Pure ASGI middleware: refuses strangers, answers preflights, and says to browsers who may read an answer."""

    def __init__(self, app: ASGIApp, rules: BorderRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            origin = self._check(request)
        except LocalLLMError as error:
            await error_response(request, error)(scope, receive, send)
            return
        if origin is not None:
            send = _with_cors(send, origin)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in request.headers:
            await _preflight(request)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> str | None:
        """The origin of the page that may read the answer, if it is one.

        Raises:
            HeadTooLarge: more than a connection would take in several pieces came in one.
            InvalidRequest: no Host, or several, or one that is none; or two lengths of the body.
            WrongHost: not a name of ours.
            Forbidden: a page that must not ask this.
        """
        if _head_bytes(request.scope) > MAX_HEAD_BYTES:
            raise HeadTooLarge
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or _name_of(hosts[0]) is None:
            raise InvalidRequest("The request needs exactly one valid Host header.", param="Host")
        if not self._rules.allows_host(hosts[0]):
            raise WrongHost
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            # Who stands between us and the client may have read one of them, and we would read the other.
            raise InvalidRequest("The request says in two ways how long its body is.", param="Content-Length")
        origins = request.headers.getlist("origin")
        allowed = len(origins) == 1 and self._rules.allows_origin(origins[0], hosts[0])
        if allowed:
            return origins[0]
        # A stream that is asked for in an address computes, and may go on with a conversation.
        changing = request.method not in _READING or request.scope["path"] in _ACTING
        if origins and changing:
            raise Forbidden(
                "Pages of this origin must not use this server.", "API_CORS_ORIGINS can allow them."
            )
        if request.headers.get("sec-fetch-site") == "cross-site" and not _is_harmless(request):
            raise Forbidden(
                "Pages of other sites must not use this server.", "API_CORS_ORIGINS can allow them."
            )
        return None


def is_loopback(name: str) -> bool:
    """True for an address or a name that only this machine has."""
    address = _address(name)
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _head_bytes(scope: Scope) -> int:
    target = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
    return target + sum(len(name) + len(value) for name, value in scope["headers"])


def _is_harmless(request: Request) -> bool:
    navigates = request.headers.get("sec-fetch-mode") == "navigate"
    return navigates and request.method in _READING and request.scope["path"] in _PAGES


def _name_of(host: str) -> str | None:
    """The name in `name:port`, in lower case and without a dot at its end; None where it is not of that form."""
    match = _HOST.fullmatch(host)
    return None if match is None else match[1].strip("[]").lower().removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        pattern == "*" or name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in (one.lower() for one in patterns)
    )


def _with_cors(send: Send, origin: str) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = _EXPOSED
            headers.add_vary_header("Origin")
        await send(message)

    return wrapped


def _preflight(request: Request) -> Response:
    """Browsers ask this before they send anything of note, and never with a key."""
    headers = {"access-control-allow-methods": "GET, HEAD, POST, DELETE", "access-control-max-age": "600"}
    asked = request.headers.get("access-control-request-headers", "")
    if _HEADER_NAMES.fullmatch(asked):
        headers["access-control-allow-headers"] = asked
    if request.headers.get("access-control-request-private-network") == "true":
        headers["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=headers)
