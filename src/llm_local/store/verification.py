"""Comparing every byte of a model with what it should be, and fetching again what is broken.

The hub's contents lie under their digests, so nothing else has to be kept to verify them: a sha256 for large files, and
what git calls them for small ones. Of what people gave names to, the digests were taken when they did.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llm_local.errors import InvalidRequest, LocalLLMError, ModelCorrupt, StorageError
from llm_local.events import Progress
from llm_local.locks import locked
from llm_local.store.digests import file_digest
from llm_local.store.library import StoredModel, files_of
from llm_local.store.names import ModelName, safe_join
from llm_local.store.selection import CONFIG, INDEX, WEIGHTS
from llm_local.store.summary import StoredFile, files_under
from llm_local.store.weight_index import shard_names

__all__ = ["CheckedFile", "is_broken", "repair_model", "verify_model"]

FileState = Literal["ok", "damaged", "missing", "outside", "unreadable", "unknown", "new"]
OnProgress = Callable[[Progress], None]

SUMS: Final = "SHA256SUMS"
_DIGEST: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SUM: Final = re.compile(r"([0-9a-f]{64})  (\S+)")
_ASIDE: Final = ".damaged"
_BROKEN: Final = ("damaged", "missing", "outside", "unreadable")


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file and how it is.

    "outside" is a link to somewhere else; "unknown" a file whose digest nobody knows; "new" one that was not there when
    the name was given.
    """

    name: str
    state: FileState
    size: int | None = None


def is_broken(file: CheckedFile) -> bool:
    """True for a file that makes the model one that is not to be trusted."""
    return file.state in _BROKEN


def verify_model(model: StoredModel, on_progress: OnProgress = lambda event: None) -> list[CheckedFile]:
    """Read every file of a model and say how it is. Only what is known to belong to it can be missed.

    Raises:
        StorageError: its folder cannot be read.
    """
    known = _known_digests(model)
    try:
        files = [file for file in files_of(model) if not _is_beside(model, file)]
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise StorageError(f"{model.folder} cannot be read: {error.strerror or error}.") from error
    total, done = sum(file.size or 0 for file in files), 0
    checked: list[CheckedFile] = []
    for file in files:

        def report(have: int, label: str = f"{model.name} {file.name}", before: int = done) -> None:
            on_progress(Progress("verifying", before + have, total, label))

        checked.append(CheckedFile(file.name, _state(model, file, known, report), file.size))
        done += file.size or 0
    there = {file.name for file in files}
    checked += [CheckedFile(name, "missing") for name in _expected(model, known) if name not in there]
    return checked


def repair_model(model: StoredModel, checked: Sequence[CheckedFile], on_progress: OnProgress) -> None:
    """Fetch the broken files of a hub model again, and nothing else. When that fails, what lay there is there again.

    Of two repairs of one model the second one waits, and fetches what is broken then. What a killed one left is swept.

    Raises:
        InvalidRequest: it is not the hub's. ModelCorrupt: the hub does not have one of the files any more.
        LocalLLMError: as a pull raises.
    """
    if model.kind != "hub" or not model.commit:
        raise InvalidRequest(
            f"{model.name} did not come from the hub, so it cannot be fetched again.",
            "Bring back its files from where they came from.",
        )
    # Late: the network is loaded only by a run that needs it.
    from llm_local.store.destinations import CacheDestination
    from llm_local.store.download import storage_errors
    from llm_local.store.pulling import fetch, hub_source
    from llm_local.store.remote import open_remote

    def report(event: object) -> None:
        done, total = getattr(event, "total_done", 0), getattr(event, "total", None)
        on_progress(Progress("downloading", done, total, f"{model.name} {getattr(event, 'name', '')}"))

    repo, snapshot = model.repo, model.repo.snapshot(model.commit)
    with (
        open_remote(ModelName("hub", model.ref, model.commit), hub_source()) as remote,
        storage_errors(repo.root),
        locked(repo.lock("repair")),
    ):
        _sweep(snapshot, repo.root / "blobs")
        broken = _still_broken(model, checked)
        gone = [name for name in broken if name not in remote.description.files]
        if gone:
            raise ModelCorrupt(
                f"The hub does not have {', '.join(gone)} of {model.name} any more.",
                "Remove the model and choose another one.",
                file=gone[0],
            )
        files = tuple(remote.completed(name) for name in broken)
        with _set_aside([safe_join(snapshot, name) for name in broken], repo.root / "blobs"):
            fetch(remote, files, CacheDestination(repo, model.commit, model.commit), report)


