"""The one outbound door: bringing a model from the hub to this disk.

Nothing else in llm-local may open a connection to another machine. The token goes to the hub's own scheme, host and
port and nowhere else, answers are read with a bound, and every failure is one of our errors.
"""

from __future__ import annotations

import queue
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx2

from llm_local import __version__
from llm_local.errors import HubUnavailable, InvalidRequest, ModelCorrupt
from llm_local.events import Progress
from llm_local.store.answers import Asked, Description, read_description, refusal, with_headers
from llm_local.store.download import Body, RemoteFile, check_room, download, storage_errors
from llm_local.store.endpoint import hub_endpoint, hub_token, is_offline, origin, redirected
from llm_local.store.names import parse_name, safe_join
from llm_local.store.retries import Retries, TransientError
from llm_local.store.selection import INDEX, select_files
from llm_local.store.snapshots import DEFAULT_REVISION, RepoCache, cache_folder, find_local
from llm_local.store.weight_index import shard_names

__all__ = ["OFFLINE_AFTER_S", "find_local", "pull"]

OFFLINE_AFTER_S: Final = 3.0
"""How long, in seconds, it may take to find out that the hub cannot be reached."""

_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_MAX_JSON_BYTES: Final = 8 << 20
_MAX_REDIRECTS: Final = 5
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_T = TypeVar("_T")


def pull(
    ref: str,
    revision: str | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    answer_within_s: float | None = None,
) -> Path:
    """Bring what is needed of a hub model to this disk and return its folder; files already here are not fetched.

    A hub that cannot be connected to is reported within OFFLINE_AFTER_S, without retries. With `answer_within_s` it
    must also have described the model within that many seconds. Later failures are retried, and a download that
    breaks off goes on where it stopped, in this run or in the next.

    Raises:
        ModelNotFound: no such model, revision or file.
        AccessDenied: gated or private, or a wrong token.
        HubUnavailable: no connection, or the hub fails again and again.
        StorageError: no room, or the disk refuses.
        ModelCorrupt: what arrives is not what the hub promised. UnsafeWeights: there are only pickle weights.
        UnsupportedTask: the weights are in a format that cannot be loaded.
    """
    name = parse_name(ref, revision)
    if name.kind != "hub":
        raise InvalidRequest(f"{ref!r} is not a model on the hub.", param="model")
    if is_offline():
        raise HubUnavailable(
            "The model hub is switched off by HF_HUB_OFFLINE.", "Unset it, or use a model on this disk."
        )
    endpoint, token = hub_endpoint(), hub_token()
    asked = Asked(endpoint, name.ref, name.revision or DEFAULT_REVISION, has_token=token is not None)
    began = time.monotonic()
    _within(OFFLINE_AFTER_S, endpoint, lambda: _probe(endpoint))
    with _Hub(asked, token) as hub:
        if answer_within_s is None:
            model = hub.describe(Retries())
        else:
            left = max(0.0, answer_within_s - (time.monotonic() - began))
            model = _within(left, endpoint, lambda: hub.describe(Retries(tries=1)))
        pulling = _Pull(hub, model, RepoCache(cache_folder(), name.ref), on_progress or (lambda event: None))
        return pulling.run(asked.revision)


class _Pull:
    """One model on its way. Small files come first and the branch is set last, so a half model is never found."""

    def __init__(
        self, hub: _Hub, model: Description, repo: RepoCache, on_progress: Callable[[Progress], None]
    ) -> None:
        self._hub = hub
        self._model = model
        self._repo = repo
        self._on_progress = on_progress
        self._done = 0
        self._total: int | None = None

    def run(self, revision: str) -> Path:
        """Fetch everything and return the folder."""
        chosen = select_files(self._repo.ref, self._model.files)
        folder = self._repo.snapshot(self._model.commit)
        names = self._checked([*chosen.metadata, chosen.weights])
        with storage_errors(self._repo.cache):
            if chosen.weights == INDEX:
                self._fetch(self._completed(INDEX))
                names = self._checked([*chosen.metadata, *shard_names(folder / INDEX)])
            files = [self._completed(name) for name in names]
            self._plan(files)
            for file in files:
                self._fetch(file)
            self._repo.point(revision, self._model.commit)
        return folder

    def _checked(self, names: list[str]) -> list[str]:
        """The names, each once and all safe: known to the hub, inside the folder, distinct on any file system."""
        unique = list(dict.fromkeys(names))
        seen: dict[str, str] = {}
        for name in unique:
            safe_join(self._repo.root, name)
            if name not in self._model.files:
                raise ModelCorrupt(f"{INDEX} names {name}, which the model does not have.", file=INDEX)
            if seen.setdefault(name.casefold(), name) != name:
                raise ModelCorrupt(f"{name} and {seen[name.casefold()]} differ only in case.", file=name)
        return unique

    def _completed(self, name: str) -> RemoteFile:
        file = self._model.files[name]
        return file if file.digest and file.size is not None else self._hub.look_up(self._model.commit, file)

    def _plan(self, files: list[RemoteFile]) -> None:
        self._done = 0
        sizes = [file.size for file in files]
        self._total = None if None in sizes else sum(size for size in sizes if size is not None)
        missing = 0
        for file in files:
            if not self._repo.blob(file.key).exists() and file.size is not None:
                part = self._repo.part(file.key)
                missing += file.size - (part.stat().st_size if part.exists() else 0)
        check_room(self._repo.cache, missing)

    def _fetch(self, file: RemoteFile) -> None:
        def report(have: int, label: str = file.name) -> None:
            self._on_progress(Progress("downloading", self._done + have, self._total, label))

        retries = Retries(on_wait=lambda reason: report(0, f"{file.name}: {reason}"))
        blob = download(self._repo, file, self._hub.opener(self._model.commit, file), retries, report)
        self._done += blob.stat().st_size
        self._repo.link(self._model.commit, file.name, file.key)


