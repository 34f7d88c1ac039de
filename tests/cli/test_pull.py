"""`llm-local pull` as a person and a script meet it, in this process, against a hub on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakehub import EVIL_NAMES, FakeHub, hang, running_hub, status, without_waiting
from hub_faults import CONFIG, FILES, MODEL, NEEDED, REF, WEIGHTS, weights
from llm_local.cli import fit_check
from llm_local.cli.main import main
from llm_local.store.snapshots import cache_folder, find_local

Pull = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running hub with one model, and an environment that points at it."""
    with running_hub() as hub:
        hub.add(REF, FILES, details={"cardData": {"license": "apache-2.0"}})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(fit_check, "memory_bytes_per_s", lambda: 3e8)
        monkeypatch.setattr(fit_check, "host_bytes", lambda: 10**9)
        without_waiting(monkeypatch)
        yield hub


@pytest.fixture
def pull(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> Pull:
    """Runs the verb; gives back exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["pull", "--device", "cpu", *arguments])
        return code, *capfd.readouterr()

    return run


def written() -> list[Path]:
    return [path for path in cache_folder().rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_folder_is_the_answer_and_the_rest_is_on_stderr(pull: Pull) -> None:
    code, out, err = pull(REF)
    assert (code, out) == (0, f"{find_local(REF)}\n")
    assert "license     apache-2.0\n" in err
    assert "speed       at most about 100 tokens/s" in err
    assert f"100%, 3.00 MB of 3.00 MB [file 4 of 4: {MODEL} 100%]" in " ".join(err.split())


def test_quiet_says_nothing_and_another_time_fetches_nothing(pull: Pull, hub: FakeHub) -> None:
    assert pull("-q", REF)[2] == ""
    count = len(hub.asked(MODEL))
    code, out, err = pull(REF)
    assert (code, out) == (0, f"{find_local(REF)}\n")
    assert "nothing to fetch" in err
    assert len(hub.asked(MODEL)) == count


@pytest.mark.parametrize(
    "spelling", ["hf.co/org/model", "https://huggingface.co/org/model/tree/main", "{url}/org/model"]
)
def test_addresses_of_the_hub(pull: Pull, hub: FakeHub, spelling: str) -> None:
    assert pull("-q", spelling.format(url=hub.url))[0] == 0
    assert find_local(REF) is not None


def test_an_address_elsewhere_meets_no_connection(pull: Pull, hub: FakeHub) -> None:
    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen()
        canary.setblocking(False)
        port = canary.getsockname()[1]
        for name in (f"http://127.0.0.1:{port}/org/model", f"localhost:{port}/org/model"):
            code, _, err = pull(name)
            assert code == 2 and "models come from" in err
        with pytest.raises(BlockingIOError):
            canary.accept()
    assert hub.requests == []


# The look before the download


def test_a_check_writes_nothing(pull: Pull, hub: FakeHub) -> None:
    code, out, err = pull("--check", REF)
    assert (code, err) == (0, "")
    assert "as float32" in out and "fits" in out and "stored as F32" in out
    assert written() == []
    assert hub.sent_bytes < 200_000  # descriptions and headers, no weights


def test_a_check_of_what_does_not_fit_in_memory(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_check, "host_bytes", lambda: 60 << 20)
    code, out, err = pull("--check", REF)
    assert code == 6 and "does not fit" in out
    assert err.startswith(f"error: {REF} does not fit: as int4 it needs ")
    assert pull(REF)[0] == 6
    assert written() == []
    assert pull("--force", "-q", REF)[0] == 0
    assert find_local(REF) is not None


def test_where_auto_does_not_fit_the_form_that_does_is_named(
    pull: Pull, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REF].files["config.json"] = b'{"model_type": "llama"}'  # no keys and values
    hub.repos[REF].files[MODEL] = weights(500, 1500)
    monkeypatch.setattr(fit_check, "host_bytes", lambda: (64 << 20) + 1_000_000)
    code, out, err = pull("--check", REF)
    assert (code, err) == (0, "")
    assert "as float32" in out and "does not fit" in out
    assert "best here   int8, 67.9 MB: fits with --quant int8\n" in out
    assert "keys and values, which the configuration does not tell" in out
    assert pull("--check", "--quant", "none", REF)[0] == 6  # what was asked for is what counts
    assert pull("--check", "--quant", "int4", REF)[0] == 0


def test_memory_is_counted_for_the_context_that_is_asked_for(pull: Pull, hub: FakeHub) -> None:
    hub.repos[REF].files["config.json"] = CONFIG.replace(b"{", b'{"max_position_embeddings": 10000,', 1)
    need = {}
    for context in ("1000", "10000"):
        found = json.loads(pull("--check", "--json", "--context", context, REF)[1])["fit"]["memory"]
        assert found["context_length"] == int(context)
        need[context] = found["need_bytes"]
    assert need["10000"] - need["1000"] == 9000 * 2 * 4 * (16 + 16) * 4
    code, _, err = pull("--check", "--context", "10001", REF)
    assert code == 2 and "10001" in err and "10000" in err


def test_a_full_disk_is_not_forced(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    for flags in ([], ["--force"], ["--check"]):
        code, _, err = pull(*flags, REF)
        assert code == 6
        assert "3.00 MB are to be fetched, but only 1.00 kB are free" in err
    assert written() == []


def test_weights_that_are_quantized_are_refused_before_they_are_fetched(pull: Pull, hub: FakeHub) -> None:
    hub.repos[REF].files["config.json"] = CONFIG.replace(
        b"{", b'{"quantization_config": {"quant_method": "awq"},', 1
    )
    code, _, err = pull(REF)
    assert code == 2 and "quantized (awq)" in err
    assert written() == []


def test_damage_on_the_hub_is_found_before_the_download(pull: Pull, hub: FakeHub) -> None:
    hub.repos[REF].files[MODEL] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    code, _, err = pull(REF)
    assert code == 7 and "pointer of git LFS" in err


def test_shards_are_looked_at_and_fetched_once(pull: Pull, hub: FakeHub) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": weights(10 * n, 1000) for n in (1, 2)}
    index = {"weight_map": {f"tensor.{n}": name for n, name in enumerate(shards)}}
    files = {name: data for name, data in FILES.items() if name != MODEL}
    hub.add(REF, {**files, f"{MODEL}.index.json": json.dumps(index).encode(), **shards})
    code, out, _ = pull(REF)
    assert code == 0 and {path.name for path in Path(out.strip()).iterdir()} >= set(shards)
    count = len(hub.asked("/resolve/"))
    assert pull("-q", REF)[0] == 0
    assert [one.path for one in hub.asked("/resolve/")[count:] if "config.json" not in one.path] == []


def test_on_a_gpu_its_memory_is_what_counts(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index=0: (40 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    found = json.loads(pull("--check", "--json", "--device", "cuda", REF)[1])["fit"]
    assert (found["memory"]["device"], found["memory"]["free_bytes"]) == ("cuda", 80 * 10**9)
    assert found["max_tokens_per_s"] is None and found["fits"]
    code, _, err = pull("--check", "--device", "cuda", "--quant", "int8", REF)
    assert code == 2 and "int8 weights run on the CPU" in err


def test_on_a_cpu_torch_is_not_needed() -> None:
    program = (
        "import sys; import llm_local.cli.fit_check, llm_local.store.searching; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60) == "False\n"


# For programs


def test_json_is_one_line_for_each_model(pull: Pull, hub: FakeHub) -> None:
    hub.add("org/other", FILES)
    code, out, _ = pull("--json", REF, "org/other")
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["model"], second["model"]) == (REF, "org/other")
    assert first["path"] == str(find_local(REF))
    assert first["license"] == "apache-2.0" and second["license"] == ""
    assert {file["name"] for file in first["files"]} == set(NEEDED)
    assert first["fetched_bytes"] == first["bytes"] == sum(map(len, NEEDED.values()))
    assert first["fit"]["fits"] is True and first["fit"]["parameters"] == 750_000


def test_the_first_that_fails_ends_it(pull: Pull, hub: FakeHub) -> None:
    code, out, err = pull("--json", REF, "org/none", "org/never")
    assert code == 3 and "org/none" in err
    assert [json.loads(line)["model"] for line in out.splitlines()] == [REF]
    assert not hub.asked("never")


def test_a_wrong_name_among_several_fetches_nothing(pull: Pull, hub: FakeHub) -> None:
    assert pull(REF, "a/b/c")[0] == 3
    assert hub.requests == []


# Real files


def test_real_files_into_a_folder(pull: Pull, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "model"
    code, out, _ = pull("--output", str(folder), REF)
    assert (code, out) == (0, f"{folder}\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == NEEDED
    assert find_local(REF) is None and not cache_folder().exists()


def test_what_the_cache_has_is_copied(pull: Pull, hub: FakeHub, tmp_path: Path) -> None:
    pull("-q", REF)
    count = len(hub.asked("/resolve/"))
    assert pull("-q", "--output", str(tmp_path / "out"), REF)[0] == 0
    assert (tmp_path / "out" / MODEL).read_bytes() == WEIGHTS
    assert not (tmp_path / "out" / MODEL).is_symlink()
    assert all("config.json" in one.path or MODEL in one.path for one in hub.asked("/resolve/")[count:])
    blob = (find_local(REF) or tmp_path) / MODEL
    (tmp_path / "out" / MODEL).write_bytes(b"changed")
    assert blob.read_bytes() == WEIGHTS


def test_other_files_of_the_folder_are_not_overwritten(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    same_size = bytes(len(WEIGHTS))
    (tmp_path / MODEL).write_bytes(same_size)
    code, _, err = pull("--output", str(tmp_path), REF)
    assert code == 2 and "config.json is there already" in err
    assert (tmp_path / "config.json").read_text() == "mine" and (tmp_path / MODEL).read_bytes() == same_size
    assert pull("-q", "--force", "--output", str(tmp_path), REF)[0] == 0
    assert {name: (tmp_path / name).read_bytes() for name in NEEDED} == NEEDED


@pytest.mark.parametrize("flags", [(), ("--force",)])
def test_a_folder_in_the_place_of_a_file_stays(pull: Pull, tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "config.json" / "mine").mkdir(parents=True)
    code, _, err = pull(*flags, "--output", str(tmp_path), REF)
    assert code == 2 and "config.json is a folder" in err
    assert (tmp_path / "config.json" / "mine").is_dir()


def test_a_folder_that_has_all_is_fetched_nothing_for(pull: Pull, hub: FakeHub, tmp_path: Path) -> None:
    assert pull("-q", "--output", str(tmp_path / "out"), REF)[0] == 0
    count = len(hub.asked(MODEL))
    assert "nothing to fetch" in pull("--output", str(tmp_path / "out"), REF)[2]
    assert len(hub.asked(MODEL)) == count


def test_a_folder_takes_one_model_and_is_named_when_it_cannot_be_written(pull: Pull, tmp_path: Path) -> None:
    assert pull("--output", str(tmp_path / "out"), REF, "org/other")[0] == 2
    (tmp_path / "file").touch()
    code, _, err = pull("--output", str(tmp_path / "file" / "out"), REF)
    assert code == 6 and str(tmp_path / "file") in err and "--output" in err


# GGUF


@pytest.fixture
def gguf(hub: FakeHub) -> FakeHub:
    hub.add(
        "org/small",
        {
            "small-Q4_K_M.gguf": b"GGUF" + b"4" * 100_000,
            "small-Q8_0.gguf": b"GGUF" + b"8" * 200_000,
            "README.md": b"",
        },
    )
    return hub


@pytest.mark.parametrize(
    "name", ["org/small:q4_k_m", "org/small:small-Q4_K_M.gguf", "hf.co/org/small:Q4_K_M"]
)
def test_a_gguf_file_is_fetched_and_said_not_to_run(pull: Pull, gguf: FakeHub, name: str) -> None:
    code, out, err = pull(name)
    assert code == 0
    assert Path(out.strip()).read_bytes().startswith(b"GGUF4")
    assert "GGUF cannot be run yet" in err
    assert not gguf.asked("Q8_0")


def test_a_repository_of_gguf_files_says_what_it_has(pull: Pull, gguf: FakeHub) -> None:
    code, _, err = pull("org/small")
    assert code == 2 and "small-Q4_K_M.gguf, small-Q8_0.gguf" in err
    code, _, err = pull("org/small:Q2_K")
    assert code == 3 and "small-Q4_K_M, small-Q8_0" in err


def test_a_gguf_file_does_not_hide_the_model_beside_it(pull: Pull, hub: FakeHub) -> None:
    pull("-q", REF)
    before = find_local(REF)
    hub.repos[REF].files["model-Q4_0.gguf"] = b"GGUF"
    hub.repos[REF].commit = "b" * 40
    assert pull("-q", f"{REF}:Q4_0")[0] == 0
    assert find_local(REF) == before is not None


@pytest.mark.parametrize("name", [name for name in EVIL_NAMES if "\ud800" not in name], ids=ascii)
@pytest.mark.parametrize("flags", [(), ("--output", "out")], ids=["cache", "folder"])
def test_an_evil_name_writes_nothing_outside(
    pull: Pull,
    hub: FakeHub,
    name: str,
    flags: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.add("org/evil", {f"{name}-Q4_0.gguf": b"GGUF"})
    code, out, err = pull(*flags, "org/evil:Q4_0")
    inside = tmp_path / "out" if flags else cache_folder()
    found = [path for path in tmp_path.rglob("*") if path.name.endswith(".gguf") or path.name == "GGUF"]
    assert all(path.is_relative_to(inside) for path in found)
    if code == 0:  # with the ending it is a name like any other
        assert Path(out.strip()).name == f"{name}-Q4_0.gguf".rpartition("/")[2]
        assert Path(out.strip()).resolve().is_relative_to(inside)
    else:
        assert code == 7 and "not safe" in err
        assert not (tmp_path / "out").exists() and not cache_folder().exists()


# The hub


def test_what_is_here_is_listed_and_verified_without_a_request(
    pull: Pull, hub: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    pull("-q", REF)
    count = len(hub.requests)
    for words in (["list"], ["verify", REF], ["ps"]):
        assert main(words) == 0
    assert REF in capfd.readouterr().out
    assert len(hub.requests) == count


def test_offline_is_one_line_and_no_request(
    pull: Pull, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = pull("--offline", REF)
    assert (code, out) == (5, "") and err.count("\n") == 1 and "switched off" in err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull(REF)[0] == 5
    assert hub.requests == []


@pytest.mark.parametrize(
    "mirror", ["mirror.example", "ftp://mirror.example", "http://user:secret@mirror.example"]
)
def test_a_mirror_that_is_no_address(pull: Pull, hub: FakeHub, mirror: str) -> None:
    code, _, err = pull("--mirror", mirror, REF)
    assert code == 2 and "--mirror must be" in err and "secret" not in err
    assert hub.requests == []


def test_what_the_hub_says_cannot_drive_the_terminal(pull: Pull, hub: FakeHub) -> None:
    hub.repos[REF].details["cardData"] = {"license": "mit\x1b]0;owned\x07\n" * 50}
    code, _, err = pull(REF)
    assert code == 0 and "\x1b" not in err.replace("\\x1b", "")


def test_a_license_by_a_name_of_its_own(pull: Pull, hub: FakeHub) -> None:
    hub.repos[REF].details |= {
        "cardData": {"license": "other", "license_name": "llama3.2"},
        "gated": "manual",
    }
    assert "license     llama3.2, gated\n" in pull(REF)[2]


def test_why_nothing_happens_is_said(pull: Pull, hub: FakeHub) -> None:
    hub.faults[MODEL] += [lambda answer: None, status(503, {"Retry-After": "3"})]
    assert f"{MODEL}: it answered 503; trying again in 3 s\n" in pull(REF)[2]


def test_nothing_is_asked_of_the_hub_without_a_name(pull: Pull, hub: FakeHub) -> None:
    hub.faults["api"].append(hang)
    assert pull()[0] == 2
    assert hub.requests == []
