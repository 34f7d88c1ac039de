"""Headers of weight files: what is sound is read, what is not is named, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm_local.errors import ModelCorrupt, UnsafeWeights
from llm_local.loaders.safetensors import read_header, read_weights
from tiny_checkpoints import safetensors_bytes, save_checkpoint

GOOD = {"a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
PAIR = {**GOOD, "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}}


def one(**changes: object) -> dict[str, object]:
    return {"a.weight": {**GOOD["a.weight"], **changes}}


# What a file may be instead of weights, and what the message must say about it.
DAMAGED = {
    "empty": (b"", "empty"),
    "7 bytes": (b"\x01\0\0\0\0\0\0", "7 bytes"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", "git LFS"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "html with a mark": (b"\xef\xbb\xbf\n<HTML>", "web page"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
    "huge header": (safetensors_bytes(GOOD, bytes(16), length=10**12), "1000000000000"),
    "header past the end": (safetensors_bytes(GOOD, bytes(16), length=5000), "offset 5008"),
    "negative length": (b"\xff" * 8 + b"{}", "declares a header"),
    "pickle": (b"\x80\x04\x95" + bytes(200), "header"),
    "no json": (safetensors_bytes(b"{oops}"), "offset 8 is not JSON"),
    "not utf-8": (safetensors_bytes(b'{"\xff": 1}'), "not JSON"),
    "deep json": (safetensors_bytes(b"[" * 100_000), "not JSON"),
    "a list": (safetensors_bytes([]), "not a JSON object"),
    "no tensors": (safetensors_bytes({"__metadata__": {}}), "no tensors"),
    "twice the same name": (safetensors_bytes(b'{"a": {}, "a": {}}'), "twice"),
    "truncated": (safetensors_bytes(GOOD, bytes(15)), "truncated"),
    "bytes after the end": (safetensors_bytes(GOOD, bytes(17)), "goes on"),
    "overlap": (
        safetensors_bytes({**GOOD, "b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}}, bytes(20)),
        "overlaps",
    ),
    "gap": (
        safetensors_bytes({**GOOD, "b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, bytes(24)),
        "gap",
    ),
    "size against shape": (safetensors_bytes(one(shape=[2, 3]), bytes(16)), "its shape needs 24"),
    "backwards": (safetensors_bytes(one(data_offsets=[16, 0]), bytes(16)), "shape needs"),
    "negative offset": (safetensors_bytes(one(data_offsets=[-16, 0]), bytes(16)), "no sense"),
    "negative dimension": (safetensors_bytes(one(shape=[-2, -2]), bytes(16)), "no sense"),
    "a true dimension": (safetensors_bytes(one(shape=[True, 4]), bytes(16)), "no sense"),
    "a float dimension": (safetensors_bytes(one(shape=[2.0, 2]), bytes(16)), "no sense"),
    "a product that overflows": (safetensors_bytes(one(shape=[2**40, 2**40]), bytes(16)), "shape needs"),
    "unknown dtype": (safetensors_bytes(one(dtype="F31"), bytes(16)), "no sense"),
    "dtype is a list": (safetensors_bytes(one(dtype=["F32"]), bytes(16)), "no sense"),
    "integers for weights": (safetensors_bytes(one(dtype="I32"), bytes(16)), "stored as I32"),
    "three offsets": (safetensors_bytes(one(data_offsets=[0, 8, 16]), bytes(16)), "no sense"),
    "an entry that is null": (safetensors_bytes({"a": None}), "no sense"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named_with_its_file(name: str, tmp_path: Path) -> None:
    data, words = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelCorrupt, match=words) as caught:
        read_weights(tmp_path)
    assert caught.value.file == "model.safetensors"
    assert "model.safetensors" in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 8, 9, 50, 100, 1000, 5000])
def test_a_real_file_cut_anywhere_is_damaged(cut: int, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, tokenizer=False) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelCorrupt, match="truncated"):
        read_header(path)


def test_a_directory_and_a_dangling_link_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors cannot be read"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").rmdir()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors is missing"):
        read_weights(tmp_path)


def test_a_sound_header_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(PAIR, bytes(22)))
    weights = read_weights(tmp_path)
    assert weights.tensors["a.weight"].shape == (2, 2)
    assert (weights.num_bytes, weights.largest_bytes, weights.dtype) == (22, 16, "F32")
    assert weights.bytes_as(2) == 14


def test_what_the_library_writes_is_read_as_it_was_meant(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(1.0),
        "none": torch.zeros(0, 4),
        "half": torch.zeros(3, 5, dtype=torch.float16),
        "ids": torch.zeros(7, dtype=torch.int64),
        "mask": torch.zeros(9, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "model.safetensors")
    assert {name: tensor.shape for name, tensor in header.items()} == {
        k: tuple(t.shape) for k, t in tensors.items()
    }
    assert {name: tensor.num_bytes for name, tensor in header.items()} == {
        k: t.nbytes for k, t in tensors.items()
    }


def sharded(folder: Path) -> dict[str, str]:
    save_checkpoint(folder, shard_size="200KB", tokenizer=False)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    return index


def test_shards_make_up_the_whole(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    weights = read_weights(tmp_path)
    assert set(weights.tensors) == set(index)
    assert {path.name for path in weights.files} == set(index.values())
    single = save_checkpoint(tmp_path / "single", tokenizer=False)
    assert weights.num_bytes == read_weights(single).num_bytes


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shard = sorted(set(sharded(tmp_path).values()))[1]
    (tmp_path / shard).unlink()
    with pytest.raises(ModelCorrupt, match=f"{shard} is missing") as caught:
        read_weights(tmp_path)
    assert caught.value.file == shard


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", ModelCorrupt, "not JSON"),
        ("[]", ModelCorrupt, "no weight_map"),
        ('{"weight_map": {}}', ModelCorrupt, "no weight_map"),
        ('{"weight_map": {"no.such.tensor": "model.safetensors"}}', ModelCorrupt, "not there"),
        ('{"weight_map": {"a": "../outside.safetensors"}}', ModelCorrupt, "not safe"),
        ('{"weight_map": {"a": "/etc/passwd"}}', ModelCorrupt, "not safe"),
        ('{"weight_map": {"a": 3}}', ModelCorrupt, "'3'"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', UnsafeWeights, "pickle"),
    ],
)
def test_an_index_that_does_not_fit_is_named(text: str, error: type, words: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tokenizer=False)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(error, match=words) as caught:
        read_weights(tmp_path)
    assert caught.value.file


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "m.ckpt", "m.pkl", "m.npy"])
def test_pickle_alone_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(UnsafeWeights, match="run code") as caught:
        read_weights(tmp_path)
    assert caught.value.file == name


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="missing"):
        read_weights(tmp_path)