class _Hub:
    """Requests about one model, over one connection pool."""

    def __init__(self, asked: Asked, token: str | None) -> None:
        self._asked = asked
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

    def __enter__(self) -> _Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def describe(self, retries: Retries) -> Description:
        """Commit and files of the model."""
        asked = self._asked
        url = f"{asked.endpoint}/api/models/{asked.ref}/revision/{quote(asked.revision, safe='')}?blobs=true"
        while True:
            try:
                with self._send("GET", url, asked) as response:
                    return read_description(_read_bounded(response, asked.endpoint), asked)
            except TransientError as error:
                retries.wait(error)

    def look_up(self, commit: str, file: RemoteFile) -> RemoteFile:
        """Size and digest of a file, from its address."""
        retries = Retries()
        while True:
            try:
                with self._send("HEAD", self._address(commit, file), self._about(file)) as response:
                    return with_headers(file, response.headers)
            except TransientError as error:
                retries.wait(error)

    def opener(self, commit: str, file: RemoteFile) -> Callable[[int], Any]:
        """Opens the contents of a file at an offset."""

        @contextmanager
        def open_at(offset: int) -> Iterator[Body]:
            url, about = self._address(commit, file), self._about(file)
            if offset:
                with self._send("GET", url, about, {"range": f"bytes={offset}-"}) as response:
                    if (start := _start_of(response, offset, file)) is not None:
                        yield Body(start, response.iter_bytes())
                        return
            with self._send("GET", url, about) as response:
                if _start_of(response, 0, file) is None:
                    raise refusal(response.status_code, response.headers, "", about)
                yield Body(0, response.iter_bytes())

        return open_at

    def _address(self, commit: str, file: RemoteFile) -> str:
        return f"{self._asked.endpoint}/{self._asked.ref}/resolve/{commit}/{quote(file.name)}"

    def _about(self, file: RemoteFile) -> Asked:
        return replace(self._asked, file=file.name)

    @contextmanager
    def _send(
        self, method: str, url: str, asked: Asked, headers: dict[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """One answer to `method url`, redirects followed.

        Raises:
            TransientError, LocalLLMError: it failed, or the hub refused.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            own = origin(url) == origin(asked.endpoint)
            sent = {**(headers or {}), **(self._authorization if own else {})}
            with (
                _transport_errors(asked.endpoint),
                self._client.stream(method, url, headers=sent) as response,
            ):
                target = response.headers.get("location") if response.is_redirect else None
                if target is None or (method == "HEAD" and "x-linked-etag" in response.headers):
                    _refuse(response, asked)
                    yield response
                    return
            url = redirected(url, target, asked.endpoint)
        raise HubUnavailable(f"The model hub at {asked.endpoint} redirects in circles.")


def _probe(endpoint: str) -> None:
    """Connect to the hub, or to the proxy in front of it, and hang up."""
    address = origin(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.host):
        address = origin(proxy if "//" in proxy else f"http://{proxy}")
    try:
        socket.create_connection((address.host, address.port), timeout=OFFLINE_AFTER_S).close()
    except (OSError, UnicodeError) as error:
        raise _unreachable(endpoint, getattr(error, "strerror", None) or str(error)) from error


def _within(seconds: float, endpoint: str, action: Callable[[], _T]) -> _T:
    """The result of `action`, which runs in a thread of its own because name lookup heeds no timeout."""
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


def _refuse(response: httpx2.Response, asked: Asked) -> None:
    if response.is_success or (asked.file is not None and response.is_redirect):
        return
    if response.status_code == 416:
        return
    text = next(response.iter_bytes(2048), b"").decode(errors="replace")
    raise refusal(response.status_code, response.headers, text, asked)


def _read_bounded(response: httpx2.Response, endpoint: str) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > _MAX_JSON_BYTES:
            raise HubUnavailable(
                f"The description of the model at {endpoint} is larger than {_MAX_JSON_BYTES >> 20} MB."
            )
    return bytes(data)


def _start_of(response: httpx2.Response, offset: int, file: RemoteFile) -> int | None:
    """Where the body starts: at `offset`, or at 0 when the hub sends the whole file; None when it is of no use.

    Raises:
        ModelCorrupt: a web page came instead.
    """
    if "text/html" in response.headers.get("content-type", ""):
        raise ModelCorrupt(
            f"Instead of {file.name} the hub sent a web page.",
            "A network that wants a login first answers like this.",
            file=file.name,
            kind="integrity_failed",
        )
    if response.status_code == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    fits = match is not None and int(match[1]) == offset and match[2] in ("*", str(file.size))
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    return offset if response.status_code == 206 and fits and not encoded else None
