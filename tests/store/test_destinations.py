"""Where a pull brings files: what is there already, and whose it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llm_local.store.destinations import FolderDestination
from llm_local.store.download import RemoteFile
from llm_local.store.snapshots import RepoCache, cache_folder


def test_what_another_pull_brings_into_the_folder_meanwhile_is_not_somebody_elses(tmp_path: Path) -> None:
    goal = FolderDestination(tmp_path / "out", RepoCache(cache_folder(), "org/model"))
    file = RemoteFile("config.json", 2, hashlib.sha256(b"{}").hexdigest(), "key")
    assert not goal.has(file)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_bytes(b"{}")
    goal.make_way([file], force=False)
    assert goal.has(file)
