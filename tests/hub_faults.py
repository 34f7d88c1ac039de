"""What a model hub, a network and a disk can do to a pull, each with how it must end. The page docs/downloads.md has
the same rows."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fakehub import (
    EVIL_NAMES,
    FakeHub,
    cut_after,
    drip,
    flip,
    hang,
    ignore_range,
    redirect,
    reset_after,
    short,
    status,
    too_long,
    web_page,
    wrong_place,
    zipped,
)

REF = "org/model"


def weights(*shape: int) -> bytes:
    """A file in the format of the weights, with one tensor."""
    num_bytes = 4 * math.prod(shape)
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": entry}).encode()
    data = bytes(range(250)) * (num_bytes // 250 + 1)
    return struct.pack("<Q", len(header)) + header + data[:num_bytes]


WEIGHTS = weights(750_000)  # 3 MB
CONFIG = b'{"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}'
FILES = {
    "config.json": CONFIG,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"# hello",
}
NEEDED = {name: data for name, data in FILES.items() if name != "README.md"}
MODEL = "model.safetensors"
CUT = 2_000_000

Arrange = Callable[[FakeHub, Any], None]
"""Prepares the hub; the second one is pytest's monkeypatch."""

WHOLE, ABSENT, KEPT = "whole", "absent", "part kept"


@dataclass(frozen=True)
class Row:
    """One fault. `code` is the exit code, `state` what is on the disk after it.

    `says` is in the error line.
    """

    fault: str
    behavior: str
    code: int
    state: str
    arrange: Arrange
    says: str = ""


def _faults(where: str, *faults: Any) -> Arrange:
    def arrange(hub: FakeHub, monkeypatch: Any) -> None:
        hub.faults[where] += faults

    return arrange


def _on_weights(*faults: Any) -> Arrange:
    """Past the look at the header, which comes before the download."""
    return _faults(MODEL, lambda answer: None, *faults)


