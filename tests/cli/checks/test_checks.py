"""Each thing that the doctor looks at, well and ill."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest

from llm_local.cli.checks import folders, ports, software
from llm_local.cli.checks.check import Check, worst
from llm_local.cli.checks.folders import check_folder, held_bytes
from llm_local.cli.checks.machine import check_clock, check_machine
from llm_local.cli.checks.ports import check_ports, listeners
from llm_local.cli.checks.settings import check_privacy
from llm_local.cli.checks.software import check_torch, check_versions, floors
from llm_local.config import load_config
from llm_local.loaders import host, torch_build
from llm_local.loaders.torch_build import TorchBuild, TorchDevice
from llm_local.store.servers import Registration

CPU = TorchDevice("cpu", "cpu")


def by_name(found: object) -> dict[str, Check]:
    return {one.name: one for one in found}  # type: ignore[attr-defined]


def test_the_whole_is_as_well_as_its_worst_part() -> None:
    assert worst([]) == "ok"
    assert worst([Check("a", ""), Check("b", "", "warn"), Check("c", "")]) == "warn"
    assert worst([Check("a", "", "fail"), Check("b", "", "warn")]) == "fail"


# --- software ---


def test_what_is_missing_or_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        software, "versions", lambda: {"python": "3.11.2", "torch": "2.9.1+cpu", "tokenizers": None}
    )
    monkeypatch.setattr(software, "_requirements", lambda: ["torch<3,>=2.10", "torch>=2.10,<3", "x"])
    found = by_name(check_versions())
    assert found["python"].state == "ok"
    assert found["torch"].state == "fail" and "2.10 is needed" in found["torch"].found
    assert (found["tokenizers"].state, found["tokenizers"].found) == ("fail", "not installed")


def test_what_is_installed_here_is_new_enough() -> None:
    assert worst(check_versions()) == "ok"


def test_floors_are_read_from_requirements() -> None:
    lines = ["torch>=2.10,<3", "huggingface-hub >= 1.0", "mcp[cli]>=2.1; extra == 'mcp'", "ruff", "a==1"]
    assert floors(lines) == {"torch": "2.10", "huggingface_hub": "1.0", "mcp": "2.1"}


def test_a_torch_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> TorchBuild:
        raise OSError("libcudart.so: cannot open shared object file\nand more")

    monkeypatch.setattr(torch_build, "torch_build", broken)
    (found,) = check_torch()
    assert found.state == "fail" and found.found.endswith("cannot open shared object file")


@pytest.mark.parametrize(
    ("kind", "devices", "with_nvidia", "state", "said"),
    [
        ("CPU", (CPU,), False, "ok", "cpu"),
        ("CPU", (CPU,), True, "warn", "torch cannot use it"),
        ("CUDA 12.8", (CPU,), True, "warn", "torch cannot use it"),
        ("CUDA 12.8", (CPU, TorchDevice("cuda", "cuda:0 X", 24 * 10**9)), True, "ok", "cuda:0 X (24.0 GB)"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told(
    kind: str,
    devices: tuple[TorchDevice, ...],
    with_nvidia: bool,
    state: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(torch_build, "torch_build", lambda: TorchBuild("2", kind, 4, devices))
    if with_nvidia:
        (tmp_path / "version").touch()
    found = by_name(check_torch(tmp_path / "version"))
    assert found["torch build"].found == f"{kind}, 4 threads"
    assert found["devices"].state == state and said in found["devices"].found


def test_the_real_torch_answers() -> None:
    build = torch_build.torch_build()
    assert build.devices[0] == CPU and build.num_threads >= 1 and build.kind


# --- machine ---


def test_a_clock_before_the_installation_is_wrong() -> None:
    assert check_clock().state == "ok"
    found = check_clock(now=0.0)
    assert found.state == "warn" and "1970-01-01" in found.found
    assert check_clock(now=1000.0, written=1500.0).state == "ok"  # less than a day is a time zone


def test_memory_is_what_the_container_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("2000000000\n")
    assert host.memory_limit(tmp_path) == 2_000_000_000
    monkeypatch.setattr(host, "memory_limit", lambda: 2_000_000_000)
    monkeypatch.setattr(host, "host_bytes", lambda: 500_000_000)
    found = by_name(check_machine())["memory"]
    assert found.state == "warn" and "may take 2.00 GB; 500 MB free" in found.found


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""])
def test_no_limit_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert host.memory_limit(tmp_path) is None
    assert host.memory_limit(tmp_path / "nowhere") is None


# --- folders ---


def test_a_folder_tells_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 2_000_000)
    os.link(tmp_path / "deep" / "file", tmp_path / "same")
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    assert held_bytes(tmp_path) == 2_000_000
    assert f"{tmp_path}, 2.00 MB in 3 models; " in check_folder("models", tmp_path, " in 3 models").found


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = check_folder("models", tmp_path / "a" / "b")
    assert "not there yet" in found.found and not (tmp_path / "a").exists()


def test_models_are_counted(tmp_path: Path) -> None:
    for name in ("models--a--b", "models--c--d", "datasets--e--f"):
        (tmp_path / name).mkdir()
    assert folders._models_in(tmp_path) == " in 2 models"
    assert folders._models_in(tmp_path / "nowhere") == ""


# --- ports ---


def test_a_port_that_is_taken_says_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("API_PORT", str(port))
        found = by_name(check_ports(load_config()))
        taken = found[f"port {port}"]
        assert taken.state == "warn" and f"(process {os.getpid()}) at 127.0.0.1, API_PORT" in taken.found
        with Registration("127.0.0.1", port, model="starter"):
            ours = by_name(check_ports(load_config()))[f"port {port}"]
        assert ours.state == "ok" and ours.found == "our own server, with starter, API_PORT"
    free = by_name(check_ports(load_config()))
    assert free[f"port {port}"].found == "free, API_PORT" and {"port 8000", "port 11434"} <= free.keys()


def test_a_connection_is_no_listener() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert listeners(client.getsockname()[1]) == []
        assert [one.pid for one in listeners(server.getsockname()[1])] == [os.getpid()]


def test_a_system_that_does_not_tell_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    found = list(check_ports(load_config()))
    assert worst(found) == "ok" and "tells only its administrator" in found[1].found


def test_somebody_elses_listener_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = SimpleNamespace(
        status=psutil.CONN_LISTEN, laddr=SimpleNamespace(ip="0.0.0.0", port=11434), pid=None
    )
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [theirs])
    found = by_name(check_ports(load_config()))["port 11434"]
    assert found.state == "ok" and "taken by another user's process at 0.0.0.0" in found.found
    assert ports.Listener("::", 2**22 + 1).words == f"process {2**22 + 1} at ::"  # gone in the meantime


@pytest.mark.parametrize(
    ("address", "state"), [("127.0.0.1", "ok"), ("localhost", "ok"), ("0.0.0.0", "warn")]
)
def test_an_address_that_others_reach_is_told(
    address: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_HOST", address)
    assert next(check_ports(load_config())).state == state


# --- privacy ---


def test_telemetry_that_somebody_switched_on_is_a_warning() -> None:
    config = load_config()
    assert by_name(check_privacy(config, {}))["telemetry"].state == "ok"
    found = by_name(check_privacy(config, {"HF_HUB_DISABLE_TELEMETRY": "0"}))["telemetry"]
    assert found.state == "warn" and "HF_HUB_DISABLE_TELEMETRY=0" in found.found


def test_a_hub_that_is_no_address_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example:port")
    try:
        config = load_config()
    except Exception:
        pytest.skip("the settings refuse it before")
    assert by_name(check_privacy(config))["hub"].state == "fail"


def test_a_proxy_is_shown_without_its_password() -> None:
    environ = {"https_proxy": "http://me:word@proxy.example:3128", "ALL_PROXY": "socks5://x:y@z"}
    found = by_name(check_privacy(load_config(), environ))["proxy"].found
    assert "https_proxy: http://proxy.example:3128" in found and "makes no sense" in found
    assert "word" not in found and "y@z" not in found
