"""Every byte of a model: a flip anywhere is found, and only what is broken is fetched again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakehub import FakeHub, chosen_hub, status, without_waiting
from gguf_files import small_gguf
from hub_cache import COMMIT, add_model, everything_under, model_files, weights_bytes
from llm_local.errors import HubUnavailable, InvalidRequest, LocalLLMError, ModelCorrupt
from llm_local.events import Progress
from llm_local.store import verification
from llm_local.store.library import find_model, starter_folder
from llm_local.store.naming import copy_model, import_model
from llm_local.store.pulling import pull
from llm_local.store.snapshots import cache_folder, find_local
from llm_local.store.verification import is_broken, repair_model, verify_model

FILES = model_files()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the model `org/model`, and no patience."""
    without_waiting(monkeypatch)
    with chosen_hub(monkeypatch, "org/model", FILES) as hub:
        yield hub


def broken(name: str) -> dict[str, str]:
    return {file.name: file.state for file in verify_model(find_model(name)) if is_broken(file)}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


def repair(name: str) -> None:
    model = find_model(name)
    repair_model(model, verify_model(model), lambda event: None)


def test_what_was_pulled_is_whole(hub: FakeHub) -> None:
    pull("org/model")
    checked = verify_model(find_model("org/model"))
    assert {file.name: file.state for file in checked} == dict.fromkeys(FILES, "ok")


@pytest.mark.parametrize("number", range(20))
def test_a_flipped_bit_anywhere_is_found(number: int) -> None:
    snapshot = add_model("org/model")
    numbers = random.Random(number)
    sizes = {name: len(data) for name, data in FILES.items()}
    position = numbers.randrange(sum(sizes.values()))
    names = iter(sizes)
    while position >= sizes[name := next(names)]:
        position -= sizes[name]
    flip(snapshot / name, position)
    assert broken("org/model") == {name: "damaged"}


def test_each_file_in_each_half_is_read() -> None:
    for name, data in FILES.items():
        for position in (0, len(data) - 1):
            flip(add_model("org/model") / name, position)
            assert broken("org/model") == {name: "damaged"}


@pytest.mark.parametrize("name", FILES)
def test_missing_contents_are_found(name: str) -> None:
    os.unlink(os.path.realpath(add_model("org/model") / name))
    assert broken("org/model") == {name: "missing"}


def test_a_missing_shard_is_found() -> None:
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    files = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    files |= {"model.safetensors.index.json": index, "model-1.safetensors": weights_bytes()}
    add_model("org/model", files)
    model = find_model("org/model")
    assert model.state == "incomplete"
    assert [file.name for file in verify_model(model) if is_broken(file)] == ["model-2.safetensors"]


def test_a_truncated_and_an_empty_file_are_found() -> None:
    snapshot = add_model("org/model")
    with open(snapshot / "model.safetensors", "r+b") as data:
        data.truncate(100)
    (snapshot / "config.json").write_bytes(b"")
    assert broken("org/model") == {"config.json": "damaged", "model.safetensors": "damaged"}


def test_a_link_to_outside_is_found(tmp_path: Path) -> None:
    snapshot = add_model("org/model")
    elsewhere = tmp_path / os.path.realpath(snapshot / "config.json").rpartition("/")[2]
    elsewhere.write_bytes(FILES["config.json"])
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(elsewhere)
    assert broken("org/model") == {"config.json": "outside"}


def test_files_without_a_digest_are_not_called_right() -> None:
    snapshot = add_model("org/model")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_bytes(FILES["config.json"])  # as on a file system without links
    blob = Path(os.path.realpath(snapshot / "tokenizer.json"))
    key = blob.with_name(f"unverified-{'1' * 64}")
    blob.rename(key)
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(key)
    checked = {file.name: file.state for file in verify_model(find_model("org/model"))}
    assert checked["config.json"] == checked["tokenizer.json"] == "unknown"
    assert checked["model.safetensors"] == "ok"


def test_a_gguf_file_is_verified() -> None:
    snapshot = add_model("org/gg", {"m-Q4_K_M.gguf": small_gguf()})
    assert broken("org/gg:Q4_K_M") == {}
    flip(snapshot / "m-Q4_K_M.gguf", -1 % len(small_gguf()))
    assert broken("org/gg:Q4_K_M") == {"m-Q4_K_M.gguf": "damaged"}


def test_a_folder_with_a_name_is_known_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_bytes(b"x")
    import_model(folder, "there")
    assert {file.state for file in verify_model(find_model("there"))} == {"ok"}
    flip(folder / "tokenizer.json", 1)
    (folder / "generation_config.json").unlink()
    (folder / "later.json").touch()
    assert broken("there") == {"tokenizer.json": "damaged", "generation_config.json": "missing"}
    assert {file.name: file.state for file in verify_model(find_model("there"))}["later.json"] == "new"
    assert {file.state for file in verify_model(find_model(str(folder)))} == {"unknown", "missing"} - {
        "missing"
    }


