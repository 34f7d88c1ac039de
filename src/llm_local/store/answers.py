"""What the hub's answers mean: statuses to errors, JSON to file lists. Pure; bytes come from `hub`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any, Final

from llm_local.errors import AccessDenied, HubUnavailable, ModelNotFound
from llm_local.store.download import RemoteFile
from llm_local.store.names import did_you_mean
from llm_local.store.retries import TransientError
from llm_local.store.snapshots import COMMIT, DEFAULT_REVISION, local_models

__all__ = ["Asked", "Description", "declared_license", "read_description", "refusal", "with_headers"]

_DIGEST: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_LICENSE_CHARS: Final = 100
_ANONYMOUS: Final = "Invalid username or password."


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was about, for messages. `file` is None for the description of the whole model."""

    endpoint: str
    ref: str
    revision: str
    has_token: bool
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A model on the hub at one commit. Sizes and digests may be missing from `files`.

    `license` is what its card declares, "" where it declares none; `gated` is True when its authors ask for consent.
    """

    commit: str
    files: Mapping[str, RemoteFile]
    license: str = ""
    gated: bool = False


def refusal(status: int, headers: Mapping[str, str], text: str, asked: Asked) -> Exception:
    """The error for an answer that is not what was asked for. `text` is the start of its body."""
    code = headers.get("x-error-code", "")
    if status in _TRANSIENT:
        return TransientError(f"it answered {status}", retry_after_s=_retry_after(headers))
    if code == "RepoNotFound" or (status == 401 and not asked.has_token and _ANONYMOUS in text):
        return _not_found(asked)
    if status in (401, 403):
        return _denied(status, code, text, asked)
    if code == "RevisionNotFound" or (status == 404 and not code and asked.revision != DEFAULT_REVISION):
        return ModelNotFound(
            f"The hub has no revision {asked.revision!r} of {asked.ref}.",
            f"Look at its branches and tags: {asked.endpoint}/{asked.ref}/tree/main",
            kind="revision_not_found",
        )
    if status == 404 and asked.file is not None:
        return ModelNotFound(
            f"The hub lists {asked.file} of {asked.ref} but has it not.", kind="file_not_found"
        )
    if status == 404:
        return _not_found(asked)
    return HubUnavailable(f"The model hub at {asked.endpoint} answered {status} for {asked.ref}.")


def read_description(data: bytes, asked: Asked) -> Description:
    """The files of a model from the hub's JSON. Names are as the hub wrote them: not yet safe for a path.

    Raises:
        HubUnavailable: this is no description of a model; somebody else answers in the hub's place.
    """
    try:
        found = json.loads(data)
        commit = found["sha"]
        if not COMMIT.fullmatch(commit):
            raise ValueError(commit)
        files = [_file(commit, entry) for entry in found["siblings"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HubUnavailable(
            f"What answers at {asked.endpoint} is not a model hub.",
            "A network that wants a login first answers like this; so does a wrong HF_ENDPOINT.",
        ) from error
    return Description(
        commit, {file.name: file for file in files}, declared_license(found), bool(found.get("gated"))
    )


def declared_license(entry: Mapping[str, Any]) -> str:
    """The license that the hub's JSON about a model declares, "" where there is none.

    A license without a short name of its own goes by the name that its authors gave it.
    """
    card = entry.get("cardData")
    card = card if isinstance(card, dict) else {}
    tags = entry.get("tags")
    tagged = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    of_tags = next((tag.removeprefix("license:") for tag in tagged if tag.startswith("license:")), "")
    declared = card.get("license")
    short = declared if isinstance(declared, str) else of_tags
    named = card.get("license_name")
    found = named if short in ("", "other") and isinstance(named, str) else short
    return found[:_MAX_LICENSE_CHARS]


def with_headers(file: RemoteFile, headers: Mapping[str, str]) -> RemoteFile:
    """A file whose size and digest are taken from the headers of its address, where the list had none."""
    etag = headers.get("x-linked-etag") or headers.get("etag") or ""
    size = headers.get("x-linked-size") or headers.get("content-length") or ""
    digest = _digest(etag.removeprefix("W/").strip('"'))
    return RemoteFile(
        file.name, int(size) if size.isascii() and size.isdigit() else None, digest, digest or file.key
    )


def _file(commit: str, entry: Mapping[str, Any]) -> RemoteFile:
    name, size, lfs = entry["rfilename"], entry.get("size"), entry.get("lfs") or {}
    if not isinstance(name, str):
        raise TypeError(name)
    digest = _digest(lfs.get("sha256") or entry.get("blobId"))
    known = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    # Contents without a digest are kept apart, under a key no digest can have.
    key = digest or f"unverified-{sha256(f'{commit}/{name}'.encode(errors='replace')).hexdigest()}"
    return RemoteFile(name, size if known else None, digest, key)


def _digest(value: object) -> str:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else ""


def _not_found(asked: Asked) -> ModelNotFound:
    hint = did_you_mean(asked.ref, local_models())
    if not hint:
        hint = (
            "Check the spelling."
            if asked.has_token
            else "Check the spelling; a private model needs HF_TOKEN."
        )
    return ModelNotFound(f"The hub has no model {asked.ref}.", hint)


def _denied(status: int, code: str, text: str, asked: Asked) -> AccessDenied:
    page = f"{asked.endpoint}/{asked.ref}"
    if status == 401 and asked.has_token and code != "GatedRepo":
        return AccessDenied(
            f"The hub does not accept your HF_TOKEN for {asked.ref}.", "Make a new one and set it."
        )
    if code == "GatedRepo" or "gated" in text.lower() or "restricted" in text.lower():
        then = "" if asked.has_token else " and set HF_TOKEN"
        return AccessDenied(
            f"{asked.ref} is gated: its authors want you to accept their terms first.",
            f"Accept them at {page}{then}.",
            kind="gated_repo",
        )
    ask = "Ask for access" if asked.has_token else "Set HF_TOKEN, and ask for access"
    return AccessDenied(f"The hub denies access to {asked.ref} ({status}).", f"{ask} at {page}.")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, which is a number or a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
