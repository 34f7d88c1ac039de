"""Taking models away: a name, or files in the hub's cache that no other model needs. Nothing else is touched.

What makes a model whole goes first, so that a removal that is cut short leaves none that looks whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from llm_local.errors import InvalidRequest, StorageError
from llm_local.store.given_names import forget_given
from llm_local.store.library import StoredModel, files_of, find_model, list_models
from llm_local.store.selection import CONFIG
from llm_local.store.snapshots import RepoCache
from llm_local.store.summary import files_under
from llm_local.store.usage import alone_with

__all__ = ["Removed", "remove_models"]


@dataclass(frozen=True, slots=True)
class Removed:
    """One name that is gone. `freed_bytes` is 0 where other names still stand for the same files."""

    name: str
    freed_bytes: int
    is_name_only: bool


def remove_models(names: Collection[str], *, force: bool = False) -> Iterator[Removed]:
    """Remove models one after the other; all names are looked up before the first one goes.

    With `force` also those in use, and the other names of what is removed.

    Raises:
        ModelNotFound: one is not here; then none is removed. InvalidRequest: one is not ours to remove.
        Busy: one is in use (kind `model_in_use`). StorageError: the disk refuses.
    """
    models = [find_model(name) for name in dict.fromkeys(names)]
    everything = list_models()
    for model in models:
        _check(model, models, [] if force else everything)
    # names before what they stand for, so that none is ever left without
    for model in sorted(models, key=lambda model: model.given is None):
        if model.given is not None:
            yield _forget(model)
            continue
        with nullcontext() if force else alone_with(model.repo):
            freed = _remove(model)
        for other in _other_names(model, everything):
            if other.given is not None and other.name not in names:
                yield _forget(other)
        yield Removed(model.name, freed, is_name_only=False)


def _check(model: StoredModel, models: list[StoredModel], everything: list[StoredModel]) -> None:
    if model.given is not None:
        return
    if model.kind == "starter":
        raise InvalidRequest("The starter model is a part of llm-local and stays.", param="model")
    if model.kind == "directory":
        raise InvalidRequest(
            f"{model.name} is a folder of yours, which llm-local does not delete.",
            "Delete it yourself.",
            param="model",
        )
    others = [one.name for one in _other_names(model, everything) if one not in models]
    if others:
        raise InvalidRequest(
            f"{model.name} has another name, {' and '.join(others)}, which would be left without a model.",
            f"Remove them together: llm-local rm {model.name} {' '.join(others)}",
            param="model",
        )


def _other_names(model: StoredModel, everything: list[StoredModel]) -> list[StoredModel]:
    same = (model.ref, model.revision, model.gguf)
    return [
        one
        for one in everything
        if one.given is not None and one.kind == "hub" and (one.ref, one.revision, one.gguf) == same
    ]


def _forget(model: StoredModel) -> Removed:
    with _storage_errors(model):
        forget_given(model.name)
    return Removed(model.name, 0, is_name_only=True)


def _remove(model: StoredModel) -> int:
    """Remove a hub model from the cache; returns what that freed, in bytes."""
    repo = model.repo
    with _storage_errors(model):
        if repo.root.is_symlink():  # what lies elsewhere is not the cache's
            repo.root.unlink()
            return 0
        _cut_links(model)
        before = _stored_bytes(repo.root)
        if model.commit:
            _remove_revision(model)
        elif model.revision:
            _forget_revision(repo, model.revision)
        _sweep(repo)
        return before - _stored_bytes(repo.root)


def _cut_links(model: StoredModel) -> None:
    """Where a folder of the layout is a link, take that away: what it leads to is not the cache's."""
    repo = model.repo
    places = [repo.root / name for name in ("refs", "snapshots", "blobs")]
    for place in [*places, repo.snapshot(model.commit)] if model.commit else places:
        if place.is_symlink():
            place.unlink()


def _remove_revision(model: StoredModel) -> None:
    """Remove a revision's files, unless another revision stands at the same commit."""
    repo = model.repo
    shared = [name for name in _revisions_at(repo, model.commit) if name != model.revision]
    if shared and not model.gguf:
        _forget_revision(repo, model.revision)
        return
    folder = repo.snapshot(model.commit)
    files = list(files_of(model)) if folder.is_dir() else []
    keep = set() if model.gguf else set(_gguf_names(folder))
    files.sort(key=lambda file: file.name != CONFIG)
    if not model.gguf and not keep:
        _forget_revision(repo, model.revision)
    for file in files:
        if file.name not in keep:
            file.path.unlink(missing_ok=True)
    if folder.is_dir() and not files_under(folder):
        shutil.rmtree(folder)
        for name in _revisions_at(repo, model.commit):
            _forget_revision(repo, name)


def _gguf_names(folder: Path) -> list[str]:
    return (
        [file.name for file in files_under(folder) if file.name.lower().endswith(".gguf")]
        if folder.is_dir()
        else []
    )


def _revisions_at(repo: RepoCache, commit: str) -> list[str]:
    refs = repo.root / "refs"
    names = [file.name for file in files_under(refs)] if refs.is_dir() else []
    return [
        name
        for name in names
        if not name.startswith(".") and repo.commit_of(name) == commit and name != commit
    ]


def _forget_revision(repo: RepoCache, revision: str) -> None:
    path = repo.root / "refs" / revision
    if path.parent.resolve().is_relative_to(repo.root.resolve()):
        path.unlink(missing_ok=True)


def _sweep(repo: RepoCache) -> None:
    """Delete the contents that no snapshot needs any more, and the whole folder when none is left."""
    snapshots, blobs = repo.root / "snapshots", repo.root / "blobs"
    left = files_under(snapshots) if snapshots.is_dir() else ()
    if not left:
        shutil.rmtree(repo.root, ignore_errors=not repo.root.exists())
        return
    if not blobs.is_dir():
        return
    needed = {os.path.realpath(file.path) for file in left}
    for blob in blobs.iterdir():
        is_part = blob.name.endswith(".incomplete")  # of another revision, which may still be fetched
        if not is_part and os.path.realpath(blob) not in needed and not blob.is_dir():
            blob.unlink()


def _stored_bytes(root: Path) -> int:
    """What lies in a folder itself, links not followed."""
    if not root.is_dir():
        return 0
    sizes = {}
    for file in files_under(root):
        if not file.path.is_symlink() and file.size is not None:
            sizes[file.identity] = file.size
    return sum(sizes.values())


@contextmanager
def _storage_errors(model: StoredModel) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{model.name} cannot be removed: {error.strerror or error} ({error.filename}).",
            "Ask whoever owns the folder.",
        ) from error
