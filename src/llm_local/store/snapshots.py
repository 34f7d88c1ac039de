"""Hub models on this disk, in the layout that all tools on the hub share.

    <cache>/models--org--name/refs/main              the commit a branch stood at
                              blobs/<digest>         contents
                              snapshots/<commit>/…   file names, as links to contents

No function here touches the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.errors import ModelCorrupt
from llm_local.locks import locked
from llm_local.store.names import safe_join
from llm_local.store.selection import CONFIG, INDEX, WEIGHTS, has_tokenizer
from llm_local.store.weight_index import shard_names

__all__ = [
    "COMMIT",
    "DEFAULT_REVISION",
    "RepoCache",
    "cache_folder",
    "find_local",
    "is_complete",
    "local_models",
]

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION: Final = "main"
_PREFIX: Final = "models--"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where hub models are kept, by the variables the hub's own tools obey; read anew at every call."""
    env = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(name):
            return Path(env[name]).expanduser()
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


@dataclass(frozen=True, slots=True)
class RepoCache:
    """The folder of one hub model, which need not exist yet."""

    cache: Path
    ref: str

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.cache / (_PREFIX + self.ref.replace("/", "--"))

    def blob(self, key: str) -> Path:
        """Where contents with the digest `key` lie."""
        return safe_join(self.root / "blobs", key)

    def part(self, key: str) -> Path:
        """Where contents lie while they are being fetched."""
        return self.blob(f"{key}.incomplete")

    def lock(self, key: str) -> Path:
        """The file that is locked by whoever fetches these contents, where the hub's own tools look for it too."""
        return safe_join(self.cache / ".locks" / self.root.name, f"{key}.lock")

    def snapshot(self, commit: str) -> Path:
        """The folder of one commit."""
        return safe_join(self.root / "snapshots", commit)

    def commit_of(self, revision: str) -> str | None:
        """The commit a branch or tag stood at when it was last fetched; a commit is itself."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            text = safe_join(self.root / "refs", revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return text if COMMIT.fullmatch(text) else None

    def point(self, revision: str, commit: str) -> None:
        """Remember which commit a branch or tag stands at."""
        path = safe_join(self.root / "refs", revision)
        with locked(self.lock("refs")):
            path.parent.mkdir(parents=True, exist_ok=True)
            # No revision begins with a dot, so what a killed process leaves is taken for none.
            fresh = path.with_name(f".{path.name}.new")
            with open(fresh, "w", encoding="ascii") as out:
                out.write(commit)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(path)

    def link(self, commit: str, name: str, key: str) -> None:
        """Make the contents `key` appear as the file `name` of a commit."""
        path, blob = safe_join(self.snapshot(commit), name), self.blob(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        path.unlink(missing_ok=True)  # a link to contents that are gone
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except FileExistsError:  # another process was faster, with the same contents
            pass
        except OSError:  # a file system without links: the snapshot takes the contents themselves
            blob.replace(path)


def find_local(ref: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model that is wholly on this disk, or None. Never asks the network."""
    repo = RepoCache(cache_folder(), ref)
    commit = repo.commit_of(revision or DEFAULT_REVISION)
    if commit is None:
        return None
    folder = repo.snapshot(commit)
    return folder if is_complete(folder) else None


def is_complete(folder: Path) -> bool:
    """True when a folder has configuration, vocabulary and every weight file. Contents are the loader's to judge."""
    try:
        names = {entry.name for entry in folder.iterdir() if entry.exists()}
    except OSError:
        return False
    if CONFIG not in names or not has_tokenizer(names):
        return False
    return WEIGHTS in names or (INDEX in names and _has_all_shards(folder))


def local_models() -> list[str]:
    """The hub ids that have a folder on this disk, complete or not, sorted."""
    try:
        folders = [entry.name for entry in cache_folder().iterdir() if entry.name.startswith(_PREFIX)]
    except OSError:
        return []
    return sorted(name.removeprefix(_PREFIX).replace("--", "/") for name in folders)


def _has_all_shards(folder: Path) -> bool:
    """An index that cannot be understood counts as there: the loader then says what is wrong with it."""
    try:
        return all(safe_join(folder, shard).exists() for shard in shard_names(folder / INDEX))
    except ModelCorrupt:
        return True
    except OSError:
        return False
