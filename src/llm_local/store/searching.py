"""Looking for models on the hub: what may be asked, and what the answers mean."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urljoin

from llm_local.errors import AccessDenied, HubUnavailable, InvalidRequest, LocalLLMError
from llm_local.store.answers import Asked, declared_license, refusal
from llm_local.store.endpoint import origin
from llm_local.store.hub import OFFLINE_AFTER_S, Answer, HubClient, probe, within
from llm_local.store.names import is_hub_id, shown
from llm_local.store.remote import Source, read_bounded
from llm_local.store.retries import Retries, TransientError

__all__ = ["MAX_RESULTS", "SORTS", "FoundModel", "SearchQuery", "parse_size", "search_hub"]

MAX_RESULTS: Final = 100
SORTS: Final[Mapping[str, str]] = {
    "downloads": "downloads",
    "likes": "likes",
    "trending": "trendingScore",
    "updated": "lastModified",
    "created": "createdAt",
}
"""Our word for an order to the hub's."""

_MAX_WORDS_CHARS: Final = 200
_MAX_PAGES: Final = 5
_EXPANDED: Final = (
    "downloads",
    "likes",
    "safetensors",
    "gguf",
    "pipeline_tag",
    "gated",
    "tags",
    "lastModified",
)
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SIZE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([a-zA-Z]{1,2})")
_COUNTS: Final = {"k": 10**3, "m": 10**6, "b": 10**9}
_SIZES: Final = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_NEXT: Final = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_BYTES: Final[Mapping[str, float]] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F4": 0.5, "I4": 0.5, "U4": 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for. `max_parameters` and `max_bytes` leave out what is larger, and what does not tell.

    Raises:
        InvalidRequest: a value that nothing can be found by; the message names it.
    """

    words: str = ""
    author: str | None = None
    task: str | None = None
    license: str | None = None
    gated: bool | None = None
    sort: str = "downloads"
    limit: int = 20
    max_parameters: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if len(self.words) > _MAX_WORDS_CHARS or any(unicodedata.category(c)[0] == "C" for c in self.words):
            raise InvalidRequest(
                f"The words {shown(self.words)} are too long or have control characters.", param="words"
            )
        for name in ("author", "task", "license"):
            value = getattr(self, name)
            if value is not None and not _TAG.fullmatch(value):
                raise InvalidRequest(f"{shown(value)} is no {name}.", param=name)
        if self.sort not in SORTS:
            raise InvalidRequest(
                f"{shown(self.sort)} is no order.", f"Choose one of {', '.join(SORTS)}.", param="sort"
            )
        if not 1 <= self.limit <= MAX_RESULTS:
            raise InvalidRequest(f"The limit is {self.limit}, but must be 1 to {MAX_RESULTS}.", param="limit")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One model that was found. What the hub does not tell is None or "".

    `format` is how the weights are offered: safetensors, gguf, pickle (which is refused), or "" for none of these.
    """

    ref: str
    downloads: int | None
    likes: int | None
    num_parameters: int | None
    num_bytes: int | None
    task: str
    license: str
    gated: bool
    format: str
    updated: str


