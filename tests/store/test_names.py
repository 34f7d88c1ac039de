"""Names of models: what is understood, what is refused, and that a remote name never leaves its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakehub import EVIL_NAMES
from llm_local.errors import InvalidRequest, ModelCorrupt, ModelNotFound
from llm_local.store.catalog import catalog_models
from llm_local.store.names import did_you_mean, parse_name, safe_join


def test_the_starter_is_itself_even_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir()
    assert parse_name("starter").kind == "starter"
    assert parse_name("./starter").kind == "directory"


@pytest.mark.parametrize("spelled", ["{here}", "./model", "../{up}/model", "model", "~/model"])
def test_a_directory_is_found_however_it_is_spelled(spelled: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    name = parse_name(spelled.format(here=tmp_path / "model", up=tmp_path.name))
    assert name.kind == "directory"
    assert name.path is not None
    assert name.path.resolve() == (tmp_path / "model").resolve()


@pytest.mark.parametrize(
    ("text", "ref", "revision"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", None),
        ("gpt2", "gpt2", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
        ("a_b/c.d-e_f", "a_b/c.d-e_f", None),
        *((one.name, one.id, None) for one in catalog_models()),
    ],
)
def test_hub_names(text: str, ref: str, revision: str | None) -> None:
    name = parse_name(text)
    assert (name.kind, name.ref, name.revision) == ("hub", ref, revision)


def test_a_revision_may_come_beside_the_name_but_not_contradict_it() -> None:
    assert parse_name("org/name", "v1").revision == "v1"
    assert parse_name("org/name@v1", "v1").revision == "v1"
    with pytest.raises(InvalidRequest, match="Two revisions"):
        parse_name("org/name@v1", "v2")


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/org/name",
        "file:///etc/passwd",
        "org/../name",
        "org\\name",
        "org/%2e%2e",
        "org/name\x00",
        "org/name\nx",
        "x" * 5000,
        "org/name@../../x",
        "org/name@",
        "starter@v1/..",
    ],
)
def test_names_built_to_break_something_are_invalid(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_name(text)


def test_an_address_is_answered_with_the_name_it_contains() -> None:
    with pytest.raises(InvalidRequest, match="Write org/name"):
        parse_name("https://huggingface.co/org/name/tree/main")


@pytest.mark.parametrize(
    "text", ["", " ", "no such model", "a/b/c", "-x/y", "org/name.git", "org/a--b", "mod\u00e8le"]
)
def test_names_no_model_can_have_are_not_found(text: str) -> None:
    with pytest.raises(ModelNotFound):
        parse_name(text)


def test_a_directory_that_is_not_there_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no directory"):
        parse_name(str(tmp_path / "nope"))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelNotFound, match="is a file"):
        parse_name(str(tmp_path / "model.safetensors"))


def test_hints_name_what_is_near_and_nothing_else() -> None:
    assert "starter" in did_you_mean("strater")
    assert "mine/model" in did_you_mean("mine/modle", ["mine/model"])
    assert did_you_mean("zzzzqqqq") == ""
    assert "gpt2" not in did_you_mean("gpt2").split()


@pytest.mark.parametrize("name", EVIL_NAMES, ids=range(len(EVIL_NAMES)))
def test_a_remote_name_that_could_leave_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt):
        safe_join(tmp_path, name)


@pytest.mark.parametrize(
    "name", ["config.json", "a/b.jinja", "..x", "x..json", "model-00001-of-00002.safetensors"]
)
def test_an_honest_remote_name_stays_below_its_folder(name: str, tmp_path: Path) -> None:
    assert safe_join(tmp_path, name).resolve().is_relative_to(tmp_path.resolve())
