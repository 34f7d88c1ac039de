"""All models on this machine: the starter, the hub's cache, and what people gave names to. One bad model spoils none.

starter                     ships with llm-local
org/name                    what the hub's cache holds, at its main branch
org/name@revision           the same at another branch, tag or commit
org/name:file.gguf          one GGUF file of it
my-name                     another name for one of these, or for a folder or GGUF file anywhere
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import llm_local
from llm_local.errors import LocalLLMError, ModelNotFound
from llm_local.store.given_names import GivenName, find_given, given_names
from llm_local.store.names import STARTER, did_you_mean, is_hub_id, parse_name, shown
from llm_local.store.selection import gguf_variants, select_gguf
from llm_local.store.snapshots import (
    COMMIT,
    DEFAULT_REVISION,
    RepoCache,
    cache_folder,
    is_complete,
    local_models,
)
from llm_local.store.summary import StoredFile, files_under, stored_file

__all__ = [
    "StoredModel",
    "files_of",
    "find_model",
    "list_models",
    "parts_of",
    "starter_folder",
    "total_bytes",
]

State = Literal["complete", "incomplete", "corrupt"]

_UNFINISHED: Final = "it is not here whole"
_REVISION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model under one of its names.

    - `folder`: where it lies; `gguf`: the files of it there when it is a GGUF model, else empty.
    - `given`: set where somebody gave this name; `alias_of` is then the model's own name, or the path it stands for.
    - `ref`, `revision`, `commit`: of models of the hub.
    - `fault`: what is wrong, in words, when the state is not "complete".
    """

    name: str
    kind: Literal["starter", "hub", "directory", "file"]
    folder: Path
    gguf: tuple[str, ...] = ()
    ref: str = ""
    revision: str = ""
    commit: str = ""
    state: State = "complete"
    fault: str = ""
    given: GivenName | None = None
    alias_of: str = ""

    @property
    def repo(self) -> RepoCache:
        """Where the hub's model lies in the cache."""
        return RepoCache(cache_folder(), self.ref)


def list_models() -> list[StoredModel]:
    """Every model under every name, in the order of the page above; incomplete and damaged ones say so."""
    hub = [model for ref in local_models() if is_hub_id(ref) for model in _hub_models(ref)]
    starter = StoredModel(STARTER, "starter", starter_folder())
    named = [_given_model(given) for given in given_names()]
    return [starter, *hub, *named]


def find_model(text: str) -> StoredModel:
    """The model on this machine that `text` names.

    Raises:
        InvalidRequest: that is no name. ModelNotFound: there is no such model here.
    """
    given = find_given(text)
    if given is not None:
        return _given_model(given)
    ref, colon, wanted = text.partition(":")
    if colon and "//" not in text:
        return _find_gguf(text, ref, wanted)
    name = parse_name(text)
    if name.kind == "starter":
        return StoredModel(STARTER, "starter", starter_folder())
    if name.path is not None:
        return _folder_model(StoredModel(text, "directory", name.path))
    found = list(_hub_models(name.ref)) if name.ref in local_models() else []
    revision = name.revision or DEFAULT_REVISION
    commit = RepoCache(cache_folder(), name.ref).commit_of(revision)
    whole = [model for model in found if not model.gguf]
    at_revision = [model for model in whole if model.revision == revision]
    for model in at_revision or [model for model in whole if commit and model.commit == commit]:
        return replace(model, name=text if name.revision else name.ref)
    for model in whole:
        if model.name == text:  # what a broken download left
            return model
    hint = did_you_mean(name.ref, local_models()) or f"Fetch it with `llm-local pull {name.ref}`."
    if found:
        hint = f"There is {', '.join(model.name for model in found)}."
    raise ModelNotFound(f"{shown(text)} is not on this machine.", hint)


def files_of(model: StoredModel) -> tuple[StoredFile, ...]:
    """The files of a model, sorted by name.

    Raises:
        OSError: its folder cannot be read.
    """
    if not model.gguf:
        return files_under(model.folder)
    return tuple(stored_file(model.folder / name, name) for name in model.gguf)


def total_bytes(files: Iterable[StoredFile]) -> int:
    """What files take, each content once whatever it is called."""
    return sum({file.identity: file.size for file in files if file.size is not None}.values())


