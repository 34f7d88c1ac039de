"""Where a pull brings files: into the cache that all tools of the hub share, or as real files into a folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from llm_local.errors import InvalidRequest
from llm_local.store.digests import file_matches
from llm_local.store.download import Opener, Place, RemoteFile, is_plausible, open_local, storage_errors
from llm_local.store.names import safe_join
from llm_local.store.snapshots import RepoCache, is_complete

__all__ = ["CacheDestination", "Destination", "FolderDestination"]

_ON_THE_WAY: Final = ".llm-local"


class Destination(Protocol):
    """Where files go. `folder` is where they are found in the end, `remedy` what helps when the disk refuses."""

    @property
    def folder(self) -> Path:
        """The folder of the model."""

    @property
    def remedy(self) -> str:
        """One sentence."""

    def place(self, file: RemoteFile) -> Place:
        """Where the contents of a file go."""

    def has(self, file: RemoteFile) -> bool:
        """True when nothing is to be done for a file."""

    def nearby(self, file: RemoteFile) -> Opener | None:
        """Where its contents may be had without the network, if anywhere."""

    def finished(self, file: RemoteFile) -> None:
        """The contents of a file are there."""

    def finish(self) -> None:
        """All files are there."""


@dataclass(frozen=True, slots=True)
class CacheDestination:
    """The cache. The branch is set last, so a half model is never found.

    A pull that is not of the `whole` model leaves a branch alone at which a whole one is.
    """

    repo: RepoCache
    revision: str
    commit: str
    whole: bool = True

    @property
    def folder(self) -> Path:
        """The snapshot."""
        return self.repo.snapshot(self.commit)

    @property
    def remedy(self) -> str:
        """See Destination."""
        return "Point HF_HOME at a folder you can write."

    def place(self, file: RemoteFile) -> Place:
        """A blob, named by its digest."""
        key = file.key
        return Place(self.repo.blob(key), self.repo.part(key), self.repo.lock(key))

    def has(self, file: RemoteFile) -> bool:
        """True where a file system without links made the snapshot take the contents themselves."""
        path = safe_join(self.folder, file.name)
        return path.is_file() and not path.is_symlink() and is_plausible(file, path)

    def nearby(self, file: RemoteFile) -> Opener | None:
        """Nowhere: what is in the cache has its place already."""
        return None

    def finished(self, file: RemoteFile) -> None:
        """Let it appear in the snapshot."""
        self.repo.link(self.commit, file.name, file.key)

    def finish(self) -> None:
        """Set the branch; a commit needs none."""
        if self.revision == self.commit:
            return
        if not self.whole:
            current = self.repo.commit_of(self.revision)
            if current is not None and is_complete(self.repo.snapshot(current)):
                return
        self.repo.point(self.revision, self.commit)


@dataclass(frozen=True, slots=True)
class FolderDestination:
    """A folder of its own, with real files, which no other tool shares. What the cache has is copied from there."""

    folder: Path
    repo: RepoCache
    _right: set[str] = field(default_factory=set)

    @property
    def remedy(self) -> str:
        """See Destination."""
        return "Choose another folder for --output."

    def place(self, file: RemoteFile) -> Place:
        """The file under its name; on its way beside the others, in a folder that goes away."""
        on_the_way = self.folder / _ON_THE_WAY
        return Place(
            safe_join(self.folder, file.name),
            safe_join(on_the_way, f"{file.key}.incomplete"),
            safe_join(on_the_way, f"{file.key}.lock"),
        )

    def has(self, file: RemoteFile) -> bool:
        """True for a file that is there with these very contents; what was found right once is not read again."""
        path = safe_join(self.folder, file.name)
        if not path.is_file():
            return False
        if file.name not in self._right:  # what is not there, or not right, another pull may be bringing
            same_size = file.size in (None, path.stat().st_size)
            if not (same_size and file.digest and file_matches(path, file.digest)):
                return False
            self._right.add(file.name)
        return True

    def make_way(self, files: Iterable[RemoteFile], *, force: bool) -> None:
        """See that nothing of somebody else's is overwritten; with `force` it is taken away.

        Raises:
            InvalidRequest: there is another file, or a folder, under a name that is needed.
            StorageError: the disk refuses.
        """
        with storage_errors(self.folder, self.remedy):
            for file in files:
                self._make_way(file, force=force)

    def _make_way(self, file: RemoteFile, *, force: bool) -> None:
        path = safe_join(self.folder, file.name)
        if not path.exists() or self.has(file):
            return
        if path.is_dir():
            raise InvalidRequest(
                f"{path} is a folder, where a file of the model is to go.",
                "Choose another folder.",
                param="output",
            )
        if not force:
            raise InvalidRequest(
                f"{path} is there already, with other contents.",
                "Choose another folder, or overwrite it with --force.",
                param="output",
            )
        path.unlink()

    def nearby(self, file: RemoteFile) -> Opener | None:
        """The cache."""
        blob = self.repo.blob(file.key)
        return open_local(blob) if blob.is_file() and is_plausible(file, blob) else None

    def finished(self, file: RemoteFile) -> None:
        """It has its name already."""

    def finish(self) -> None:
        """Take away what was needed on the way, unless it is of a pull that still runs."""
        on_the_way = self.folder / _ON_THE_WAY
        if not list(on_the_way.glob("*.incomplete")):
            with contextlib.suppress(OSError):
                shutil.rmtree(on_the_way)
