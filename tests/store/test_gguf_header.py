"""Headers of GGUF files: what they tell, and that no number in them is trusted."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gguf_files import entry, gguf_bytes, small_gguf, tensor, text
from llm_local.errors import ModelCorrupt
from llm_local.store.gguf_header import GgufHeader, quantization_name, read_gguf

BIG = 1 << 62


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def read(path: Path, data: bytes, **options: Any) -> GgufHeader:
    path.write_bytes(data)
    return read_gguf(path, **options)


def test_what_a_header_tells(path: Path) -> None:
    header = read(path, small_gguf())
    assert (header.version, header.architecture) == (3, "llama")
    assert header.number("context_length") == 8192
    assert header.number("attention.head_count") == 4
    assert header.number("nothing") is None
    assert header.text("general.license") == "apache-2.0"
    assert len(header.values["tokenizer.ggml.tokens"]) == 4
    assert [(one.name, one.type_name, one.shape, one.num_bytes) for one in header.tensors] == [
        ("a.weight", "Q4_K", (256, 4), 576),
        ("b.weight", "F32", (8,), 32),
    ]
    assert quantization_name(header) == "Q4_K_M"


def test_without_tensors_reading_ends_at_the_tokenizer(path: Path) -> None:
    header = read(path, small_gguf(), tensors=False)
    assert header.tensors == ()
    assert header.number("block_count") == 2
    assert "tokenizer.ggml.tokens" not in header.values


def test_the_quantization_is_that_of_most_weights_where_the_file_does_not_say(path: Path) -> None:
    tensors = [tensor("a", [256, 4], 14, 0), tensor("b", [8], 0, 864)]
    assert quantization_name(read(path, gguf_bytes({}, tensors, bytes(900)))) == "Q6_K"
    assert quantization_name(read(path, gguf_bytes({}))) == ""


def test_a_type_from_the_future_is_told(path: Path) -> None:
    (found,) = read(path, gguf_bytes({}, [tensor("a", [3], 99, 0)], bytes(32))).tensors
    assert (found.type_name, found.num_bytes) == ("type 99", None)


WRONG = {
    "empty": b"",
    "short": b"GGUF" + bytes(4),
    "magic": b"FUGG" + small_gguf()[4:],
    "a web page": b"<!DOCTYPE html><html>Please log in</html>",
    "version 1": gguf_bytes({}, version=1),
    "version of another byte order": gguf_bytes({}, version=3 << 24),
    "many entries": gguf_bytes({}, num_entries=BIG),
    "more entries than there are": gguf_bytes({}, num_entries=2),
    "many tensors": gguf_bytes({}, num_tensors=BIG),
    "more tensors than there are": gguf_bytes({}, num_tensors=1),
    "a long key": gguf_bytes({}, num_entries=1)[:24] + struct.pack("<Q", BIG) + b"x",
    "a long text": gguf_bytes({}, num_entries=1)[:24] + text("k") + struct.pack("<IQ", 8, BIG) + bytes(32),
    "a long list": gguf_bytes({}, num_entries=1)[:24] + text("k") + struct.pack("<IIQ", 9, 4, BIG) + bytes(32),
    "a long list of texts": gguf_bytes({}, num_entries=1)[:24] + text("k") + struct.pack("<IIQ", 9, 8, BIG) + bytes(32),
    "a type of entry there is not": gguf_bytes({}, num_entries=1)[:24] + text("k") + struct.pack("<I", 13) + bytes(32),
    "lists in lists in lists": gguf_bytes({}, num_entries=1)[:24]
    + text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000 + bytes(32),
    "an entry twice": gguf_bytes({}, num_entries=2)[:24] + entry("k", 1) * 2 + bytes(32),
    "a tensor twice": gguf_bytes({}, [tensor("a", [1], 0, 0)] * 2, bytes(64)),
    "many dimensions": gguf_bytes({}, [tensor("a", [1] * 5, 0, 0)], bytes(64)),
    "a size that overflows": gguf_bytes({}, [tensor("a", [1 << 32] * 4, 0, 0)], bytes(64)),
    "a tensor beyond the end": gguf_bytes({}, [tensor("a", [8], 0, 64)], bytes(64)),
    "a tensor half beyond the end": gguf_bytes({}, [tensor("a", [17], 0, 0)], bytes(64)),
    "an offset that is not aligned": gguf_bytes({}, [tensor("a", [1], 0, 4)], bytes(64)),
    "a row that is no whole block": gguf_bytes({}, [tensor("a", [100], 12, 0)], bytes(640)),
    "an alignment of zero": gguf_bytes({"general.alignment": 0}, [tensor("a", [1], 0, 0)], bytes(64)),
    "an alignment of 24": gguf_bytes({"general.alignment": 24}, [tensor("a", [1], 0, 0)], bytes(64)),
    "a huge alignment": gguf_bytes({"general.alignment": 1 << 31}, [tensor("a", [1], 0, 0)], bytes(64)),
    "an alignment that is a text": gguf_bytes({"general.alignment": "32"}, [tensor("a", [1], 0, 0)], bytes(64)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_name_and_offset(name: str, path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"m\.gguf is damaged: .* \(at offset \d+\)") as caught:
        read(path, WRONG[name])
    assert caught.value.file == "m.gguf"


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="cannot be read"):
        read_gguf(path)


def test_a_file_that_ends_anywhere_is_refused(path: Path) -> None:
    data = small_gguf()
    for end in range(0, len(data), 7):
        with pytest.raises(ModelCorrupt):
            read(path, data[:end])


def test_damage_anywhere_is_an_error_of_ours_or_nothing_and_takes_no_memory(path: Path) -> None:
    whole, numbers = small_gguf(), random.Random(1)
    tracemalloc.start()
    try:
        for _ in range(2000):
            data = bytearray(whole)
            for _ in range(numbers.choice((1, 1, 2, 8))):
                data[numbers.randrange(len(data) - 608)] = numbers.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256))
                )
            try:
                read(path, bytes(data))
            except ModelCorrupt as error:
                assert "m.gguf" in error.message
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20
