"""The one outbound door: requests to the model hub, and nothing else.

Nothing else in llm-local may open a connection to another machine. The token goes to the hub's own scheme, host and
port and nowhere else, answers are read with a bound, and every failure is one of our errors. What is asked for, and
what the answers mean, is the business of `remote` and `searching`.
"""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx2

from llm_local import __version__
from llm_local.errors import HubUnavailable
from llm_local.store.endpoint import loggable, origin, redirected
from llm_local.store.retries import TransientError

__all__ = ["OFFLINE_AFTER_S", "Answer", "HubClient", "probe", "within"]

logger = logging.getLogger(__name__)

OFFLINE_AFTER_S: Final = 3.0
"""How long, in seconds, it may take to find out that the hub cannot be reached."""

_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_MAX_REDIRECTS: Final = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer while its body is being read. Names of `headers` are lower case; `chunks` are decoded."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def is_success(self) -> bool:
        """True for a status of 200 to 299."""
        return 200 <= self.status <= 299

    @property
    def is_encoded(self) -> bool:
        """True when what travels is not the contents themselves, so that offsets mean nothing."""
        return self.headers.get("content-encoding", "identity") != "identity"


class HubClient:
    """Requests to one hub, over one connection pool. Threads may share it."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        self._authorization = {} if token is None else {"authorization": f"Bearer {token}"}
        # Redirects are followed by hand, because the token must not follow them to another host.
        headers = {"user-agent": f"llm-local/{__version__}", "accept-encoding": "identity"}
        try:
            self._client = httpx2.Client(follow_redirects=False, timeout=_TIMEOUT, headers=headers)
        except (
            ImportError,
            ValueError,
        ) as error:  # it reads the proxy variables, and not all kinds are supported
            raise HubUnavailable(
                "The proxy that the environment names cannot be used.",
                "Set HTTPS_PROXY to an http:// proxy, or unset ALL_PROXY and HTTPS_PROXY.",
            ) from error

    def __enter__(self) -> HubClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextmanager
    def send(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """One answer to `method url` of any status, redirects followed.

        A HEAD stops at the redirect that tells size and digest of a file.

        Raises:
            TransientError: the connection failed. HubUnavailable: it makes no sense to go on.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            own = origin(url) == origin(self.endpoint)
            sent = {**(headers or {}), **(self._authorization if own else {})}
            logger.info("outbound: %s %s", method, loggable(url))
            with (
                _transport_errors(self.endpoint),
                self._client.stream(method, url, headers=sent) as response,
            ):
                target = response.headers.get("location") if response.is_redirect else None
                if target is None or (method == "HEAD" and "x-linked-etag" in response.headers):
                    yield Answer(response.status_code, response.headers, response.iter_bytes())
                    return
            url = redirected(url, target, self.endpoint)
        raise HubUnavailable(f"The model hub at {self.endpoint} redirects in circles.")


def probe(endpoint: str) -> None:
    """Connect to the hub, or to the proxy in front of it, and hang up.

    Raises:
        HubUnavailable: nobody answers.
    """
    address = origin(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.host):
        address = origin(proxy if "//" in proxy else f"http://{proxy}")
    logger.info("outbound: connect to %s:%d and hang up", address.host, address.port)
    try:
        socket.create_connection((address.host, address.port), timeout=OFFLINE_AFTER_S).close()
    except (OSError, UnicodeError) as error:
        raise _unreachable(endpoint, getattr(error, "strerror", None) or str(error)) from error


def within(seconds: float, endpoint: str, action: Callable[[], _T]) -> _T:
    """The result of `action`, which runs in a thread of its own because name lookup heeds no timeout.

    Raises:
        HubUnavailable: it takes longer. Whatever `action` raises.
    """
    outcome: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((action(), None))
        except BaseException as error:  # handed to the waiting thread, whatever it is
            outcome.put((None, error))

    threading.Thread(target=run, name="hub-probe", daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise _unreachable(endpoint, "it does not answer in time") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error there is a result


def _unreachable(endpoint: str, reason: str) -> HubUnavailable:
    return HubUnavailable(
        f"The model hub at {endpoint} cannot be reached ({reason}).",
        "Check the network, or use a model on this disk; `--model starter` always works.",
    )


@contextmanager
def _transport_errors(endpoint: str) -> Iterator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        if isinstance(_root(error), ssl.SSLCertVerificationError):
            raise HubUnavailable(
                f"The certificate of {endpoint} cannot be trusted ({_root(error)}).",
                "A network that wants a login does this; a company's own certificate goes into SSL_CERT_FILE.",
            ) from error
        raise TransientError(str(error) or type(error).__name__) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise HubUnavailable(
            f"The model hub at {endpoint} sent an answer that makes no sense ({error})."
        ) from error


def _root(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error