def parse_size(text: str) -> tuple[int | None, int | None]:
    """Parameters and bytes, of which one is None: `3b`, `500m` are parameters; `4GB`, `800MB` are bytes.

    Raises:
        InvalidRequest: it is neither.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].lower() if match else ""
    for units, in_bytes in ((_COUNTS, False), (_SIZES, True)):
        if match is not None and unit in units:
            value = round(float(match[1]) * units[unit])
            return (None, value) if in_bytes else (value, None)
    raise InvalidRequest(
        f"{shown(text)} is no size.",
        "Write parameters as 3b or 500m, bytes as 4GB or 800MB.",
        param="max_size",
    )


def search_hub(query: SearchQuery, source: Source) -> list[FoundModel]:
    """The models that fit, at most `query.limit`, in its order.

    Raises:
        HubUnavailable: no connection, or something else answers in the hub's place. AccessDenied: a wrong token.
    """
    within(OFFLINE_AFTER_S, source.endpoint, lambda: probe(source.endpoint))
    found: dict[str, FoundModel] = {}
    with HubClient(source.endpoint, source.token) as client:
        for page in _pages(client, query):
            for model in filter(None, map(_model, page)):
                if _is_small_enough(model, query):
                    found.setdefault(model.ref, model)
            if len(found) >= query.limit:
                break
    return list(found.values())[: query.limit]


def _pages(client: HubClient, query: SearchQuery) -> Iterator[list[Any]]:
    url: str | None = f"{client.endpoint}/api/models?{urlencode(_parameters(query), doseq=True)}"
    for _ in range(_MAX_PAGES):
        if url is None:
            return
        page, following = _page(client, url)
        yield page
        url = following


def _parameters(query: SearchQuery) -> dict[str, Any]:
    # What does not tell its size is left out here, so more are asked for.
    filtered = query.max_parameters is not None or query.max_bytes is not None
    asked = {
        "search": query.words.strip() or None,
        "author": query.author,
        "pipeline_tag": query.task,
        "filter": None if query.license is None else f"license:{query.license}",
        "gated": None if query.gated is None else str(query.gated).lower(),
        "num_parameters": None if query.max_parameters is None else f"max:{query.max_parameters}",
        "sort": SORTS[query.sort],
        "limit": MAX_RESULTS if filtered else query.limit,
        "expand": list(_EXPANDED),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _page(client: HubClient, url: str) -> tuple[list[Any], str | None]:
    retries = Retries()
    while True:
        try:
            with client.send("GET", url) as answer:
                if not answer.is_success:
                    raise _refusal(answer, client.endpoint)
                data = read_bounded(answer, client.endpoint, "The list of models")
                return _read_list(data, client.endpoint), _next(answer, url, client.endpoint)
        except TransientError as error:
            retries.wait(error)


def _read_list(data: bytes, endpoint: str) -> list[Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise HubUnavailable(
            f"What answers at {endpoint} is not a model hub.",
            "A network that wants a login first answers like this; so does a wrong HF_ENDPOINT.",
        )
    return found[: 10 * MAX_RESULTS]


def _next(answer: Answer, url: str, endpoint: str) -> str | None:
    """The address of the next page, when it is the hub's own."""
    match = _NEXT.search(answer.headers.get("link", ""))
    if match is None:
        return None
    following = urljoin(url, match[1])
    try:
        return following if origin(following) == origin(endpoint) else None
    except LocalLLMError:
        return None


def _refusal(answer: Answer, endpoint: str) -> Exception:
    error = refusal(answer.status, answer.headers, "", Asked(endpoint, "", "main", has_token=False))
    if isinstance(error, TransientError):
        return error
    if answer.status in (401, 403):
        return AccessDenied(
            "The hub does not accept your HF_TOKEN.", "Make a new one and set it, or unset it."
        )
    return HubUnavailable(f"The model hub at {endpoint} answered {answer.status} to a search.")


def _is_small_enough(model: FoundModel, query: SearchQuery) -> bool:
    for limit, value in ((query.max_parameters, model.num_parameters), (query.max_bytes, model.num_bytes)):
        if limit is not None and (value is None or value > limit):
            return False
    return True


def _model(entry: Any) -> FoundModel | None:
    """One model of a list; None for what is none. No field is believed to be of its type."""
    ref = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(ref, str) or not is_hub_id(ref):
        return None
    tags = entry.get("tags")
    parameters, num_bytes = _sizes(entry)
    return FoundModel(
        ref=ref,
        downloads=_count(entry.get("downloads")),
        likes=_count(entry.get("likes")),
        num_parameters=parameters,
        num_bytes=num_bytes,
        task=_text(entry.get("pipeline_tag")),
        license=declared_license(entry),
        gated=bool(entry.get("gated")),
        format=_format([tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []),
        updated=_text(entry.get("lastModified"))[:10],
    )


def _sizes(entry: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Parameters and bytes of the weights, as the hub read them from their headers."""
    told, gguf = entry.get("safetensors"), entry.get("gguf")
    by_format = told.get("parameters") if isinstance(told, dict) else None
    if isinstance(by_format, dict):
        counts = {str(name): _count(value) for name, value in by_format.items()}
        if counts and None not in counts.values():
            total = sum(count for count in counts.values() if count is not None)
            sized = all(name in _BYTES for name in counts)
            num_bytes = sum(_BYTES[name] * (count or 0) for name, count in counts.items()) if sized else None
            return total, None if num_bytes is None else round(num_bytes)
    for place in (told, gguf):
        if isinstance(place, dict) and (total_told := _count(place.get("total"))) is not None:
            return total_told, None
    return None, None


def _format(tags: list[str]) -> str:
    named = {"safetensors": "safetensors", "gguf": "gguf", "pytorch": "pickle"}
    return next((word for tag, word in named.items() if tag in tags), "")


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 10**18 else None


def _text(value: object) -> str:
    return value[:100] if isinstance(value, str) else ""