def parts_of(path: Path) -> tuple[str, ...]:
    """The names of a GGUF file and of those beside it that are parts of the same model."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    return next((files for files in gguf_variants(names).values() if path.name in files), (path.name,))


def starter_folder() -> Path:
    """Where the starter model lies: inside the installed package."""
    return Path(llm_local.__file__).parent / STARTER


def _hub_models(ref: str) -> Iterator[StoredModel]:
    """What the cache holds of one hub model, a name for each revision and GGUF model; at least one."""
    repo = RepoCache(cache_folder(), ref)
    found = list(_snapshots(repo))
    yield from found or [StoredModel(ref, "hub", repo.root, ref=ref, state="incomplete", fault=_UNFINISHED)]


def _snapshots(repo: RepoCache) -> Iterator[StoredModel]:
    """One model for each revision that was fetched, and each commit that no revision stands at any more."""
    revisions, at = _revisions(repo), set()
    for revision in revisions:
        name = repo.ref if revision == DEFAULT_REVISION else f"{repo.ref}@{revision}"
        commit = repo.commit_of(revision)
        model = StoredModel(name, "hub", repo.root, ref=repo.ref, revision=revision)
        if commit is None:
            yield replace(model, state="corrupt", fault=f"refs/{revision} names no commit")
            continue
        at.add(commit)
        yield from _variants(replace(model, commit=commit, folder=repo.snapshot(commit)))
    for folder in _folders(repo.root / "snapshots"):
        commit = folder.name
        if COMMIT.fullmatch(commit) and commit not in at:
            # a first download that broke off, or is on its way: the revision is set last
            name = f"{repo.ref}@{commit}" if revisions or is_complete(folder) else repo.ref
            yield from _variants(
                StoredModel(name, "hub", folder, ref=repo.ref, revision=commit, commit=commit)
            )


def _variants(model: StoredModel) -> Iterator[StoredModel]:
    """The model of a snapshot, and each GGUF model in it."""
    ggufs = _gguf_models(model.folder)
    whole = _folder_model(model)
    if whole.state == "complete" or not ggufs:
        yield whole
    for files in ggufs:
        here = all((model.folder / file).is_file() for file in files)
        state: State = "complete" if here else "incomplete"
        fault = "" if here else _UNFINISHED
        yield replace(model, name=f"{model.name}:{files[0]}", gguf=files, state=state, fault=fault)


def _folder_model(model: StoredModel) -> StoredModel:
    """With the state that a look at its folder tells."""
    if is_complete(model.folder):
        return model
    return replace(model, state="incomplete", fault=_UNFINISHED)


def _gguf_models(folder: Path) -> list[tuple[str, ...]]:
    try:
        return list(gguf_variants([file.name for file in files_under(folder)]).values())
    except OSError:
        return []


def _given_model(given: GivenName) -> StoredModel:
    """The model that a name stands for, in whatever state it is."""
    path = Path(given.target)
    model = StoredModel(given.name, given.kind, path, given=given, alias_of=given.target)
    if given.fault:
        return replace(model, state="corrupt", fault=f"the name is damaged: {given.fault}")
    if given.kind == "directory":
        return _folder_model(model) if path.is_dir() else replace(model, state="corrupt", fault="it is gone")
    if given.kind == "file":
        model = replace(model, folder=path.parent, gguf=parts_of(path))
        return model if path.is_file() else replace(model, state="corrupt", fault="it is gone")
    ref, colon, file = given.target.partition(":")
    own = f"{ref}{'' if given.revision is None else '@' + given.revision}{colon}{file}"
    try:
        found = _find_own(own)
    except LocalLLMError as error:
        return replace(model, alias_of=own, state="incomplete", fault=error.message.rstrip("."))
    return replace(found, name=given.name, given=given, alias_of=own)


def _find_own(text: str) -> StoredModel:
    """What a name stands for may not be a name that somebody gave: no chains, and so no circles."""
    if find_given(text) is not None:
        raise ModelNotFound(f"{text} is itself a name that somebody gave.")
    return find_model(text)


def _find_gguf(text: str, ref: str, wanted: str) -> StoredModel:
    name = parse_name(ref)
    if name.kind != "hub":
        raise ModelNotFound(
            f"{shown(text)} is not on this machine.", "Only models of the hub have several files."
        )
    models = [model for model in _hub_models(name.ref) if model.gguf]
    if not models:
        raise ModelNotFound(
            f"{shown(text)} is not on this machine.", f"Fetch it with `llm-local pull {text}`."
        )
    if name.revision is not None:
        models = [model for model in models if name.revision in (model.revision, model.commit)]
    files = {file for model in models for file in model.gguf}
    chosen = select_gguf(name.ref, files, wanted)
    return next(model for model in models if model.gguf == chosen)


def _revisions(repo: RepoCache) -> list[str]:
    """Branches and tags that were fetched, the main one first."""
    try:
        names = [file.name for file in files_under(repo.root / "refs")]
    except OSError:
        return []
    right = [name for name in names if _REVISION.fullmatch(name) and ".." not in name]
    return sorted(
        (name for name in right if not COMMIT.fullmatch(name)),
        key=lambda name: (name != DEFAULT_REVISION, name),
    )


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return []
