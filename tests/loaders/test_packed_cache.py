"""The file of packed weights: written once, mapped afterwards, and believed only as far as it can be checked."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm_local.loaders import packed_cache, packed_file
from llm_local.loaders.configuration import read_config
from llm_local.loaders.packed_cache import CacheUnusable, PackedCache
from llm_local.loaders.packed_file import DamagedPack, in_memory, open_packed
from llm_local.loaders.packed_keys import pack_key
from llm_local.loaders.packing import Layout, Part
from llm_local.loaders.safetensors import read_weights
from tiny_checkpoints import edit_json, save_checkpoint

LAYOUT = Layout(
    (
        Part(("a.weight", "b.weight"), "int8", (40, 100)),
        Part(("norm.weight",), "float32", (7,)),
        Part(("ids",), "int64", ()),
    )
)
MB = 1 << 20


def fill(write) -> None:
    """Known bytes for every part, in pieces."""
    generator = torch.Generator().manual_seed(1)
    first, second, third = LAYOUT.offsets
    packed = torch.randint(256, (LAYOUT.parts[0].num_bytes,), dtype=torch.uint8, generator=generator)
    write(first, packed[:1000])
    write(first + 1000, packed[1000:])
    write(second, torch.arange(7.0).view(torch.uint8))
    write(third, torch.tensor([5]).view(torch.uint8))


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    """A cache of its own that may hold one MiB."""
    return PackedCache(tmp_path / "packed", MB)


@pytest.fixture
def stored(cache: PackedCache, tmp_path: Path) -> Path:
    """A packed file under the key `k`."""
    with cache.turn("k"):
        cache.store("k", LAYOUT, fill)
    return tmp_path / "packed" / "k.pack"


def test_parts_lie_aligned_and_come_back_as_they_were(cache: PackedCache, stored: Path) -> None:
    found, memory = cache.find("k"), in_memory(LAYOUT, fill)
    assert found is not None
    assert LAYOUT.offsets == (0, 3 * 2 * 1088, 3 * 2 * 1088 + 64)
    assert LAYOUT.num_bytes == 3 * 2 * 1088 + 128
    for (part, tensor), (_, expected) in zip(found, memory, strict=True):
        assert torch.equal(tensor, expected), part
        assert tensor.data_ptr() % 64 == 0
    tensors = {part.names[0]: tensor for part, tensor in found}
    assert tensors["norm.weight"].tolist() == list(range(7))
    assert (tensors["ids"].dtype, int(tensors["ids"])) == (torch.int64, 5)


def test_what_is_written_to_the_tensors_does_not_reach_the_file(cache: PackedCache, stored: Path) -> None:
    before = stored.read_bytes()
    for _, tensor in cache.find("k") or ():
        tensor.zero_()
    assert stored.read_bytes() == before


def test_nothing_else_is_left_in_the_directory(stored: Path) -> None:
    assert sorted(path.name for path in stored.parent.iterdir()) == ["k.lock", "k.pack"]


def test_nobody_else_may_write_to_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = PackedCache(tmp_path / "packed", MB)
        with cache.turn("k"):
            cache.store("k", LAYOUT, fill)
    finally:
        os.umask(before)
    for path in (tmp_path / "packed", *(tmp_path / "packed").iterdir()):
        assert path.stat().st_mode & 0o022 == 0, path.name


@pytest.mark.parametrize("kept", [0, 7, 20, 40, 300, 4096, 5000, -1])
def test_a_truncated_file_is_deleted_with_a_line_in_the_log(
    cache: PackedCache, stored: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    stored.write_bytes(stored.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        assert cache.find("k") is None
    assert "k.pack" in caplog.text
    assert not stored.exists()
    with cache.turn("k"):
        assert cache.store("k", LAYOUT, fill) is not None


@pytest.mark.parametrize(
    "place", ["magic", "length", "digest", "header", "first", "middle", "padding", "last"]
)
def test_a_single_changed_bit_anywhere_is_found(cache: PackedCache, stored: Path, place: str) -> None:
    data = bytearray(stored.read_bytes())
    begin = len(data) - LAYOUT.num_bytes
    at = {
        "magic": 0,
        "length": 9,
        "digest": 17,
        "header": 60,
        "first": begin,
        "middle": begin + 3000,
        "padding": begin + LAYOUT.offsets[1] + 30,
        "last": len(data) - 1,
    }[place]
    data[at] ^= 4
    stored.write_bytes(data)
    assert cache.find("k") is None


def test_two_equal_changes_and_swapped_pages_are_found(tmp_path: Path) -> None:
    layout = Layout((Part(("w",), "float32", (64 << 10,)),))
    numbers = torch.arange(64.0 * 1024)
    path = tmp_path / "big"
    with open(path, "w+b") as file:
        packed_file.write_packed(file, "k", layout, lambda write: write(0, numbers.view(torch.uint8)))
    data = bytearray(path.read_bytes())
    begin = len(data) - layout.num_bytes
    data[begin : begin + 8192], data[begin + 8192 : begin + 16384] = (
        data[begin + 8192 : begin + 16384],
        data[begin : begin + 8192],
    )
    path.write_bytes(data)
    with open(path, "rb") as file, pytest.raises(DamagedPack, match="w was changed"):
        open_packed(file, "k")


def test_a_foreign_file_under_the_name_is_made_anew(cache: PackedCache, stored: Path) -> None:
    stored.write_bytes(b"\x89PNG" * 5000)
    assert cache.find("k") is None
    assert cache.find("another key") is None


def test_the_pack_of_another_model_is_not_believed(cache: PackedCache, stored: Path) -> None:
    shutil.copy(stored, stored.with_name("other.pack"))
    assert cache.find("other") is None
    assert cache.find("k") is not None


def test_an_interrupted_build_leaves_a_part_that_the_next_one_removes(
    cache: PackedCache, stored: Path
) -> None:
    folder = stored.parent
    (folder / "dead.part").write_bytes(b"x" * 100)
    with open(folder / "alive.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def interrupted(write) -> None:
            write(0, torch.zeros(10, dtype=torch.uint8))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), cache.turn("n"):
            cache.store("n", LAYOUT, interrupted)
        assert sorted(path.name for path in folder.glob("*.pa*")) == ["alive.part", "k.pack"]
    assert cache.find("n") is None


def test_a_killed_build_is_done_again(cache: PackedCache, stored: Path) -> None:
    """The process dies in the middle: its locks go with it, its part file stays."""
    script = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from llm_local.loaders.packed_cache import PackedCache\n"
        "from test_packed_cache import LAYOUT\n"
        "cache = PackedCache(Path(sys.argv[1]), 1 << 20)\n"
        "with cache.turn('dies'): cache.store('dies', LAYOUT, lambda write: os.kill(os.getpid(), 9))\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", script, str(stored.parent), str(here)], env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -9
    assert (stored.parent / "dies.part").exists()
    with cache.turn("dies"):
        assert cache.find("dies") is None
        assert cache.store("dies", LAYOUT, fill) is not None
    assert not (stored.parent / "dies.part").exists()


def test_of_two_at_once_one_builds_and_the_other_waits(cache: PackedCache, tmp_path: Path) -> None:
    built, waited = [], []

    def build(write) -> None:
        time.sleep(0.3)
        fill(write)

    def work() -> None:
        own = PackedCache(tmp_path / "packed", MB)
        with own.turn("k", lambda: waited.append(1)):
            if own.find("k") is None:
                own.store("k", LAYOUT, build)
                built.append(1)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(built) == 1
    assert waited


def test_patience_ends(cache: PackedCache, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_cache, "_PATIENCE_S", 0.2)
    with open(stored.with_suffix(".lock"), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CacheUnusable, match="another process"), cache.turn("k"):
            pass


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without large pages, where packed files are mapped."""
    monkeypatch.setattr(packed_file, "has_large_pages", lambda: False)


