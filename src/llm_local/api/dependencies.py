"""Who asks, and whether they may: dependencies of routers, so that a route without them is a mistake a test finds.

`admit` stands before every route but the probes: it finds the caller by the key, and counts the request against the
caller's limit, before a byte of the body is read. `admin_only` stands before what changes the server for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import Request

from llm_local.api.lifecycle import Lifecycle, shutting_down
from llm_local.errors import AccessDenied
from llm_local.service import Caller
from llm_local.store.keys import KeyRing

if TYPE_CHECKING:
    from llm_local.api.rate_limit import RateLimits
    from llm_local.service import Service

__all__ = [
    "Forbidden",
    "Unauthorized",
    "admin_only",
    "admit",
    "caller_of",
    "find_caller",
    "presented_keys",
    "service_of",
]

_BEARER: Final = b"bearer"
_MAX_KEYS: Final = 2  # some clients send both headers


class Unauthorized(AccessDenied):
    """A key is needed, and none, or a wrong one, came. One message for all of it."""

    def __init__(self) -> None:
        super().__init__(
            "Incorrect API key provided.",
            "Send one that this server knows as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
            kind="unauthorized",
        )


class Forbidden(AccessDenied):
    """The key is right, and its role is not enough; or a browser's page of another site asks."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, kind="forbidden")


async def admit(request: Request) -> Caller:
    """Find the caller, and count the request.

    Raises:
        Unauthorized: keys are configured, and the request has none of them.
        Busy: the server is ending (kind `shutting_down`), or the caller has asked too often (`rate_limit_exceeded`).
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    limits: RateLimits = request.app.state.rate_limits
    caller = find_caller(request)
    request.state.caller = caller
    if lifecycle.draining:
        raise shutting_down()
    peer = request.client.host if request.client else ""
    # Who needs no key is told apart by address. A header never counts: anybody may send any.
    request.state.rate = limits.hit(peer if request.app.state.keys.is_open else caller.owner)
    return caller


def find_caller(request: Request) -> Caller:
    """Who asks, by the key.

    Raises:
        Unauthorized: keys are configured, and the request has none of them.
    """
    keys: KeyRing = request.app.state.keys
    request_id: str = request.state.request_id
    if keys.is_open:
        return Caller("local", is_admin=True, request_id=request_id)
    key = keys.find(*presented_keys(request.scope["headers"]))
    if key is None:
        raise Unauthorized
    return Caller(key.id, is_admin=key.role == "admin", request_id=request_id)


async def admin_only(request: Request) -> None:
    """Let only admins through.

    Raises:
        Forbidden: the caller's key has the role user.
    """
    if not caller_of(request).is_admin:
        raise Forbidden("This needs a key with the role admin.")


def caller_of(request: Request) -> Caller:
    """Who asks.

    Raises:
        Unauthorized: nobody was admitted; the route is not behind `admit`.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise Unauthorized
    return caller


def service_of(request: Request) -> Service:
    """The service that this application stands before."""
    service: Service = request.app.state.service
    return service


def presented_keys(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys in a request's raw headers, at most a few. Bytes, since a key may be of any."""
    found = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == _BEARER:
                found.append(key.strip())
        elif name == b"x-api-key":
            found.append(value.strip())
    return [key for key in found if key][:_MAX_KEYS]
