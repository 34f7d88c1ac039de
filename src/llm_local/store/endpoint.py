"""Where the hub is, and who may hear the token: addresses and settings, read from the environment at each call."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from llm_local.errors import ConfigError, HubUnavailable

__all__ = [
    "Origin",
    "checked_endpoint",
    "hub_endpoint",
    "hub_token",
    "is_offline",
    "loggable",
    "origin",
    "redirected",
]

_DEFAULT: Final = "https://huggingface.co"
_PORTS: Final = {"https": 443, "http": 80}
_ENDPOINT: Final = re.compile(r"https?://[^/\s@?#]+(/[^\s?#]*)?")
_HEX: Final = re.compile(r"0x[0-9a-f]*")
_LOCAL_NAMES: Final = ("", "localhost", "local", "internal")
_TOKEN: Final = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token is bound to."""

    scheme: str
    host: str
    port: int


def is_offline() -> bool:
    """True when the environment switches the hub off."""
    on = ("1", "true", "yes", "on")
    return any(
        os.environ.get(name, "").strip().lower() in on for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def hub_endpoint() -> str:
    """The address of the hub, without a slash at the end.

    Raises:
        ConfigError: HF_ENDPOINT is not an address.
    """
    return checked_endpoint(os.environ.get("HF_ENDPOINT") or _DEFAULT, "HF_ENDPOINT")


def checked_endpoint(text: str, param: str) -> str:
    """The address of a hub or mirror, without a slash at the end. `param` is what gave it.

    Raises:
        ConfigError: it is not an address.
    """
    endpoint = text.strip().rstrip("/")
    if not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(f"{param} must be an http or https address.", param=param)
    return endpoint


def hub_token() -> str | None:
    """The token the user gave for this run; one that merely lies on the disk is never used.

    Raises:
        ConfigError: HF_TOKEN cannot be sent.
    """
    given = (os.environ.get(name, "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    token = next(filter(None, given), "")
    if not _TOKEN.fullmatch(token):
        raise ConfigError("HF_TOKEN (value not shown) must be one word of ASCII.", param="HF_TOKEN")
    return token or None


def origin(url: str) -> Origin:
    """The origin of an http or https address.

    Raises:
        HubUnavailable: it is neither.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise HubUnavailable(
            f"The model hub cannot be reached at {url[:100]!r}: that is no web address."
        ) from error
    return Origin(parts.scheme, (parts.hostname or "").lower(), port)


def loggable(url: str) -> str:
    """The part of an address that may be written down: scheme, host, port and path.

    Names, passwords and what follows a question mark are keys, where a hub redirects to a warehouse.

    Raises:
        HubUnavailable: it is no http or https address.
    """
    where = origin(url)
    host = f"[{where.host}]" if ":" in where.host else where.host
    port = "" if where.port == _PORTS[where.scheme] else f":{where.port}"
    return f"{where.scheme}://{host}{port}{urlsplit(url).path}"


def redirected(url: str, target: str, endpoint: str) -> str:
    """Where a redirect leads.

    Raises:
        HubUnavailable: from https to http, or from a public hub into a private network.
    """
    new = urljoin(url, target)
    to = origin(new)
    downgrade = origin(url).scheme == "https" and to.scheme == "http"
    if downgrade or (_is_private(to.host) and not _is_private(origin(endpoint).host)):
        raise HubUnavailable(
            f"The model hub at {endpoint} redirects to {to.scheme}://{to.host}, which is refused."
        )
    return new


def _is_private(host: str) -> bool:
    """True for an address or a name of a private network, and for what is such an address in disguise.

    What ends in a number is no name: systems read 127.1, 2130706433 and 0x7f.0.0.1 as addresses.
    """
    host = host.rstrip(".")
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        last = host.rpartition(".")[2]
        return last in _LOCAL_NAMES or last.isdigit() or _HEX.fullmatch(last) is not None