def test_with_large_pages_the_file_is_copied_and_may_go(
    cache: PackedCache, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_file, "has_large_pages", lambda: False)
    mapped = cache.find("k")
    monkeypatch.setattr(packed_file, "has_large_pages", lambda: True)
    copied = cache.find("k")
    assert mapped is not None and copied is not None
    assert torch.equal(mapped.storage, copied.storage)
    os.truncate(stored, 0)
    assert copied.storage.sum() > 0  # a mapping would end the process here


@pytest.mark.usefixtures("small_pages")
def test_the_least_recently_used_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    size = 12_000  # one file: a page of header, and the parts
    cache = PackedCache(tmp_path, 2 * size)
    for index, key in enumerate(("old", "new")):
        with cache.turn(key):
            cache.store(key, LAYOUT, fill)
        os.utime(tmp_path / f"{key}.pack", (index, index))
    assert cache.find("old") is not None  # used again, and not kept
    with cache.turn("third"):
        held = cache.store("third", LAYOUT, fill)
    assert sorted(path.stem for path in tmp_path.glob("*.pack")) == ["old", "third"]
    in_use = cache.find("old")
    with cache.turn("fourth"), pytest.raises(CacheUnusable, match="in use fill PACKED_CACHE_MB"):
        cache.store("fourth", LAYOUT, fill)
    assert sorted(path.stem for path in tmp_path.glob("*.pack")) == ["old", "third"]
    del held, in_use  # the mappings were the users
    with cache.turn("fourth"):
        cache.store("fourth", LAYOUT, fill)
    assert (tmp_path / "fourth.pack").exists()


