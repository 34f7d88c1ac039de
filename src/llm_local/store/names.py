"""What a model may be called: `starter`, a name somebody gave, a directory, or `org/name[@revision]` on the hub.

Everything here is pure or looks at the disk; nothing asks the network. Names come from people, from settings and
from remote files alike, so every one of them passes here before it becomes a path.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llm_local.errors import InvalidRequest, ModelCorrupt, ModelNotFound, UnsupportedTask
from llm_local.store.catalog import catalog_models, full_name
from llm_local.store.given_names import GivenName, find_given, given_names

__all__ = ["STARTER", "ModelName", "did_you_mean", "is_hub_id", "parse_name", "safe_join", "shown"]

STARTER: Final = "starter"

_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s]*/?(?P<rest>\S*)")
_PATH_STARTS: Final = ("./", "../", "/", "~")
_MAX_TEXT: Final = 4096
_MAX_PART_BYTES: Final = 255
_DEVICES: Final = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name that was understood.

    `ref` is its one spelling: `starter`, the directory as given or the name somebody gave it, or the hub id with
    aliases resolved. `path` is set for directories only, `revision` for hub ids only.
    """

    kind: Literal["starter", "directory", "hub"]
    ref: str
    revision: str | None = None
    path: Path | None = None


def parse_name(text: str, revision: str | None = None) -> ModelName:
    """Understand what a user, a setting or a request calls a model.

    Raises:
        InvalidRequest: a URL, a name built to leave its folder, or two different revisions.
        ModelNotFound: a directory that is not there, or a name no model can have.
        ModelCorrupt, UnsupportedTask: a name somebody gave is damaged, or names a file that cannot be run.
    """
    if len(text) > _MAX_TEXT or any(unicodedata.category(char) == "Cc" for char in text):
        raise InvalidRequest(
            f"The model name {shown(text)} is too long or has control characters.", param="model"
        )
    if text == STARTER:
        if revision is not None:
            raise InvalidRequest("The starter model has no revisions.", param="revision")
        return ModelName("starter", STARTER)
    name, _, tail = text.partition("@")
    if (given := find_given(name)) is not None:
        return _given_name(given, tail or None, revision)
    if text in (".", "..") or text.startswith(_PATH_STARTS) or (text and _is_directory(Path(text))):
        return _directory(text, revision)
    return _hub_name(text, revision)


def safe_join(folder: Path, name: str) -> Path:
    """The path of a remote `name` (`a/b.json`) under `folder`. The only place where a remote string becomes a path.

    Raises:
        ModelCorrupt: the name could leave the folder, or means different files on different systems.
    """
    parts = name.split("/")
    if len(name) > _MAX_TEXT or not all(_is_safe_part(part) for part in parts):
        raise ModelCorrupt(
            f"The file name {shown(name)} is not safe to use.",
            "The model's file list is damaged or hostile; nothing was written.",
            file=shown(name),
        )
    return folder.joinpath(*parts)


def did_you_mean(text: str, known: Iterable[str] = ()) -> str:
    """A hint that lists the known names nearest to `text`, or "" when none is near."""
    given = [one.name for one in given_names()]
    listed = [name for one in catalog_models() for name in dict.fromkeys((one.name, one.id))]
    spelled = {name.lower(): name for name in (STARTER, *listed, *given, *known)}
    if text.lower() in spelled:  # whoever spelled it right means it
        return ""
    near = difflib.get_close_matches(text.lower(), spelled, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(spelled[name] for name in near)}?" if near else ""


def shown(text: str) -> str:
    """A name for a message: quoted, escaped and not too long."""
    return repr(text) if len(text) <= 100 else f"{text[:97]!r}..."


def _is_safe_part(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and not any(unicodedata.category(char)[0] == "C" or char in '\\:%*?"<>|' for char in part)
        and part[-1] not in ". "
        and len(part.encode()) <= _MAX_PART_BYTES
        and not _DEVICES.fullmatch(part)
    )


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long for this file system, or not ours to look at
        return False


def _given_name(given: GivenName, tail: str | None, revision: str | None) -> ModelName:
    """What a name that somebody gave stands for. Its target is checked as if it had been written here."""
    if given.fault:
        raise ModelCorrupt(
            f"The name {given.name} is damaged: {given.fault}.",
            f"Take it away with `llm-local rm {given.name}`, and give it again.",
        )
    asked = [one for one in (given.revision, tail, revision) if one is not None]
    if asked and given.kind != "hub":
        raise InvalidRequest(
            f"{given.name} is no model of the hub, so it has no revisions.", param="revision"
        )
    if len(set(asked)) > 1:
        raise InvalidRequest(
            f"Two revisions are given: {shown(asked[0])} and {shown(asked[-1])}.", param="revision"
        )
    if given.kind == "hub" and ":" not in given.target:
        return _hub_name(given.target, asked[0] if asked else None)
    if given.kind == "starter":
        return ModelName("starter", STARTER)
    if given.kind != "directory":
        raise UnsupportedTask(
            f"{given.name} is a GGUF file, and these cannot be run yet.",
            "Choose a model with safetensors weights.",
            param="model",
        )
    path = Path(given.target)
    if not _is_directory(path):
        raise ModelNotFound(
            f"{given.name} stands for {given.target}, which is not there.",
            f"Bring it back, or forget the name with `llm-local rm {given.name}`.",
        )
    return ModelName("directory", given.name, path=path)


def _directory(text: str, revision: str | None) -> ModelName:
    if revision is not None:
        raise InvalidRequest(
            f"{shown(text)} is a directory; directories have no revisions.", param="revision"
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~nobody
        path = Path(text)
    if _is_directory(path):
        return ModelName("directory", text, path=path)
    try:
        is_file = path.is_file()
    except OSError:
        is_file = False
    if is_file:
        raise ModelNotFound(f"{shown(text)} is a file, not a model directory.", "Name the folder it lies in.")
    raise ModelNotFound(f"There is no directory {shown(text)}.", did_you_mean(text.lstrip("./~")))


def _hub_name(text: str, revision: str | None) -> ModelName:
    if url := _URL.fullmatch(text):
        meant = "/".join(url["rest"].split("/")[:2])
        hint = f"Write {meant}." if is_hub_id(meant) else "Write org/name, as the model's page is titled."
        raise InvalidRequest(f"{shown(text)} is an address, not a model name.", hint, param="model")
    ref, at, tail = text.partition("@")
    if at and revision is not None and tail != revision:
        raise InvalidRequest(
            f"Two revisions are given: {shown(tail)} and {shown(revision)}.", param="revision"
        )
    revision = tail if at else revision
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise InvalidRequest(
            f"{shown(revision)} is not a revision.",
            "A revision is a branch, a tag or a commit.",
            param="revision",
        )
    ref = full_name(ref)
    if ".." in ref.split("/") or "\\" in ref or "%" in ref:
        raise InvalidRequest(f"{shown(text)} is not a model name.", param="model")
    if not is_hub_id(ref):
        hint = (
            did_you_mean(ref) or "A model is `starter`, a directory such as ./model, or org/name on the hub."
        )
        raise ModelNotFound(f"There is no model {shown(text)}.", hint)
    return ModelName("hub", ref, revision=revision)


def is_hub_id(ref: str) -> bool:
    """True for what a model of the hub can be called: `name` or `org/name`."""
    parts = ref.split("/")
    return (
        len(parts) <= 2
        and all(_PART.fullmatch(part) for part in parts)
        and "--" not in ref
        and ".." not in ref
        and not ref.endswith(".git")
    )