def test_a_gguf_file_with_a_name_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small_gguf())
    import_model(path, "gg")
    assert broken("gg") == {}
    flip(path, 700)
    assert broken("gg") == {"m.gguf": "damaged"}
    path.unlink()
    assert broken("gg") == {"m.gguf": "missing"}


def test_the_starter_is_what_was_shipped() -> None:
    checked = verify_model(find_model("starter"))
    shipped = {path.name for path in starter_folder().iterdir()} - {"SHA256SUMS"}
    assert {file.name: file.state for file in checked} == dict.fromkeys(shipped, "ok"), (
        "in src/llm_local/starter, run: sha256sum $(ls | grep -v SHA256SUMS) > SHA256SUMS"
    )


def test_progress_rises_to_the_total() -> None:
    add_model("org/model")
    seen: list[Progress] = []
    verify_model(find_model("org/model"), seen.append)
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert (seen[-1].stage, seen[-1].done) == ("verifying", sum(map(len, FILES.values())))
    assert {event.total for event in seen} == {seen[-1].done}


# --- repair ---


def test_a_repair_fetches_only_what_is_broken(hub: FakeHub) -> None:
    snapshot = pull("org/model")
    flip(snapshot / "model.safetensors", 5000)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    os.unlink(os.path.realpath(snapshot / "tokenizer.json"))
    hub.requests.clear()
    repair("org/model")
    fetched = {
        request.path.rpartition("/")[2] for request in hub.asked("/resolve/") if request.method == "GET"
    }
    assert fetched == {
        "model.safetensors",
        "tokenizer.json",
    }  # what the link had led to before is still there
    assert broken("org/model") == {}
    assert (snapshot / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert find_local("org/model") == snapshot
    assert not list(cache_folder().rglob("*.damaged"))
    assert sorted(path.name for path in (snapshot.parents[1] / "refs").iterdir()) == ["main"]


def test_a_repair_stays_at_the_commit_that_is_here(hub: FakeHub) -> None:
    snapshot = pull("org/model")
    flip(snapshot / "config.json", 3)
    repair("org/model")
    assert all(f"/{COMMIT}/" in request.path for request in hub.asked("/resolve/"))


def test_a_repair_of_a_second_name(hub: FakeHub) -> None:
    flip(pull("org/model") / "config.json", 3)
    copy_model("org/model", "mine")
    repair("mine")
    assert broken("mine") == {}


@pytest.mark.parametrize("code", [404, 500])
def test_a_failed_repair_leaves_what_was_there(hub: FakeHub, code: int, isolated_home: Path) -> None:
    snapshot = pull("org/model")
    flip(snapshot / "model.safetensors", 5000)
    before = everything_under(snapshot.parents[1])
    hub.faults["model.safetensors"].extend([status(code)] * 20)
    with pytest.raises(LocalLLMError):
        repair("org/model")
    assert everything_under(snapshot.parents[1]) == before
    assert broken("org/model") == {"model.safetensors": "damaged"}


def test_a_repair_that_was_killed_is_made_good_by_the_next_one(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = pull("org/model")
    flip(snapshot / "model.safetensors", 5000)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    model = find_model("org/model")
    links = [snapshot / "model.safetensors", snapshot / "config.json"]
    killed = verification._set_aside(links, snapshot.parents[1] / "blobs")
    killed.__enter__()  # and nothing after it: so it looks when the process dies there
    assert sorted(path.name[-8:] for path in cache_folder().rglob("*.damaged")) == [".damaged"] * 2
    assert broken("org/model") == {"config.json": "missing", "model.safetensors": "missing"}
    repair_model(model, verify_model(model), lambda event: None)
    assert {file.name: file.state for file in verify_model(model)} == dict.fromkeys(FILES, "ok")
    assert not list(cache_folder().rglob("*.damaged"))


def test_a_repair_that_comes_second_fetches_nothing_again(hub: FakeHub) -> None:
    flip(pull("org/model") / "model.safetensors", 5000)
    model = find_model("org/model")
    seen_by_both = verify_model(model)
    repair_model(model, seen_by_both, lambda event: None)
    hub.requests.clear()
    repair_model(model, seen_by_both, lambda event: None)
    assert hub.asked("/resolve/") == []
    assert broken("org/model") == {}


def test_a_repair_without_a_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    flip(add_model("org/model") / "config.json", 3)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable):
        repair("org/model")
    assert broken("org/model") == {"config.json": "damaged"}


def test_what_the_hub_has_no_more_is_said(hub: FakeHub) -> None:
    snapshot = pull("org/model")
    flip(snapshot / "tokenizer_config.json", 3)
    del hub.repos["org/model"].files["tokenizer_config.json"]
    with pytest.raises(ModelCorrupt, match="does not have tokenizer_config.json"):
        repair("org/model")


def test_what_did_not_come_from_the_hub_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small_gguf())
    import_model(path, "gg")
    flip(path, 700)
    with pytest.raises(InvalidRequest, match="did not come from the hub"):
        repair("gg")
