"""What is on the shelf: complete models under all their names, and bad ones that spoil none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_files import small_gguf
from hub_cache import COMMIT, OTHER_COMMIT, add_model, model_files
from llm_local.errors import InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.store.library import files_of, find_model, list_models, starter_folder, total_bytes
from llm_local.store.naming import copy_model
from llm_local.store.snapshots import cache_folder
from llm_local.store.summary import summarize


def states() -> dict[str, str]:
    return {model.name: model.state for model in list_models()}


def test_an_empty_machine_has_the_starter() -> None:
    assert states() == {"starter": "complete"}
    assert (starter_folder() / "config.json").is_file()


def test_every_revision_has_a_name() -> None:
    add_model("org/model")
    add_model("org/model", model_files(seed=1), commit=OTHER_COMMIT, revision="refs/pr/3")
    add_model("org/model", commit="c" * 40, revision=None)
    add_model("plain")
    assert states() == dict.fromkeys(
        ["starter", "org/model", "org/model@refs/pr/3", f"org/model@{'c' * 40}", "plain"], "complete"
    )


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_half_a_model_is_incomplete(missing: str) -> None:
    files = model_files()
    del files[missing]
    add_model("org/half", files)
    add_model("org/whole")
    assert states()["org/half"] == "incomplete"
    assert states()["org/whole"] == "complete"


def test_what_a_broken_download_left_is_incomplete_and_can_be_found() -> None:
    blobs = cache_folder() / "models--org--broken" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'1' * 64}.incomplete").write_bytes(b"half")
    assert states()["org/broken"] == "incomplete"
    assert find_model("org/broken").state == "incomplete"


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"[1]", b"{}", b'{"model_type": 3}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_garbage_config_is_told_and_spoils_no_other(content: bytes) -> None:
    bad = add_model("org/bad", model_files() | {"config.json": content})
    good = add_model("org/good")
    assert set(states()) == {"starter", "org/bad", "org/good"}
    assert "config.json" in summarize(bad).fault
    assert summarize(good).fault == ""


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 64, b"<html>login</html>"])
def test_weights_that_cannot_be_are_told(content: bytes) -> None:
    assert (
        "model.safetensors"
        in summarize(add_model("org/bad", model_files() | {"model.safetensors": content})).fault
    )


@pytest.mark.parametrize("content", [b"", b"not a commit", b"../../x", b"\xff" * 8, b"a" * 39])
def test_a_garbage_branch_is_corrupt_and_its_snapshot_is_there(content: bytes) -> None:
    add_model("org/model")
    (cache_folder() / "models--org--model" / "refs" / "main").write_bytes(content)
    assert states()["org/model"] == "corrupt"
    assert states()[f"org/model@{COMMIT}"] == "complete"


def test_garbage_in_the_cache_is_no_model(tmp_path: Path) -> None:
    cache = cache_folder()
    add_model("org/model")
    for name in (
        "models--",
        "models--..--..",
        "models--a--b--c",
        "models--\u202eevil",
        "datasets--org--x",
        "x",
    ):
        (cache / name).mkdir()
    (cache / "models--org--file").write_text("not a folder")
    (cache / "models--org--loop").symlink_to(cache / "models--org--loop")
    (cache / "models--org--else").symlink_to(tmp_path)
    found = states()
    assert found["org/model"] == "complete"
    assert {name for name, state in found.items() if state == "complete"} == {"starter", "org/model"}


def test_a_folder_that_cannot_be_read_spoils_no_other() -> None:
    add_model("org/good")
    snapshot = add_model("org/locked")
    snapshot.parent.chmod(0)
    try:
        assert states()["org/good"] == "complete"
    finally:
        snapshot.parent.chmod(0o755)


def test_gguf_files_are_models_of_their_own() -> None:
    add_model(
        "org/gg",
        {"m-Q4_K_M.gguf": small_gguf(), "big-00001-of-00002.gguf": b"1", "big-00002-of-00002.gguf": b"2"},
    )
    assert set(states()) == {"starter", "org/gg:m-Q4_K_M.gguf", "org/gg:big-00001-of-00002.gguf"}
    found = find_model("org/gg:Q4_K_M")
    assert found.gguf == ("m-Q4_K_M.gguf",)
    summary = summarize(found.folder, found.gguf)
    assert (summary.format, summary.architecture, summary.quantization) == ("gguf", "llama", "Q4_K_M")
    assert len(files_of(find_model("org/gg:big-00001-of-00002.gguf"))) == 2
    with pytest.raises(ModelNotFound):
        find_model("org/gg")
    with pytest.raises(ModelNotFound):
        find_model("org/gg:Q8_0")


def test_models_are_found_by_name_revision_commit_and_folder(tmp_path: Path) -> None:
    snapshot = add_model("org/model", revision="v1")
    assert find_model("org/model@v1").folder == snapshot
    assert find_model(f"org/model@{COMMIT}").folder == snapshot
    assert find_model(str(snapshot)).kind == "directory"
    assert find_model("starter").kind == "starter"
    with pytest.raises(ModelNotFound, match="There is org/model@v1"):
        find_model("org/model")
    with pytest.raises(ModelNotFound, match="llm-local pull zzz/qqq"):
        find_model("zzz/qqq")
    with pytest.raises(ModelNotFound):
        find_model(str(tmp_path / "nothing"))


def test_shared_contents_count_once() -> None:
    add_model("org/model")
    add_model("org/model", model_files(max_position_embeddings=1), commit=OTHER_COMMIT, revision="long")
    first, second = files_of(find_model("org/model")), files_of(find_model("org/model@long"))
    config = next(file.size for file in second if file.name == "config.json")
    assert config is not None
    assert total_bytes([*first, *second]) == total_bytes(first) + config
    assert total_bytes(first) == sum(len(data) for data in model_files().values())


def test_a_link_that_leads_nowhere_has_no_size() -> None:
    snapshot = add_model("org/model")
    os.unlink(os.path.realpath(snapshot / "tokenizer_config.json"))
    sizes = {file.name: file.size for file in files_of(find_model("org/model"))}
    assert sizes["tokenizer_config.json"] is None
    assert sizes["config.json"] is not None


def test_a_name_says_what_it_stands_for() -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    model = find_model("mine")
    assert (model.name, model.alias_of, model.ref, model.kind) == ("mine", "org/model", "org/model", "hub")
    assert states()["mine"] == "complete"


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc", "/etc/passwd", "a\x00b", "..", "org/../x", "CON", "x\\y", "%2e%2e/x", "org/model:../../x.gguf",
     ":", "x" * 5000],
)  # fmt: skip
def test_hostile_names_find_nothing(name: str) -> None:
    add_model("org/model")
    try:
        found = find_model(name)
    except LocalLLMError:
        return
    assert found.kind == "directory"  # a folder that is really there, which is looked at and nothing else
    assert found.state != "complete"


def test_an_address_is_no_name() -> None:
    with pytest.raises(InvalidRequest):
        find_model("https://huggingface.co/org/model")