def _still_broken(model: StoredModel, checked: Sequence[CheckedFile]) -> list[str]:
    """What was broken and has not been repaired by somebody else since."""
    there = {file.name: file for file in files_of(model)}
    found = []
    for one in filter(is_broken, checked):
        file = there.get(one.name)
        state = "missing" if file is None else _state(model, file, {}, lambda done: None)
        if is_broken(CheckedFile(one.name, state)):
            found.append(one.name)
    return found


def _sweep(snapshot: Path, blobs: Path) -> None:
    """Delete what a repair that was killed had set aside: it was broken."""
    for folder in (snapshot, blobs):
        if folder.is_dir():
            for file in files_under(folder):
                if _is_aside(file):
                    file.path.unlink(missing_ok=True)


def _is_aside(file: StoredFile) -> bool:
    return file.path.name.startswith(".") and file.path.name.endswith(_ASIDE)


@contextmanager
def _set_aside(links: Sequence[Path], blobs: Path) -> Iterator[None]:
    """Take broken files out of the way; they come back when the block fails.

    A link to contents of the store stays, so that whoever finds it without them knows what is missing.
    """
    moved: list[tuple[Path, Path]] = []
    for link in links:
        contents = Path(os.path.realpath(link))
        inside = link.is_symlink() and contents.parent == Path(os.path.realpath(blobs))
        path = contents if inside else link
        if path.is_symlink() or path.exists():
            aside = path.with_name(f".{path.name}{_ASIDE}")
            path.replace(aside)
            moved.append((path, aside))
    try:
        yield
    except BaseException:
        for path, aside in moved:
            if path.is_symlink() or path.exists():
                aside.unlink(missing_ok=True)
            else:
                aside.replace(path)
        raise
    for _, aside in moved:
        aside.unlink(missing_ok=True)


def _is_beside(model: StoredModel, file: StoredFile) -> bool:
    if model.kind == "hub":
        return _is_aside(file)
    return file.is_hidden or (file.name == SUMS and model.kind == "starter")


def _state(
    model: StoredModel, file: StoredFile, known: Mapping[str, str], report: Callable[[int], None]
) -> FileState:
    if model.kind == "hub":
        digest, state = _blob_digest(model, file)
        if state is not None:
            return state
    else:
        digest = known.get(file.name, "")
        if not digest:
            return "new" if known else "unknown"
    if file.size is None:
        return "missing"
    try:
        return "ok" if file_digest(file.path, report, like=digest) == digest else "damaged"
    except OSError:
        return "unreadable"


def _blob_digest(model: StoredModel, file: StoredFile) -> tuple[str, FileState | None]:
    """The digest that a file's contents lie under, or else what is to be said at once."""
    if not file.path.is_symlink():
        return "", "unknown"  # a file system without links, or somebody put it there
    contents = Path(os.path.realpath(file.path))
    if contents.parent != Path(os.path.realpath(model.repo.root / "blobs")):
        return "", "outside"
    if not contents.exists():
        return "", "missing"
    return (contents.name, None) if _DIGEST.fullmatch(contents.name) else ("", "unknown")


def _known_digests(model: StoredModel) -> Mapping[str, str]:
    if model.given is not None:
        digests = model.given.digests
        return {Path(name).name: digest for name, digest in digests.items()} if model.gguf else digests
    if model.kind != "starter":
        return {}
    try:
        lines = (model.folder / SUMS).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return {}
    return {match[2]: match[1] for line in lines if (match := _SUM.fullmatch(line))}


def _expected(model: StoredModel, known: Mapping[str, str]) -> list[str]:
    """The files that must be there, as far as the model's own files tell."""
    if model.gguf or known:
        return sorted(known)
    names = [CONFIG]
    try:
        if (model.folder / INDEX).exists():
            names += shard_names(model.folder / INDEX)
        else:
            names.append(WEIGHTS)
    except (LocalLLMError, OSError):  # a damaged index is told of itself
        pass
    return names
