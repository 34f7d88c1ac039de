"""Bringing a model from the hub to this disk: which files, in which order, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_local.errors import HubUnavailable, InvalidRequest, ModelCorrupt
from llm_local.events import Progress
from llm_local.store.destinations import CacheDestination, Destination
from llm_local.store.download import RemoteFile, check_room, download, storage_errors
from llm_local.store.endpoint import hub_endpoint, hub_token, is_offline
from llm_local.store.names import parse_name, safe_join
from llm_local.store.remote import RemoteModel, Source, open_remote
from llm_local.store.retries import Retries
from llm_local.store.selection import INDEX, select_files, select_gguf
from llm_local.store.snapshots import RepoCache, cache_folder
from llm_local.store.usage import using
from llm_local.store.weight_index import parse_index

Look = Callable[[RemoteModel, tuple[RemoteFile, ...], Destination], None]
"""Sees what is about to be fetched, and where to; whatever it raises ends the pull before anything is written."""

__all__ = ["FileProgress", "Look", "fetch", "hub_source", "missing_bytes", "needed_files", "pull"]


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far a file, and with it the whole, is; all counts in bytes. `note` says why nothing happens for a while."""

    name: str
    done: int
    size: int | None
    number: int
    num_files: int
    total_done: int
    total: int | None
    note: str = ""


def hub_source() -> Source:
    """The hub that the environment names, with the token it gives.

    Raises:
        HubUnavailable: the hub is switched off. ConfigError: a variable cannot be used.
    """
    if is_offline():
        raise HubUnavailable(
            "The model hub is switched off by HF_HUB_OFFLINE.", "Unset it, or use a model on this disk."
        )
    return Source(hub_endpoint(), hub_token())


def pull(
    ref: str,
    revision: str | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    answer_within_s: float | None = None,
    look: Look = lambda remote, files, goal: None,
) -> Path:
    """Bring what is needed of a hub model to this disk and return its folder; files already here are not fetched.

    A hub that cannot be connected to is reported within OFFLINE_AFTER_S, without retries. With `answer_within_s` it
    must also have described the model within that many seconds. Later failures are retried, and a download that
    breaks off goes on where it stopped, in this run or in the next.

    Raises:
        LocalLLMError: whatever `look` raises.
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

    def report(event: FileProgress) -> None:
        if on_progress is not None:
            label = f"{event.name}: {event.note}" if event.note else event.name
            on_progress(Progress("downloading", event.total_done, event.total, label))

    with open_remote(name, hub_source(), answer_within_s=answer_within_s) as remote:
        repo = RepoCache(cache_folder(), name.ref)
        goal = CacheDestination(repo, remote.asked.revision, remote.description.commit)
        files = needed_files(remote, repo)
        look(remote, files, goal)
        return fetch(remote, files, goal, report)


def needed_files(remote: RemoteModel, repo: RepoCache, gguf: str = "") -> tuple[RemoteFile, ...]:
    """What to fetch, small files first, each with size and digest where the hub has them; nothing is written.

    Raises:
        LocalLLMError: there is nothing of use, it may not be had, or a name is not safe.
    """
    known = remote.description.files
    if gguf:
        names = list(select_gguf(repo.ref, known, gguf))
        return tuple(remote.completed(name) for name in _checked(remote, repo, names))
    chosen = select_files(repo.ref, known)
    names = _checked(remote, repo, [*chosen.metadata, chosen.weights])
    if chosen.weights == INDEX:
        index = remote.completed(INDEX)
        blob = repo.blob(index.key)
        with storage_errors(repo.cache):
            data = blob.read_bytes() if blob.exists() else remote.read_whole(index)
        shards = sorted(set(parse_index(Path(INDEX), data).values()))
        names = _checked(remote, repo, [*names, *shards])
    return tuple(remote.completed(name) for name in names)


def missing_bytes(files: Iterable[RemoteFile], goal: Destination) -> int:
    """How much of `files` is still to come, as far as the hub tells sizes."""
    return sum(goal.place(file).missing_bytes(file) for file in files if not goal.has(file))


def fetch(
    remote: RemoteModel,
    files: tuple[RemoteFile, ...],
    goal: Destination,
    on_progress: Callable[[FileProgress], None],
) -> Path:
    """Bring `files` to `goal`, and return its folder.

    Raises:
        StorageError: no room, or the disk refuses. HubUnavailable: what came so far stays for the next run.
        ModelCorrupt: what arrives is not what the hub promised. Busy: the model is being removed just now.
    """
    tally = _Tally(files, on_progress)
    with using(goal.folder), storage_errors(goal.folder, goal.remedy):
        check_room(goal.folder, missing_bytes(files, goal))
        for file in files:
            if goal.has(file):
                tally.report(file, file.size or 0)
            else:
                _fetch_file(remote, file, goal, tally)
            tally.next()
        goal.finish()
    return goal.folder


class _Tally:
    """Adds up how far the files are."""

    def __init__(self, files: tuple[RemoteFile, ...], on_progress: Callable[[FileProgress], None]) -> None:
        sizes = [file.size for file in files]
        self._total = None if None in sizes else sum(size for size in sizes if size is not None)
        self._num_files = len(files)
        self._on_progress = on_progress
        self._number = 1
        self._before = 0
        self._have = 0

    def report(self, file: RemoteFile, have: int, note: str = "") -> None:
        """So much of a file is there."""
        self._have = have
        done = self._before + have
        self._on_progress(
            FileProgress(file.name, have, file.size, self._number, self._num_files, done, self._total, note)
        )

    def pause(self, file: RemoteFile, note: str) -> None:
        """Nothing happens for a while."""
        self.report(file, self._have, note)

    def next(self) -> None:
        """The next file begins."""
        self._number += 1
        self._before += self._have
        self._have = 0


def _fetch_file(remote: RemoteModel, file: RemoteFile, goal: Destination, tally: _Tally) -> None:
    retries = Retries(on_wait=lambda reason: tally.pause(file, reason))
    opener = goal.nearby(file) or remote.opener(file)
    download(goal.place(file), file, opener, retries, lambda have: tally.report(file, have))
    goal.finished(file)


def _checked(remote: RemoteModel, repo: RepoCache, names: list[str]) -> list[str]:
    """The names, each once and all safe: known to the hub, inside the folder, distinct on any file system."""
    unique = list(dict.fromkeys(names))
    seen: dict[str, str] = {}
    for name in unique:
        safe_join(repo.root, name)
        if name not in remote.description.files:
            raise ModelCorrupt(f"{INDEX} names {name}, which the model does not have.", file=INDEX)
        if seen.setdefault(name.casefold(), name) != name:
            raise ModelCorrupt(f"{name} and {seen[name.casefold()]} differ only in case.", file=name)
    return unique
