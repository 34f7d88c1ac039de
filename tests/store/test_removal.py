"""Removing models: what others need stays, what is outside stays, and what is in use stays."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakehub import running_hub
from gguf_files import small_gguf
from hub_cache import COMMIT, OTHER_COMMIT, add_model, everything_under, model_files
from llm_local.bench.subjects import open_weights
from llm_local.embedder import TextEmbedder
from llm_local.errors import Busy, InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.events import Progress
from llm_local.locks import locked
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.specs import EngineOptions, ModelSpec
from llm_local.store.given_names import given_names
from llm_local.store.library import find_model, list_models, starter_folder
from llm_local.store.naming import copy_model, import_model
from llm_local.store.pulling import pull
from llm_local.store.removal import Removed, remove_models
from llm_local.store.snapshots import RepoCache, cache_folder, find_local
from llm_local.store.usage import alone_with, use_model
from llm_local.store.verification import is_broken, verify_model

FILES = model_files()
STARTER_FILES = {path.name: path.read_bytes() for path in starter_folder().iterdir() if path.is_file()}


def remove(*names: str, force: bool = False) -> list[Removed]:
    return list(remove_models(names, force=force))


def names() -> set[str]:
    return {model.name for model in list_models()} - {"starter"}


def is_whole(name: str) -> bool:
    return not any(map(is_broken, verify_model(find_model(name))))


def test_a_model_goes_with_all_its_files() -> None:
    add_model("org/model")
    add_model("org/other")
    (removed,) = remove("org/model")
    assert removed == Removed("org/model", sum(map(len, FILES.values())) + len(COMMIT), is_name_only=False)
    assert not (cache_folder() / "models--org--model").exists()
    assert names() == {"org/other"}
    assert is_whole("org/other")


def test_contents_that_another_revision_needs_stay() -> None:
    add_model("org/model")
    newer = FILES | {"config.json": model_files(vocab_size=7)["config.json"]}
    add_model("org/model", newer, commit=OTHER_COMMIT, revision="v2")
    (removed,) = remove("org/model")
    assert names() == {"org/model@v2"}
    assert is_whole("org/model@v2")
    assert removed.freed_bytes == len(FILES["config.json"]) + len(COMMIT)
    assert find_local("org/model") is None
    assert find_local("org/model", "v2") is not None


def test_a_second_revision_of_the_same_commit_goes_alone() -> None:
    add_model("org/model")
    add_model("org/model", revision="v1")
    remove("org/model@v1")
    assert names() == {"org/model"}
    assert is_whole("org/model")


def test_a_gguf_file_goes_without_its_neighbors() -> None:
    add_model("org/gg", {"m-Q4_K_M.gguf": small_gguf(), "m-Q8_0.gguf": small_gguf() + bytes(64)} | FILES)
    remove("org/gg:Q8_0")
    assert names() == {"org/gg", "org/gg:m-Q4_K_M.gguf"}
    remove("org/gg")
    assert names() == {"org/gg:m-Q4_K_M.gguf"}
    assert is_whole("org/gg:Q4_K_M")
    remove("org/gg:Q4_K_M")
    assert not (cache_folder() / "models--org--gg").exists()


def test_what_a_broken_download_left_goes() -> None:
    blobs = cache_folder() / "models--org--broken" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'1' * 64}.incomplete").write_bytes(bytes(100))
    assert remove("org/broken")[0].freed_bytes == 100
    assert names() == set()


def test_a_corrupt_model_goes() -> None:
    add_model("org/bad", FILES | {"config.json": b""})
    (cache_folder() / "models--org--bad" / "refs" / "main").write_bytes(b"garbage")
    remove("org/bad", f"org/bad@{COMMIT}")
    assert names() == set()


def test_a_name_goes_and_its_model_stays(tmp_path: Path) -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    import_model(folder, "there")
    before = everything_under(folder)
    assert [one.is_name_only for one in remove("mine", "there")] == [True, True]
    assert names() == {"org/model"}
    assert everything_under(folder) == before


def test_a_model_with_another_name_stays_unless_both_go() -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    with pytest.raises(InvalidRequest, match="llm-local rm org/model mine"):
        remove("org/model")
    assert is_whole("mine")
    assert [one.name for one in remove("org/model", "mine")] == ["mine", "org/model"]
    assert names() == set()


def test_force_takes_the_other_names_along() -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    remove("org/model", force=True)
    assert given_names() == []


def test_a_damaged_name_goes(isolated_home: Path) -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    (isolated_home / "llm-local" / "models" / "mine.json").write_bytes(b"")
    remove("mine")
    assert names() == {"org/model"}


def test_one_wrong_name_and_nothing_goes() -> None:
    add_model("org/model")
    with pytest.raises(ModelNotFound):
        remove("org/model", "org/nothing")
    assert is_whole("org/model")


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    for name in ("starter", str(tmp_path), str(starter_folder())):
        with pytest.raises(InvalidRequest):
            remove(name, force=True)
    assert (starter_folder() / "config.json").is_file()
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "", "/", "/etc/passwd", "~", "a\x00b", "org/../../x", "CON", "con", "models--org--model", "*",
     "org/*", "org/model/../other", "org/model@../../..", "org/model:../x.gguf", "org/model:", "%2e%2e", "x" * 5000,
     "org/model@main/..", "-rf", "org\\model", "\u202eledom/gro", ".locks", "org"],
)  # fmt: skip
@pytest.mark.parametrize("force", [False, True])
def test_hostile_names_remove_nothing(name: str, force: bool, isolated_home: Path) -> None:
    add_model("org/model")
    (isolated_home / "secret").write_text("mine")
    before = everything_under(isolated_home)
    with pytest.raises(LocalLLMError):
        remove(name, force=force)
    assert everything_under(isolated_home) == before


@pytest.mark.parametrize("place", ["models--org--evil", "models--org--evil/snapshots", "models--org--evil/blobs",
                                   f"models--org--evil/snapshots/{COMMIT}", "models--org--evil/refs"])  # fmt: skip
def test_links_to_elsewhere_are_not_followed(place: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    add_model("org/evil")
    link = cache_folder() / place
    if place.endswith("evil"):
        link.rename(outside / "x")
        link.symlink_to(outside / "x")
    else:
        link.rename(outside / "x")
        (outside / "x" / "precious").write_text("precious")
        link.symlink_to(outside / "x")
    before = everything_under(outside)
    with contextlib.suppress(LocalLLMError):
        remove("org/evil", force=True)
    assert everything_under(outside) == before


def test_a_link_in_a_snapshot_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    snapshot = add_model("org/model")
    (snapshot / "extra.json").symlink_to(tmp_path / "precious")
    (snapshot / "folder").symlink_to(tmp_path)
    remove("org/model")
    assert (tmp_path / "precious").read_text() == "precious"
    assert names() == set()


# --- in use ---


def test_a_model_in_use_stays_and_the_process_is_named() -> None:
    snapshot = add_model("org/model")
    program = (
        "import sys, pathlib; from llm_local.store.usage import alone_with, use_model\n"
        "use = use_model(pathlib.Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(snapshot)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(Busy, match=f"in use by process {process.pid}") as caught:
            remove("org/model")
        assert caught.value.kind == "model_in_use"
        assert is_whole("org/model")
        process.stdin.close()
        process.wait(30)
    remove("org/model")
    assert names() == set()


def test_force_removes_what_is_in_use() -> None:
    use = use_model(add_model("org/model"))
    assert use is not None
    remove("org/model", force=True)
    assert names() == set()
    use.end()


def test_many_may_use_one_model_and_the_last_one_frees_it() -> None:
    snapshot = add_model("org/model")
    first, second = use_model(snapshot), use_model(snapshot)
    assert first is not None
    assert second is not None
    first.end()
    with pytest.raises(Busy):
        remove("org/model")
    del second
    remove("org/model")


def test_whoever_comes_at_the_same_moment_waits_for_the_first_one() -> None:
    snapshot = add_model("org/model")
    begun = threading.Event()

    def come_first() -> None:
        with locked(RepoCache(cache_folder(), "org/model").lock("in-use")):
            begun.set()
            time.sleep(0.1)

    first = threading.Thread(target=come_first)
    first.start()
    assert begun.wait(10)
    assert use_model(snapshot) is not None
    first.join()


def test_a_model_that_is_being_removed_cannot_be_used() -> None:
    snapshot = add_model("org/model")
    with alone_with(RepoCache(cache_folder(), "org/model")), pytest.raises(Busy, match="being removed"):
        use_model(snapshot)


def test_a_model_that_is_being_fetched_stays() -> None:
    add_model("org/model")
    lock = RepoCache(cache_folder(), "org/model").lock("1" * 64)
    with locked(lock), pytest.raises(Busy, match="is being fetched"):
        remove("org/model")
    remove("org/model")


def test_a_pull_keeps_its_model_from_being_removed_between_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def interfere(event: Progress) -> None:
        with pytest.raises(Busy) as caught:
            remove("org/model")
        refused.append(caught.value.kind)

    with running_hub() as hub:
        hub.add("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        pull("org/model", on_progress=interfere)
    assert set(refused) == {"model_in_use"}
    assert is_whole("org/model")
    remove("org/model")


def test_other_folders_have_no_lock(tmp_path: Path) -> None:
    assert use_model(tmp_path) is None
    assert use_model(starter_folder()) is None
    assert use_model(Path("/")) is None


def test_a_cache_without_room_for_locks_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = add_model("org/model")
    (cache_folder() / ".locks").write_text("a file where a folder should be")
    assert use_model(snapshot) is None


def test_a_loaded_model_is_in_use_until_it_is_let_go() -> None:
    snapshot = add_model("org/tiny", STARTER_FILES)
    loaded = load_tokenizer_and_model(
        ModelSpec("org/tiny", dtype="float32", quantization="none"), path=snapshot
    )
    with pytest.raises(Busy, match=f"process {os.getpid()}"):
        remove("org/tiny")
    del loaded
    remove("org/tiny")
    assert names() == set()


def _embedder() -> object:
    return TextEmbedder.load(ModelSpec("org/tiny", dtype="float32"))


def _subject() -> object:
    options = EngineOptions()
    spec = ModelSpec("org/tiny", dtype="float32", quantization="none")
    return open_weights(spec, options, explicit=True, offline=True, on_progress=lambda event: None)


@pytest.mark.parametrize("load", [_embedder, _subject])
def test_who_embeds_or_measures_uses_a_model_too(load: Callable[[], object]) -> None:
    add_model("org/tiny", STARTER_FILES)
    loaded = load()
    with pytest.raises(Busy, match=f"process {os.getpid()}"):
        remove("org/tiny")
    del loaded
    remove("org/tiny")
    assert names() == set()