def _wrong_token(hub: FakeHub, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrong")
    hub.faults["api"].append(status(401, body=b'{"error": "Invalid credentials in Authorization header"}'))


def _no_such_model(hub: FakeHub, monkeypatch: Any) -> None:
    hub.repos["org/modem"] = hub.repos.pop(REF)


def _other_revision(hub: FakeHub, monkeypatch: Any) -> None:
    hub.faults["api"].append(status(404, {"X-Error-Code": "RevisionNotFound"}))


def _silent(hub: FakeHub, monkeypatch: Any) -> None:
    import httpx2

    from llm_local.store import hub as door

    monkeypatch.setattr(door, "_TIMEOUT", httpx2.Timeout(0.3))
    hub.faults[MODEL] += [lambda answer: None, hang, hang]


def _nobody(hub: FakeHub, monkeypatch: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")


def _no_name(hub: FakeHub, monkeypatch: Any) -> None:
    def lookup(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")


def _no_tls(hub: FakeHub, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http://", "https://"))


def _changed(hub: FakeHub, monkeypatch: Any) -> None:
    """Other contents under the same name and commit, once a part has come."""

    def change(answer: Any) -> None:
        answer.send(cut=CUT)
        hub.repos[REF].files[MODEL] = WEIGHTS[:-1] + b"!"

    hub.faults[MODEL] += [lambda answer: None, change]


def _dripping(hub: FakeHub, monkeypatch: Any) -> None:
    from llm_local.store import download

    monkeypatch.setattr(download, "_SLOWEST_WINDOW_S", 0.1)
    hub.faults[MODEL] += [lambda answer: None, cut_after(CUT), *[drip] * 9]


def _dripping_header(hub: FakeHub, monkeypatch: Any) -> None:
    from llm_local.store import download

    monkeypatch.setattr(download, "_SLOWEST_WINDOW_S", 0.1)
    hub.faults[MODEL] += [drip] * 9


def _dripping_description(hub: FakeHub, monkeypatch: Any) -> None:
    from llm_local.store import remote

    monkeypatch.setattr(remote, "_READ_WITHIN_S", 0.1)
    hub.faults["api"].append(drip)


def _evil(hub: FakeHub, monkeypatch: Any) -> None:
    hub.repos[REF].extra_names += [
        f"{name}.json" for name in EVIL_NAMES if "/" not in name and "\ud800" not in name
    ]


def _pickle(hub: FakeHub, monkeypatch: Any) -> None:
    files = hub.repos[REF].files
    files["pytorch_model.bin"] = files.pop(MODEL)


def _case_clash(hub: FakeHub, monkeypatch: Any) -> None:
    hub.repos[REF].files["Config.json"] = b"{}"


def _full(hub: FakeHub, monkeypatch: Any) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))


def _disk_says(number: int) -> Arrange:
    def arrange(hub: FakeHub, monkeypatch: Any) -> None:
        from llm_local.store import download

        def refuse(handle: int) -> None:
            if os.fstat(handle).st_size > 1_000_000:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(download.os, "fsync", refuse)

    return arrange


def _no_memory(hub: FakeHub, monkeypatch: Any) -> None:
    from llm_local.cli import fit_check

    monkeypatch.setattr(fit_check, "host_bytes", lambda: 1_000_000)


GATED = {"X-Error-Code": "GatedRepo"}
TABLE = [
    Row("F30", "401, gated, for the description", 4, ABSENT, _faults("api", status(401, GATED)), "is gated"),
    Row(
        "F30",
        "403, gated, for a file",
        4,
        ABSENT,
        _faults("config.json", status(403, GATED)),
        "Accept them at",
    ),
    Row("F30", "401 for a wrong token", 4, ABSENT, _wrong_token, "does not accept your HF_TOKEN"),
    Row("F31", "404 for the model", 3, ABSENT, _no_such_model, "has no model org/model"),
    Row("F31", "404 for the revision", 3, ABSENT, _other_revision, "no revision 'main'"),
    Row(
        "F31",
        "404 for a file that is listed",
        3,
        ABSENT,
        _faults("tokenizer.json", status(404, {"X-Error-Code": "EntryNotFound"})),
        "tokenizer.json",
    ),
    Row(
        "F32",
        "429 with Retry-After, then all is well",
        0,
        WHOLE,
        _on_weights(status(429, {"Retry-After": "7"})),
    ),
    Row("F32", "429 without end", 5, ABSENT, _on_weights(*[status(429)] * 9), "429"),
    Row(
        "F32",
        "503 that asks for an hour",
        5,
        ABSENT,
        _faults("api", status(503, {"Retry-After": "3600"})),
        "3600 s",
    ),
    Row("F32", "500 and 502, then all is well", 0, WHOLE, _on_weights(status(500), status(502))),
    Row(
        "F32",
        "a break, then 500 without end",
        5,
        KEPT,
        _on_weights(cut_after(CUT), *[status(500)] * 9),
        "500",
    ),
    Row("F32", "silence for longer than a read may take, twice", 0, WHOLE, _silent),
    Row("F32", "nobody listens", 5, ABSENT, _nobody, "cannot be reached"),
    Row("F32", "the name of the hub is unknown", 5, ABSENT, _no_name, "not known"),
    Row("F32", "what answers speaks no TLS", 5, ABSENT, _no_tls, "SSL"),
    Row("F32", "a description that comes byte by byte", 5, ABSENT, _dripping_description, "too slowly"),
    Row("F32", "a byte now and then", 5, KEPT, _dripping, "too slowly"),
    Row("F32", "a byte now and then, of a header", 5, ABSENT, _dripping_header, "too slowly"),
    Row(
        "F33", "an end of the connection within a file", 0, WHOLE, _on_weights(cut_after(CUT), cut_after(10))
    ),
    Row(
        "F33",
        "a reset of the connection within a file",
        0,
        WHOLE,
        _on_weights(reset_after(CUT), reset_after(0)),
    ),
    Row("F34", "200 to a Range", 0, WHOLE, _on_weights(cut_after(CUT), ignore_range)),
    Row("F34", "206 with another part of the file", 0, WHOLE, _on_weights(cut_after(CUT), wrong_place)),
    Row("F34", "416 where there is more", 0, WHOLE, _on_weights(cut_after(CUT), status(416))),
    Row("F34", "contents (and ETag) that change after a break", 7, ABSENT, _changed, "arrived damaged"),
    Row("F34", "a body packed with gzip", 0, WHOLE, _on_weights(zipped)),
    Row("F34", "a short body whose length agrees", 0, WHOLE, _on_weights(short)),
    Row(
        "F34",
        "more bytes than promised, each time",
        7,
        ABSENT,
        _on_weights(*[too_long] * 9),
        "arrived damaged",
    ),
    Row("F34", "a flipped byte, once", 0, WHOLE, _on_weights(flip(12345))),
    Row("F34", "a flipped byte, each time", 7, ABSENT, _on_weights(*[flip(12345)] * 9), "arrived damaged"),
    Row("F34", "a login page in place of a file", 7, ABSENT, _on_weights(web_page), "web page"),
    Row(
        "F34",
        "a login page in place of the description",
        5,
        ABSENT,
        _faults("api", web_page),
        "not a model hub",
    ),
    Row(
        "F34", "redirects in circles", 5, ABSENT, _faults("config.json", *[redirect("?again")] * 9), "circles"
    ),
    Row(
        "F34",
        "a description without end",
        5,
        ABSENT,
        _faults("api", status(200, body=b" " * (9 << 20))),
        "larger than",
    ),
    Row("T01", "file names that would leave the folder", 7, ABSENT, _evil, "not safe"),
    Row("T01", "file names that differ only in case", 7, ABSENT, _case_clash, "differ only in case"),
    Row("", "weights only as pickle", 7, ABSENT, _pickle, "pytorch_model.bin"),
    Row("F37", "a full disk, before the download", 6, ABSENT, _full, "are free"),
    Row("F37", "a disk that fills up", 6, KEPT, _disk_says(errno.ENOSPC), "No space left"),
    Row("F38", "an input/output error of the disk", 6, KEPT, _disk_says(errno.EIO), "Input/output"),
    Row("F38", "a disk that is read-only", 6, KEPT, _disk_says(errno.EROFS), "Read-only"),
    Row("F38", "too many open files", 6, KEPT, _disk_says(errno.EMFILE), "Too many open files"),
    Row("F43", "more memory than there is", 6, ABSENT, _no_memory, "does not fit"),
]
