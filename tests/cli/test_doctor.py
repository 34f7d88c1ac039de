"""`llm-local doctor`: what it finds, what it wants mended, and its exit code."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.main import main
from llm_local.kernels import build, library
from llm_local.kernels.library import NativeStatus

WORKING = NativeStatus("avx2", ("avx2", "portable"), "/somewhere/libllm_local.so", "own threads")
MISSING = NativeStatus("", (), "", "", "there is no C++ compiler", "Install g++ or clang++.")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory, and a disk with room."""
    monkeypatch.chdir(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 0, 10**12))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the verb on a machine with the given kernels; gives back exit code, stdout, stderr."""

    def run(status: NativeStatus, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(library, "status", lambda: status)
        code = main(["doctor", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_a_healthy_machine(told: Any) -> None:
    code, out, err = told(WORKING)
    assert (code, err) == (0, "")
    assert "avx2, the best of what this CPU runs (avx2, portable)" in out
    assert "/somewhere/libllm_local.so" in out
    assert not [line for line in out.splitlines() if line.startswith("FAIL")]


def test_without_a_compiler_it_says_what_to_install(told: Any) -> None:
    code, out, err = told(MISSING)
    assert code == 1
    assert "none: there is no C++ compiler" in out and "-> Install g++ or clang++" in out
    assert err == "error: kernels: see above.\n"


def test_a_compiler_that_fails_is_not_one_that_is_missing(told: Any) -> None:
    broken = NativeStatus("", (), "", "", "c++ failed: unknown flag", "Set CXX to another C++ compiler.")
    code, out, _ = told(broken)
    assert code == 1 and "-> Set CXX to another" in out and "Install" not in out


def test_kernels_switched_off_are_no_fault(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "off")
    code, out, _ = told(MISSING)
    assert code == 0 and "off, by environment (KERNELS)" in out


def test_a_variant_that_somebody_chose_is_named(told: Any) -> None:
    _, out, _ = told(NativeStatus("portable", ("avx2", "portable"), "/l.so", "own threads"))
    assert "portable, chosen by LLM_LOCAL_KERNEL_VARIANT (also here: avx2)" in out


def test_the_library_is_said_to_come_from_where_it_does(told: Any) -> None:
    for folder, words in (
        (build.PREBUILT, "shipped with llm-local"),
        (build.environment_folder() / "a" / "b", "built with the installation"),
        (build.cache_folder() / "a" / "b", "built here"),
        (Path("/run/llm-local-kernels-x"), "built for this run only"),
    ):
        library = str(folder / "libllm_local.so")
        _, out, _ = told(NativeStatus("avx2", ("avx2", "portable"), library, "own threads"))
        assert f"{library} ({words})" in out


def test_the_compiler_is_named(told: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("c++", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "mine -m64")
    assert f"{tmp_path}/mine -m64\n" in told(WORKING)[1]
    monkeypatch.setenv("CXX", "clang++-99")
    code, out, _ = told(WORKING)
    assert code == 0 and f"{tmp_path}/c++, because CXX names clang++-99, which is not installed\n" in out
    assert "-> Install that one, set CXX" in out
    monkeypatch.setenv("CXX", "'unclosed")
    code, out, _ = told(WORKING)
    assert code == 1 and "none: CXX is not a command" in out
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    code, out, _ = told(WORKING)
    assert code == 0 and "none, and none is needed" in out


def test_json_holds_the_same(told: Any) -> None:
    code, out, _ = told(MISSING, "--json")
    shown = json.loads(out)
    found = {one["name"]: one for one in shown["checks"]}
    assert code == 1 and shown["state"] == "fail"
    assert (found["kernels"]["state"], found["kernels"]["mend"]) == ("fail", MISSING.mend)
    assert (found["machine"]["state"], found["machine"]["mend"]) == ("ok", "")
    assert found["quantization"]["found"] == "auto"
    assert all(set(one) == {"name", "found", "state", "mend"} for one in shown["checks"])


def test_little_room_is_a_warning_and_none_is_a_failure(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, 10**9))
    code, out, err = told(WORKING)
    assert (code, err) == (0, "") and "1.00 GB free" in out and "-> Free some disk space" in out
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, 10**8))
    code, out, err = told(WORKING)
    assert code == 1 and err == "error: models, packed weights, kernel cache, state: see above.\n"


def test_a_setting_that_is_wrong_is_a_finding_like_others(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_K", "many")
    code, out, err = told(WORKING)
    assert code == 1 and err == "error: settings: see above.\n"
    assert "TOP_K" in out and "port 8000" in out  # and it goes on


def test_where_settings_come_from_is_told(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_K", "7")
    monkeypatch.setenv("OFFLINE", "true")
    _, out, _ = told(WORKING)
    assert "TOP_K from environment" in out and "OFFLINE from environment" in out
    assert "off (offline, by environment)" in out


def test_a_token_is_never_shown(told: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy.example:3128")
    _, out, _ = told(WORKING)
    assert "from environment, sent to the hub alone" in out and "http://proxy.example:3128" in out
    (tmp_path / ".env").write_text(
        "HF_ENDPOINT=https://mirror.example/x?key=s3cr3t\n".replace("?key=s3cr3t", "")
    )
    _, again, _ = told(WORKING, "--json")
    assert "HF_TOKEN (from environment) is not used" in again and "https://mirror.example/x" in again
    for secret in ("abcdefghij", "user", "word"):
        assert secret not in out.replace("another user", "") and f"{secret}:" not in again


def test_model_belongs_to_the_proof(told: Any) -> None:
    code, out, err = told(WORKING, "--model", "starter")
    assert (code, out) == (2, "") and "--egress" in err


def test_a_home_that_is_a_file_is_told(told: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM_LOCAL_HOME", str(tmp_path / "file"))
    code, out, _ = told(WORKING)
    assert code == 1 and f"-> Make {tmp_path / 'file'} a directory" in out


def test_the_real_machine_answers(capfd: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    found = {one["name"]: one for one in json.loads(capfd.readouterr().out)["checks"]}
    assert {"llm-local", "torch", "torch build", "devices", "machine", "memory", "clock"} <= found.keys()
    assert {"kernels", "models", "packed weights", "port 8000", "port 11434", "telemetry"} <= found.keys()
    assert "GB free" in found["memory"]["found"] and "cpu" in found["devices"]["found"]
    assert {one["state"] for one in found.values()} <= {"ok", "warn", "fail"}