def test_a_model_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path / "packed", 1000)
    with cache.turn("k"), pytest.raises(CacheUnusable, match="PACKED_CACHE_MB allows 0"):
        cache.store("k", LAYOUT, fill)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_is_named_and_leaves_nothing(
    cache: PackedCache, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    for function in ("posix_fallocate", "pwrite"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(CacheUnusable, match=os.strerror(code)), cache.turn("k"):
                cache.store("k", LAYOUT, fill)
        assert [path.name for path in (tmp_path / "packed").iterdir()] == ["k.lock"]


def test_a_file_system_without_reservation_works(cache: PackedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    with cache.turn("k"):
        assert cache.store("k", LAYOUT, fill) is not None


def test_a_disk_is_not_filled_to_the_brim(cache: PackedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * MB))
    with cache.turn("k"), pytest.raises(CacheUnusable, match="the disk has 100 MiB free"):
        cache.store("k", LAYOUT, fill)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = PackedCache(tmp_path / "file" / "packed", MB)
    assert cache.find("k") is None
    with pytest.raises(CacheUnusable, match="file"), cache.turn("k"):
        pass


def test_a_key_changes_with_everything_that_the_contents_depend_on(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m")

    def key(bits: str = "int8") -> str:
        return pack_key(read_config(folder).values, read_weights(folder), bits)  # type: ignore[arg-type]

    first = key()
    assert key() == first
    assert key("int4") != first
    weights = folder / "model.safetensors"
    found = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    with open(weights, "r+b") as file:  # in place, with the old times
        file.write(data)
    os.utime(weights, ns=(found.st_atime_ns, found.st_mtime_ns))
    second = key()
    assert second != first
    edit_json(folder / "config.json", rms_norm_eps=1e-3)
    assert key() != second


def test_a_hub_snapshot_is_known_by_its_contents(tmp_path: Path) -> None:
    """Two revisions that share weights share the packed file; another digest is another model."""
    source = save_checkpoint(tmp_path / "m")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    shutil.copy(source / "model.safetensors", blobs / "aa")
    keys = []
    for name, blob in (("one", "aa"), ("two", "aa"), ("three", "bb")):
        if not (blobs / blob).exists():
            shutil.copy2(blobs / "aa", blobs / blob)
        folder = tmp_path / name
        shutil.copytree(source, folder)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(blobs / blob)
        keys.append(pack_key(read_config(folder).values, read_weights(folder), "int8"))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.usefixtures("small_pages")
def test_without_large_pages_a_packed_file_is_mapped_not_read(cache: PackedCache, stored: Path) -> None:
    found = cache.find("k")
    assert found is not None
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells")
    spans = [line.split("-")[0] for line in maps.read_text().splitlines() if line.endswith(str(stored))]
    assert spans
    assert any(int(one, 16) <= found.storage.data_ptr() for one in spans)
    assert found.storage.data_ptr() % mmap.PAGESIZE == 0
