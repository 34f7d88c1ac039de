"""API keys: kept as salted hashes, compared whole, and gone when they are removed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from llm_local.errors import ConfigError, InvalidRequest, StorageError
from llm_local.store.keys import KeyRing, add_key, keys_file, read_keys, remove_key, split_keys


def test_settings_name_roles() -> None:
    assert split_keys("one, user:two ,admin:three,x:y") == [
        ("admin", "one"),
        ("user", "two"),
        ("admin", "three"),
        ("admin", "x:y"),
    ]
    with pytest.raises(ConfigError, match="role without a key"):
        split_keys("user:")


def test_a_key_is_found_and_nothing_else_is() -> None:
    ring = KeyRing("first-key,user:second-key")
    first, second = ring.find(b"first-key"), ring.find(b"wrong", b"second-key")
    assert first is not None and second is not None
    assert (first.role, second.role) == ("admin", "user") and first.id != second.id
    for wrong in (
        b"",
        b"first",
        b"first-key ",
        b"FIRST-KEY",
        "f\u00ebrst".encode(),
        b"\xff\xfe",
        b"user:second-key",
    ):
        assert ring.find(wrong) is None
    assert ring.find() is None and not ring.is_open


def test_the_owner_of_a_key_is_the_same_after_a_restart_and_tells_nothing() -> None:
    one, two = KeyRing("some-key").find(b"some-key"), KeyRing("some-key").find(b"some-key")
    assert one is not None and two is not None and one.id == two.id
    assert one.salt != two.salt and "some-key" not in str(one)


def test_no_keys_is_open_until_the_first_and_never_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = KeyRing(None, path)
    assert ring.is_open and ring.find(b"x") is None and not ring.is_empty
    key, kept = add_key("admin", "mine", path)
    assert not ring.is_empty
    found = ring.find(key.encode())
    assert not ring.is_open and found == kept
    remove_key(kept.id, path)
    assert ring.find(key.encode()) is None and not ring.is_open
    assert ring.is_empty and KeyRing(None, path).is_empty
    path.unlink()
    assert not ring.is_open


def test_the_file_has_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    old = os.umask(0)
    try:
        key, kept = add_key("user", "", path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.startswith("llk_") and len(key) > 40 and key[4:] not in path.read_text()
    assert [one.id for one in read_keys(path)] == [kept.id]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"keys": 5}', '{"keys": [{}]}', '{"keys": [{"id": 5}]}', "[" * 9999]
)
def test_a_damaged_file_opens_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    ring = KeyRing(None, path)
    assert not ring.is_open and ring.find(b"x") is None
    with pytest.raises(StorageError, match="not what llm-local writes"):
        add_key("user", "", path)
    assert path.read_text() == text


def test_damage_of_the_file_does_not_lock_out_who_was_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, _ = add_key("user", "", path)
    ring = KeyRing(None, path)
    path.write_text("{")
    assert ring.find(key.encode()) is not None


def test_a_role_that_is_none_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key("user", "", path)
    path.write_text(path.read_text().replace('"user"', '"root"'))
    with pytest.raises(StorageError):
        read_keys(path)


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(InvalidRequest, match="no key with the id 'none'"):
        remove_key("none", path)
    with pytest.raises(InvalidRequest, match="label"):
        add_key("user", "a\nb", path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be changed"):
        add_key("user", "", tmp_path / "file" / "keys.json")


def test_the_file_lies_with_what_people_made() -> None:
    assert keys_file().parent == Path(os.environ["LLM_LOCAL_HOME"])


def test_what_is_kept_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, kept = add_key("admin", "laptop", path)
    entry = json.loads(path.read_text())["keys"][0]
    assert entry["label"] == "laptop" and entry["id"] == kept.id and len(entry["digest"]) == 64
