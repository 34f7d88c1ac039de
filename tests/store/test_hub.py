"""The one door to the hub, against a hub on loopback that misbehaves on command."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakehub import (
    EVIL_NAMES,
    FakeHub,
    chosen_hub,
    cut_after,
    flip,
    hang,
    ignore_range,
    redirect,
    reset_after,
    running_hub,
    short,
    status,
    too_long,
    web_page,
    without_waiting,
    wrong_place,
)
from llm_local.errors import (
    AccessDenied,
    ConfigError,
    HubUnavailable,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
    StorageError,
    UnsafeWeights,
    UnsupportedTask,
)
from llm_local.events import Progress
from llm_local.store import download
from llm_local.store.hub import OFFLINE_AFTER_S
from llm_local.store.pulling import pull
from llm_local.store.snapshots import cache_folder, find_local

REF = "org/model"
WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several reads and several megabytes
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"import os",
    "README.md": b"# hello",
    "original/consolidated.safetensors": b"twice",
}
NEEDED = {
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running hub with one model, and an environment that points at it."""
    with chosen_hub(monkeypatch, REF, FILES) as hub:
        yield hub


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No test waits for a retry; the seconds that would have passed are kept."""
    return without_waiting(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def leftovers() -> list[Path]:
    return list(cache_folder().rglob("*.incomplete"))


def test_a_pull_brings_what_is_needed_and_nothing_that_could_run(hub: FakeHub) -> None:
    folder = pull(REF)
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    assert find_local(REF) == folder
    assert find_local(REF, "a" * 40) == folder
    assert leftovers() == []
    assert not any(".bin" in request.path or ".py" in request.path for request in hub.requests)


def test_the_layout_is_the_one_other_tools_read(hub: FakeHub) -> None:
    from huggingface_hub import snapshot_download

    folder = pull(REF)
    assert Path(snapshot_download(REF, local_files_only=True, cache_dir=cache_folder())) == folder
    blob = (folder / "model.safetensors").resolve()
    assert blob.name == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_second_pull_fetches_no_file_again(hub: FakeHub) -> None:
    first = pull(REF)
    count = len(hub.asked("/resolve/"))
    assert pull(REF) == first
    assert len(hub.asked("/resolve/")) == count


def test_progress_rises_to_the_total(hub: FakeHub) -> None:
    seen: list[Progress] = []
    pull(REF, on_progress=seen.append)
    total = sum(len(FILES[name]) for name in NEEDED)
    assert {event.stage for event in seen} == {"downloading"}
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert (seen[-1].done, seen[-1].total) == (total, total)
    assert "model.safetensors" in {event.label for event in seen}


def test_find_local_never_asks_the_network(hub: FakeHub) -> None:
    assert find_local(REF) is None
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_half_model_is_not_on_disk_and_a_pull_completes_it(hub: FakeHub, missing: str) -> None:
    folder = pull(REF)
    (folder / missing).resolve().unlink()
    assert find_local(REF) is None
    assert pull(REF) == folder
    assert contents(folder)[missing] == FILES[missing]


@pytest.mark.parametrize(("name", "damage"), [("model.safetensors", b"cut"), ("tokenizer.json", b"[]")])
def test_a_file_damaged_on_disk_is_fetched_again_once_it_is_deleted(
    hub: FakeHub, name: str, damage: bytes
) -> None:
    path = pull(REF) / name
    path.write_bytes(damage)  # through the link, into the contents
    path.unlink()
    assert contents(pull(REF))[name] == FILES[name]


def test_shards_are_those_the_index_names(hub: FakeHub) -> None:
    index = (
        b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    shards = {f"model-0000{n}-of-00002.safetensors": b"shard %d" % n for n in (1, 2)}
    hub.add(REF, {**FILES, "model.safetensors.index.json": index, **shards})
    folder = pull(REF)
    assert set(shards) <= set(contents(folder))
    assert "model.safetensors" not in contents(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert find_local(REF) is None


@pytest.mark.parametrize("shard", ["../../evil.safetensors", "gone.safetensors", "weights.bin"])
def test_an_index_that_names_what_is_not_there_is_corrupt(hub: FakeHub, shard: str) -> None:
    hub.add(REF, {**FILES, "model.safetensors.index.json": b'{"weight_map": {"a": "%s"}}' % shard.encode()})
    with pytest.raises(ModelCorrupt) as caught:
        pull(REF)
    assert "index.json" in str(caught.value) or shard in str(caught.value)
    assert find_local(REF) is None


# Names that are refused


@pytest.mark.parametrize("name", [name for name in EVIL_NAMES if name.isprintable() and name], ids=repr)
def test_an_evil_file_name_writes_nothing(hub: FakeHub, name: str, tmp_path: Path) -> None:
    hub.add(REF, {**FILES, "model.safetensors.index.json": b'{"weight_map": {"a": %s}}' % _quoted(name)})
    before = {path for path in tmp_path.rglob("*") if cache_folder() not in path.parents}
    with pytest.raises(ModelCorrupt):
        pull(REF)
    after = {path for path in tmp_path.rglob("*") if cache_folder() not in path.parents}
    assert after - before <= {cache_folder(), *cache_folder().parents}
    assert find_local(REF) is None


def _quoted(name: str) -> bytes:
    return json.dumps(f"{name}.safetensors").encode()


@pytest.mark.parametrize("name", ["x..\\evil.json", "%2e%2e.json", "CON.json", "a\u202eb.json", "c:x.json"])
def test_an_evil_name_in_the_file_list_is_refused(hub: FakeHub, name: str) -> None:
    hub.add(REF, FILES, extra_names=[name])
    with pytest.raises(ModelCorrupt, match="not safe"):
        pull(REF)
    assert hub.asked("/resolve/") == []


def test_names_that_differ_only_in_case_are_refused(hub: FakeHub) -> None:
    hub.add(REF, {**FILES, "Config.json": b"{}"})
    with pytest.raises(ModelCorrupt, match="differ only in case"):
        pull(REF)


def test_pickle_weights_are_refused_before_any_download(hub: FakeHub) -> None:
    hub.add(REF, {name: data for name, data in FILES.items() if not name.endswith(".safetensors")})
    with pytest.raises(UnsafeWeights, match=r"pickle \(pytorch_model.bin\)"):
        pull(REF)
    assert hub.asked("/resolve/") == []


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"config.json": b"{}", "model.gguf": b""}, UnsupportedTask),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b""}, UnsupportedTask),
        ({"README.md": b""}, ModelNotFound),
        ({"model.safetensors": b""}, ModelNotFound),
    ],
)
def test_a_repository_without_a_model_we_can_load(hub: FakeHub, files: dict[str, bytes], error: type) -> None:
    hub.add(REF, files)
    with pytest.raises(error):
        pull(REF)


# Refusals by the hub


def test_an_unknown_model_is_not_found_and_the_hint_names_the_nearest(hub: FakeHub) -> None:
    pull(REF)
    with pytest.raises(ModelNotFound, match="Did you mean org/model"):
        pull("org/modle")
    assert find_local("org/modle") is None


def test_an_unknown_revision_and_an_unknown_file_have_kinds_of_their_own(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFound) as caught:
        pull(REF, "v9")
    assert caught.value.kind == "revision_not_found"
    hub.faults["tokenizer.json"].append(status(404, {"X-Error-Code": "EntryNotFound"}))
    with pytest.raises(ModelNotFound) as caught:
        pull(REF)
    assert caught.value.kind == "file_not_found"


@pytest.mark.parametrize("where", ["api", "config.json"])
@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_model_says_where_to_accept_and_is_not_retried(hub: FakeHub, where: str, code: int) -> None:
    hub.faults[where].append(status(code, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(AccessDenied) as caught:
        pull(REF)
    assert caught.value.kind == "gated_repo"
    assert f"{hub.url}/{REF}" in caught.value.hint
    assert len([one for one in hub.requests if where == "api" or "config.json" in one.path]) == 1
    assert leftovers() == []


def test_a_wrong_token_is_said_to_be_wrong(hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.faults["api"].append(status(401, body=b'{"error": "Invalid credentials in Authorization header"}'))
    with pytest.raises(AccessDenied, match="does not accept your HF_TOKEN") as caught:
        pull(REF)
    assert "hf_wrong" not in str(caught.value)


def test_a_model_that_is_missing_or_private_is_not_found_without_a_token(hub: FakeHub) -> None:
    hub.faults["api"].append(status(401, body=b'{"error": "Invalid username or password."}'))
    with pytest.raises(ModelNotFound, match="HF_TOKEN"):
        pull(REF)


# Failures that pass


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["api", "model.safetensors"])
def test_a_failure_that_passes_is_retried(hub: FakeHub, where: str, code: int, waits: list[float]) -> None:
    hub.faults[where] += [status(code), status(code)]
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS
    assert len(waits) == 2
    assert 0 < waits[0] < waits[1]


def test_retry_after_is_obeyed_and_shown(hub: FakeHub, waits: list[float]) -> None:
    seen: list[Progress] = []
    hub.faults["model.safetensors"].append(status(429, {"Retry-After": "7"}))
    pull(REF, on_progress=seen.append)
    assert waits == [7.0]
    assert any("429" in event.label and "7 s" in event.label for event in seen)


def test_a_hub_that_asks_for_an_hour_is_unavailable_at_once(hub: FakeHub, waits: list[float]) -> None:
    hub.faults["api"].append(status(503, {"Retry-After": "3600"}))
    with pytest.raises(HubUnavailable, match="3600 s"):
        pull(REF)
    assert waits == []


def test_after_five_tries_it_is_unavailable(hub: FakeHub) -> None:
    hub.faults["api"] += [status(500)] * 50
    with pytest.raises(HubUnavailable, match="500"):
        pull(REF)
    assert len(hub.requests) == 5


@pytest.mark.parametrize("percent", range(1, 100, 7))
def test_an_end_anywhere_resumes_there(hub: FakeHub, percent: int) -> None:
    cut = len(WEIGHTS) * percent // 100
    hub.faults["model.safetensors"].append(cut_after(cut))
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS
    assert [one.headers.get("range") for one in hub.asked("model.safetensors")] == [None, f"bytes={cut}-"]


def test_a_download_goes_on_only_with_the_version_it_began_with(hub: FakeHub) -> None:
    hub.faults["model.safetensors"].append(cut_after(1_000_000))
    pull(REF)
    began, went_on = hub.asked("model.safetensors")
    assert "if-range" not in began.headers
    assert went_on.headers["if-range"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'


def test_a_reset_is_survived(hub: FakeHub) -> None:
    hub.faults["model.safetensors"] += [reset_after(1_000_000), reset_after(0)]
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS


def test_a_download_that_failed_goes_on_in_the_next_run(hub: FakeHub) -> None:
    hub.faults["model.safetensors"] += [cut_after(2_000_000), *[status(500)] * 50]
    with pytest.raises(HubUnavailable, match="kept"):
        pull(REF)
    kept = [path.stat().st_size for path in leftovers()]
    assert len(kept) == 1
    assert kept[0] >= 1_000_000
    assert find_local(REF) is None
    hub.faults.clear()
    hub.requests.clear()
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS
    assert hub.asked("model.safetensors")[0].headers["range"] == f"bytes={kept[0]}-"
    assert len(hub.asked("/resolve/")) == 1


def test_broken_connections_without_end_are_not_retried_without_end(hub: FakeHub) -> None:
    hub.faults["model.safetensors"] += [lambda answer: answer.send(cut=10)] * 500
    with pytest.raises(HubUnavailable):
        pull(REF)
    assert len(hub.asked("model.safetensors")) == 5


# Answers that lie


@pytest.mark.parametrize("lie", [ignore_range, wrong_place, status(416), status(206)])
def test_a_wrong_answer_to_a_range_starts_the_file_again(hub: FakeHub, lie) -> None:
    # a flip on top uses up the one clean start that wrong contents get: the lie must not have cost it
    hub.faults["model.safetensors"] += [cut_after(1_500_000), lie, flip(5)]
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS


def test_a_flipped_byte_is_found_and_fetched_again(hub: FakeHub) -> None:
    hub.faults["model.safetensors"].append(flip(12345))
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("lie", [flip(0), flip(-1), too_long])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_contents_that_stay_wrong_are_refused(hub: FakeHub, name: str, lie) -> None:
    hub.faults[name] += [lie] * 50
    with pytest.raises(ModelCorrupt, match=name) as caught:
        pull(REF)
    assert caught.value.kind == "integrity_failed"
    assert caught.value.file == name
    assert find_local(REF) is None
    assert leftovers() == []
    assert len(hub.asked(name)) == 2


def test_a_short_body_is_completed(hub: FakeHub) -> None:
    hub.faults["model.safetensors"].append(short)
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS


def test_a_part_with_foreign_bytes_is_started_again(hub: FakeHub) -> None:
    hub.faults["model.safetensors"] += [cut_after(2_000_000), *[status(500)] * 50]
    with pytest.raises(HubUnavailable):
        pull(REF)
    part = leftovers()[0]
    part.write_bytes(b"x" * part.stat().st_size)
    hub.faults.clear()
    assert contents(pull(REF))["model.safetensors"] == WEIGHTS


def test_a_web_page_in_place_of_a_file_is_refused(hub: FakeHub) -> None:
    hub.faults["config.json"].append(web_page)
    with pytest.raises(ModelCorrupt, match="web page") as caught:
        pull(REF)
    assert caught.value.kind == "integrity_failed"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>", b"", b"[]", b"null", b"{}", b'{"sha": 3, "siblings": []}', b"[" * 100_000,
        b'{"sha": "' + b"a" * 40 + b'"}', b'{"sha": "../..", "siblings": []}', b"\xff\xfe",
        b'{"sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": 3}]}',
        b'{"sha": "' + b"a" * 40 + b'", "siblings": [3]}',
    ],
)  # fmt: skip
def test_a_description_that_is_none_is_a_typed_error(hub: FakeHub, body: bytes) -> None:
    hub.faults["api"].append(status(200, body=body))
    with pytest.raises(HubUnavailable, match="not a model hub"):
        pull(REF)


def test_a_description_without_end_is_cut_off(hub: FakeHub) -> None:
    hub.faults["api"].append(status(200, body=b" " * (9 << 20)))
    with pytest.raises(HubUnavailable, match="larger than 8 MB"):
        pull(REF)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_hub_that_lists_no_digests_is_asked_for_them(hub: FakeHub, name: str) -> None:
    hub.add(REF, FILES, with_digests=False)
    assert contents(pull(REF)) == {name: FILES[name] for name in NEEDED}
    assert {request.method for request in hub.asked(name)} == {"HEAD", "GET"}
    shutil.rmtree(cache_folder())
    hub.faults[name] += [lambda answer: None, *[flip(3)] * 9]  # the first request is HEAD
    with pytest.raises(ModelCorrupt):
        pull(REF)


# Redirects and the token


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running_hub() as other:
        other.add(REF, FILES)
        hub.faults["model.safetensors"].append(redirect(f"{other.url}/plain/{REF}/model.safetensors"))
        hub.faults["config.json"].append(
            redirect(f"//{other.url.removeprefix('http://')}/plain/{REF}/config.json")
        )
        assert contents(pull(REF))["model.safetensors"] == WEIGHTS
        assert len(other.requests) == 2
        assert not any({"authorization", "cookie"} & request.headers.keys() for request in other.requests)
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_secret"}


def test_a_renamed_model_is_followed(hub: FakeHub) -> None:
    hub.faults["api"].append(redirect(f"/api/models/{REF}/revision/main?blobs=true"))
    assert contents(pull(REF))["config.json"] == FILES["config.json"]


def test_redirects_in_circles_end(hub: FakeHub) -> None:
    hub.faults["api"] += [redirect(f"/api/models/{REF}/revision/main")] * 99
    with pytest.raises(HubUnavailable, match="circles"):
        pull(REF)


def test_without_a_token_none_is_sent_even_if_one_lies_on_the_disk(hub: FakeHub, isolated_home: Path) -> None:
    token = Path(os.environ["HF_HOME"]) / "token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_saved")
    pull(REF)
    assert not any("authorization" in request.headers for request in hub.requests)


@pytest.mark.parametrize(
    ("name", "value"), [("HF_TOKEN", "two words"), ("HF_TOKEN", "a\u00e9"), ("HF_ENDPOINT", "hub.local")]
)
def test_settings_that_cannot_be_used_are_named_and_secrets_not_shown(
    hub, monkeypatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        pull(REF)
    assert value not in str(caught.value)


# Being offline


def measured(action) -> tuple[float, HubUnavailable]:
    began = time.monotonic()
    with pytest.raises(HubUnavailable) as caught:
        action()
    return time.monotonic() - began, caught.value


def test_a_closed_port_fails_at_once(monkeypatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        seconds, error = measured(lambda: pull(REF))
    assert seconds < 1
    assert "--model starter" in error.hint


def test_an_address_that_swallows_packets_costs_three_seconds(monkeypatch) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # one connection fits; the kernel drops what comes after
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{full.getsockname()[1]}")
        seconds, _ = measured(lambda: pull(REF))
    assert seconds < OFFLINE_AFTER_S + 0.5


def test_a_name_server_that_never_answers_costs_three_seconds(monkeypatch) -> None:
    released = threading.Event()

    def lookup(*_: object, **__: object) -> list[object]:
        released.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    seconds, _ = measured(lambda: pull(REF))
    released.set()
    assert seconds < OFFLINE_AFTER_S + 0.5


def test_an_unknown_host_is_unreachable(monkeypatch) -> None:
    def lookup(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    seconds, error = measured(lambda: pull(REF))
    assert seconds < 1
    assert "not known" in error.message


def test_a_hub_that_connects_and_is_silent_costs_what_the_caller_allows(hub: FakeHub) -> None:
    hub.faults["api"].append(hang)
    seconds, _ = measured(lambda: pull(REF, answer_within_s=0.5))
    assert seconds < 1.5


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_environment_switches_the_hub_off(hub: FakeHub, monkeypatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(HubUnavailable, match="switched off"):
        pull(REF)
    assert hub.requests == []


def test_the_probe_goes_to_the_proxy_when_there_is_one(monkeypatch) -> None:
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen(8)
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")

        def answer() -> None:
            for reply in (b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"):
                connection, _ = proxy.accept()
                with connection:
                    if reply:
                        connection.recv(65536)
                        connection.sendall(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(ModelNotFound):
            pull(REF)
        thread.join(5)


# The disk


def test_a_full_disk_is_found_before_the_download(hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(StorageError, match=r"needs 3\.1 MB, but only 0\.0 MB"):
        pull(REF)
    assert hub.asked("/resolve/") == []


def test_a_disk_that_fills_up_is_a_storage_error_and_the_part_stays(hub: FakeHub, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        pull(REF)
    assert len(leftovers()) == 1


def test_a_cache_that_cannot_be_written_is_a_storage_error(hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError):
        pull(REF)


def test_a_file_system_without_links_takes_the_files(hub: FakeHub, monkeypatch) -> None:
    def refuse(self: Path, target: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = pull(REF)
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    assert find_local(REF) == folder


# Several at once


def test_many_pulls_at_once_download_once(hub: FakeHub) -> None:
    folders: list[Path] = []
    hub.faults["model.safetensors"].append(lambda answer: time.sleep(0.3))
    threads = [threading.Thread(target=lambda: folders.append(pull(REF))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(folders) == 5
    assert len(set(folders)) == 1
    assert len(hub.asked("model.safetensors")) == 1


@pytest.mark.parametrize("ref", ["starter", "./somewhere/else"])
def test_only_hub_names_are_pulled(hub: FakeHub, ref: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somewhere" / "else").mkdir(parents=True)
    with pytest.raises(InvalidRequest):
        pull(ref)
    assert hub.requests == []


def test_a_proxy_that_cannot_be_used_means_the_hub_is_out_of_reach(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(HubUnavailable):
        pull(REF)
