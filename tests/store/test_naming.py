"""Names that people give: where they hold, what they may not hide, and that damage to one is damage to no other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gguf_files import small_gguf
from hub_cache import OTHER_COMMIT, add_model, everything_under, model_files
from llm_local.errors import (
    InvalidRequest,
    LocalLLMError,
    ModelCorrupt,
    ModelNotFound,
    StorageError,
    UnsupportedTask,
)
from llm_local.model_loader import resolve_model
from llm_local.specs import ModelSpec
from llm_local.store.given_names import find_given, given_names, names_folder
from llm_local.store.library import find_model, list_models
from llm_local.store.names import parse_name
from llm_local.store.naming import copy_model, import_model, proposed_name

EVIL = [
    "../x", "a/b", "/etc/x", "..", ".", "", "a\x00b", "a\nb", "a\\b", "con", "NUL", "com1.txt", "x.", "-x", "x--y",
    "a..b", "%2e%2e", "x" * 97, "\u202ex", "é", "a b", "x:y", "x@y", "x.git", "~", "~root",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that came from somewhere else."""
    place = tmp_path / "somewhere" / "a model"
    place.mkdir(parents=True)
    for name, data in model_files().items():
        (place / name).write_bytes(data)
    return place


def test_a_name_is_the_model_wherever_models_are_named() -> None:
    snapshot = add_model("org/model")
    copy_model("org/model", "mine")
    name = parse_name("mine")
    assert (name.kind, name.ref, name.revision) == ("hub", "org/model", None)
    assert resolve_model(ModelSpec("mine"), explicit=True, offline=True).path == snapshot


def test_a_name_may_hold_a_revision_which_another_one_contradicts() -> None:
    add_model("org/model", commit=OTHER_COMMIT, revision="v1")
    copy_model("org/model@v1", "pinned")
    assert parse_name("pinned").revision == "v1"
    assert parse_name("pinned@v1").revision == "v1"
    with pytest.raises(InvalidRequest, match="Two revisions"):
        parse_name("pinned@v2")


def test_a_name_for_the_starter() -> None:
    copy_model("starter", "small")
    assert parse_name("small").kind == "starter"
    with pytest.raises(InvalidRequest, match="no revisions"):
        parse_name("small@v1")


def test_a_name_of_a_name_is_a_name_of_the_model() -> None:
    add_model("org/model")
    copy_model("org/model", "one")
    copy_model("one", "two")
    assert find_model("two").alias_of == "org/model"


def test_a_folder_is_read_where_it_is(folder: Path) -> None:
    before = everything_under(folder)
    import_model(folder, "there")
    assert everything_under(folder) == before
    assert resolve_model(ModelSpec("there"), explicit=True, offline=True).path == folder
    assert find_given("there") is not None
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFound, match="which is not there"):
        parse_name("there")
    assert {model.name: model.fault for model in list_models()}["there"] == "it is gone"


def test_a_name_comes_before_a_folder_beside_us(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_model(folder, "there")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_name("there").path == folder
    assert parse_name("./there").path == Path("there")


def test_a_gguf_file_has_a_name_but_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.write_bytes(small_gguf())
    model = import_model(path, "gg")
    assert (model.kind, model.gguf, model.state) == ("file", ("my model.gguf",), "complete")
    with pytest.raises(UnsupportedTask, match="gg is a GGUF file"):
        parse_name("gg")


def test_a_gguf_file_of_the_hub_has_a_second_name() -> None:
    add_model("org/gg", {"m-Q4_K_M.gguf": small_gguf()})
    copy_model("org/gg:Q4_K_M", "gg")
    assert find_model("gg").gguf == ("m-Q4_K_M.gguf",)
    with pytest.raises(UnsupportedTask):
        parse_name("gg")


def test_what_is_no_model_gets_no_name(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(8))
    (tmp_path / "empty").mkdir()
    for path, kind in (
        ("x.txt", ModelNotFound),
        ("bad.gguf", ModelCorrupt),
        ("empty", ModelNotFound),
        ("no", ModelNotFound),
    ):
        with pytest.raises(kind):
            import_model(tmp_path / path, "x")
    with pytest.raises(ModelNotFound):
        copy_model("org/nothing", "x")
    assert given_names() == []


@pytest.mark.parametrize("name", EVIL)
def test_hostile_names_are_refused_and_write_nothing(name: str, isolated_home: Path) -> None:
    add_model("org/model")
    before = everything_under(isolated_home)
    with pytest.raises(InvalidRequest):
        copy_model("org/model", name)
    assert everything_under(isolated_home) == before


@pytest.mark.parametrize("name", ["starter", "llama3-1b", "gpt2", "plain"])
def test_the_name_of_another_model_cannot_be_taken(name: str) -> None:
    add_model("org/model")
    add_model("plain")
    with pytest.raises(InvalidRequest, match="is the name of another model"):
        copy_model("org/model", name, force=True)


def test_a_name_is_replaced_only_when_asked(folder: Path) -> None:
    add_model("org/model")
    copy_model("org/model", "mine")
    with pytest.raises(InvalidRequest, match="already"):
        import_model(folder, "mine")
    with pytest.raises(InvalidRequest, match="already"):
        copy_model("org/model", "MINE", force=True)  # one file on many disks
    import_model(folder, "mine", force=True)
    assert parse_name("mine").path == folder


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"[]", b"{}", b'{"name": 3}', b"[" * 100_000, b"\xff",
     b'{"name": "bad", "kind": "hub", "target": "../../etc", "revision": null, "digests": {}}',
     b'{"name": "bad", "kind": "evil", "target": "x", "revision": null, "digests": {}}',
     b'{"name": "bad", "kind": "directory", "target": "relative", "revision": null, "digests": {}}',
     b'{"name": "bad", "kind": "directory", "target": "/x\\u0000y", "revision": null, "digests": {}}'],
)  # fmt: skip
def test_a_garbage_name_is_told_and_spoils_no_other(content: bytes) -> None:
    add_model("org/model")
    copy_model("org/model", "good")
    (names_folder() / "bad.json").write_bytes(content)
    found = {model.name: model.state for model in list_models()}
    assert found["good"] == "complete"
    assert found["bad"] != "complete"
    with pytest.raises(LocalLLMError):
        parse_name("bad")


def test_a_name_whose_model_was_removed_is_told() -> None:
    snapshot = add_model("org/model")
    copy_model("org/model", "mine")
    shutil.rmtree(snapshot.parents[1])
    assert find_model("mine").state == "incomplete"
    assert parse_name("mine").ref == "org/model"  # which a run may fetch again


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_said(isolated_home: Path) -> None:
    add_model("org/model")
    isolated_home.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="LLM_LOCAL_HOME"):
            copy_model("org/model", "mine")
    finally:
        isolated_home.chmod(0o700)


def test_a_home_that_is_a_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_model("org/model")
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLM_LOCAL_HOME", str(tmp_path / "file"))
    assert find_model("org/model").state == "complete"
    with pytest.raises(StorageError, match="LLM_LOCAL_HOME"):
        copy_model("org/model", "mine")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/a model.gguf", "a-model"), ("/x/Qwen--2.5", "Qwen-2.5"), ("/x/...", ""), ("/", "")],
)
def test_a_path_suggests_a_name(path: str, name: str) -> None:
    assert proposed_name(Path(path)) == name
