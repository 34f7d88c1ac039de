"""One model on the hub: what it consists of, and its files, whole or from an offset on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from llm_local.errors import HubUnavailable, ModelCorrupt
from llm_local.store.answers import Asked, Description, read_description, refusal, with_headers
from llm_local.store.digests import RunningDigest
from llm_local.store.download import Body, Pace, RemoteFile
from llm_local.store.hub import OFFLINE_AFTER_S, Answer, HubClient, probe, within
from llm_local.store.names import ModelName
from llm_local.store.retries import Retries, TransientError
from llm_local.store.snapshots import DEFAULT_REVISION

__all__ = ["RemoteModel", "Source", "open_remote", "read_bounded"]

_MAX_JSON_BYTES: Final = 8 << 20
_MAX_WHOLE_BYTES: Final = 64 << 20
_READ_WITHIN_S: Final = 60.0
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Source:
    """Where models come from: the address of a hub, and the token it may hear."""

    endpoint: str
    token: str | None = None

    def __repr__(self) -> str:
        return f"Source({self.endpoint!r})"


@contextmanager
def open_remote(
    name: ModelName, source: Source, *, answer_within_s: float | None = None
) -> Iterator[RemoteModel]:
    """A model of the hub at `source`, described.

    A hub that cannot be connected to is reported within OFFLINE_AFTER_S, without retries. With `answer_within_s` it
    must also have described the model within that many seconds. Later failures are retried.

    Raises:
        HubUnavailable: no connection, or the hub fails again and again.
        ModelNotFound: no such model or revision. AccessDenied: gated or private, or a wrong token.
    """
    endpoint = source.endpoint
    asked = Asked(endpoint, name.ref, name.revision or DEFAULT_REVISION, has_token=source.token is not None)
    began = time.monotonic()
    within(OFFLINE_AFTER_S, endpoint, lambda: probe(endpoint))
    with HubClient(endpoint, source.token) as client:
        if answer_within_s is None:
            description = _describe(client, asked, Retries())
        else:
            left = max(0.0, answer_within_s - (time.monotonic() - began))
            description = within(left, endpoint, lambda: _describe(client, asked, Retries(tries=1)))
        yield RemoteModel(client, asked, description)


class RemoteModel:
    """A model at one commit. `description` is what the hub says of it: names in it are not yet safe for a path."""

    def __init__(self, client: HubClient, asked: Asked, description: Description) -> None:
        self._client = client
        self.asked = asked
        self.description = description

    def completed(self, name: str) -> RemoteFile:
        """A file with size and digest, asked for one by one where the description lacks them.

        Raises:
            ModelNotFound, AccessDenied, HubUnavailable: the hub refuses it.
        """
        file = self.description.files[name]
        if file.digest and file.size is not None:
            return file
        retries = Retries()
        while True:
            try:
                with self._send("HEAD", file) as answer:
                    return with_headers(file, answer.headers)
            except TransientError as error:
                retries.wait(error)

    def opener(self, file: RemoteFile) -> Callable[[int], Any]:
        """Opens the contents of a file at an offset. It remembers the version it began with."""
        version = ""

        @contextmanager
        def open_at(offset: int) -> Iterator[Body]:
            nonlocal version
            if offset:
                condition = {"if-range": version} if version else {}
                with self._send("GET", file, {"range": f"bytes={offset}-", **condition}) as answer:
                    if (start := _start_of(answer, offset, file)) is not None:
                        yield Body(start, answer.chunks)
                        return
            with self._send("GET", file) as answer:
                if _start_of(answer, 0, file) is None:
                    raise refusal(answer.status, answer.headers, "", self._about(file))
                etag = answer.headers.get("etag", "")
                version = etag if etag.startswith('"') else ""  # a weak one says nothing about bytes
                yield Body(0, answer.chunks)

        return open_at

    def read_start(self, file: RemoteFile, num_bytes: int) -> bytes:
        """The first bytes of a file, fewer where it is shorter. A hub that knows no ranges is hung up on in time.

        Raises:
            ModelCorrupt: a web page came instead. ModelNotFound, AccessDenied, HubUnavailable: the hub refuses.
        """
        if file.size == 0:
            return b""

        def read() -> bytes:
            with self._send("GET", file, {"range": f"bytes=0-{num_bytes - 1}"}) as answer:
                if _start_of(answer, 0, file) == 0:
                    return _first(answer.chunks, num_bytes, file)
            with self.opener(file)(0) as body:
                return _first(body.chunks, num_bytes, file)

        return _retried(read)

    def read_whole(self, file: RemoteFile) -> bytes:
        """The contents of a small file, verified, without a place on the disk.

        Raises:
            ModelCorrupt: it is too large, or not what was promised, twice. As `read_start` otherwise.
        """
        if (file.size or 0) > _MAX_WHOLE_BYTES:
            raise ModelCorrupt(
                f"{file.name} is larger than {_MAX_WHOLE_BYTES >> 20} MB, which it cannot rightly be.",
                file=file.name,
            )

        def read() -> bytes:
            with self.opener(file)(0) as body:
                return _first(body.chunks, _MAX_WHOLE_BYTES, file)

        for _ in range(2):
            data = _retried(read)
            running = RunningDigest(file.digest, len(data))
            running.feed(data)
            if file.size in (None, len(data)) and running.matches():
                return data
        raise ModelCorrupt(
            f"{file.name} arrived damaged: its contents are not what the hub promised.",
            "Try again; if it stays so, do not trust this hub or mirror.",
            file=file.name,
            kind="integrity_failed",
        )

    @contextmanager
    def _send(self, method: str, file: RemoteFile, headers: dict[str, str] | None = None) -> Iterator[Answer]:
        asked = self.asked
        url = f"{asked.endpoint}/{asked.ref}/resolve/{self.description.commit}/{quote(file.name)}"
        with self._client.send(method, url, headers) as answer:
            _refuse(answer, self._about(file))
            yield answer

    def _about(self, file: RemoteFile) -> Asked:
        return replace(self.asked, file=file.name)


def read_bounded(answer: Answer, endpoint: str, what: str) -> bytes:
    """The body of a JSON answer.

    Raises:
        HubUnavailable: it is larger, or takes longer, than any such answer does.
    """
    data, began = bytearray(), time.monotonic()
    for chunk in answer.chunks:
        data += chunk
        if len(data) > _MAX_JSON_BYTES:
            raise HubUnavailable(f"{what} at {endpoint} is larger than {_MAX_JSON_BYTES >> 20} MB.")
        if time.monotonic() - began > _READ_WITHIN_S:
            raise HubUnavailable(f"{what} at {endpoint} comes too slowly.", "Try again later.")
    return bytes(data)


def _retried(read: Callable[[], bytes]) -> bytes:
    retries = Retries()
    while True:
        try:
            return read()
        except TransientError as error:
            retries.wait(error)


def _first(chunks: Iterator[bytes], num_bytes: int, file: RemoteFile) -> bytes:
    data, pace = bytearray(), Pace(file.name)
    for chunk in chunks:
        data += chunk
        if len(data) >= num_bytes:
            break
        pace.moved(len(chunk))
    return bytes(data[:num_bytes])


def _describe(client: HubClient, asked: Asked, retries: Retries) -> Description:
    url = f"{asked.endpoint}/api/models/{asked.ref}/revision/{quote(asked.revision, safe='')}?blobs=true"
    while True:
        try:
            with client.send("GET", url) as answer:
                _refuse(answer, asked)
                return read_description(
                    read_bounded(answer, asked.endpoint, "The description of the model"), asked
                )
        except TransientError as error:
            retries.wait(error)


def _refuse(answer: Answer, asked: Asked) -> None:
    is_redirect = 300 <= answer.status <= 399
    if answer.is_success or answer.status == 416 or (asked.file is not None and is_redirect):
        return
    text = next(answer.chunks, b"")[:2048].decode(errors="replace")
    raise refusal(answer.status, answer.headers, text, asked)


def _start_of(answer: Answer, offset: int, file: RemoteFile) -> int | None:
    """Where the body starts: at `offset`, or at 0 when the hub sends the whole file; None when it is of no use.

    Raises:
        ModelCorrupt: a web page came instead.
    """
    if "text/html" in answer.headers.get("content-type", ""):
        raise ModelCorrupt(
            f"Instead of {file.name} the hub sent a web page.",
            "A network that wants a login first answers like this.",
            file=file.name,
            kind="integrity_failed",
        )
    if answer.status == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    fits = match is not None and int(match[1]) == offset and match[2] in ("*", str(file.size))
    return offset if answer.status == 206 and fits and not answer.is_encoded else None
