"""What a service answers beside streams of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llm_local.events import TokenLogprob, Usage
from llm_local.runtime.kept_replies import CacheStatistics
from llm_local.runtime.line_facts import LineStatistics
from llm_local.specs import ModelInfo

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = [
    "Capability",
    "EmbeddedTexts",
    "KnownModel",
    "Loaded",
    "Ranked",
    "Ranking",
    "Readiness",
    "Rendered",
    "ScoredText",
    "ServiceStats",
    "ShownModel",
]

Capability = Literal["chat", "completion", "tools", "thinking", "embedding"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Exactly what the model would see."""

    model: str
    prompt_text: str
    prompt_ids: tuple[int, ...]
    context_length: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """One vector per text, in their order. `token_counts` is what the model read of each."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    token_counts: tuple[int, ...]
    truncated_tokens: tuple[int, ...]
    load_s: float
    embed_s: float
    notices: tuple[str, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """All tokens that the model read."""
        return sum(self.token_counts)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document among others: `index` is its place in the request, from 0; `score` from 0 to 1, the best first."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents, the best first. `prompt_tokens` is all that the model read."""

    model: str
    documents: tuple[Ranked, ...]
    prompt_tokens: int

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class ScoredText:
    """The tokens of a text, each with its log-probability after those before it.

    The very first token a model sees has none: None stands for it.
    """

    model: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob | None, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `requests` use it now; it goes in `expires_in_s`, never where that is None.

    `weight_bytes` and `kv_bytes` are what it takes, `kv_limit_bytes` what keys and values may grow to.
    """

    name: str
    info: ModelInfo
    embeds: bool
    requests: int
    expires_in_s: float | None
    load_s: float
    weight_bytes: int
    kv_bytes: int = 0
    kv_limit_bytes: int = 0
    runs_as: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model on this machine. What its files do not tell is empty, 0 or None.

    `state` is complete, incomplete or corrupt, and `fault` says in words why. `modified` is in seconds since 1970.
    """

    name: str
    kind: Literal["starter", "hub", "directory", "file"]
    state: Literal["complete", "incomplete", "corrupt"]
    num_bytes: int
    modified: float
    architecture: str = ""
    context_length: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    num_parameters: int | None = None
    dtype: str = ""
    commit: str = ""
    fault: str = ""
    loaded: Loaded | None = None


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model with all that its files tell; None where they are damaged or not here."""

    known: KnownModel
    card: ModelCard | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a request to the default model would be served now; if not, `reason` says why in one sentence."""

    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """One look at a service: each model's line, what is loaded and on its way, the cache of replies."""

    lines: Mapping[str, LineStatistics]
    loaded: tuple[Loaded, ...]
    loading: tuple[str, ...]
    cache: CacheStatistics | None
    draining: bool
