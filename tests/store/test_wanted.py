"""What people may write after `pull`, and what must not choose another machine."""

from __future__ import annotations

import socket

import pytest

from llm_local.errors import InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.store.wanted import parse_wanted

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("text", "ref", "revision", "gguf"),
    [
        ("org/name", "org/name", None, ""),
        ("gpt2", "gpt2", None, ""),
        ("llama3-1b", "meta-llama/Llama-3.2-1B-Instruct", None, ""),
        ("org/name@v1.0", "org/name", "v1.0", ""),
        ("hf.co/org/name", "org/name", None, ""),
        ("hf.co/gpt2", "gpt2", None, ""),
        ("huggingface.co/org/name@v2", "org/name", "v2", ""),
        ("https://hf.co/org/name", "org/name", None, ""),
        ("https://huggingface.co/org/name/", "org/name", None, ""),
        ("HTTPS://HuggingFace.co/org/name?library=transformers#use", "org/name", None, ""),
        ("https://huggingface.co/org/name/tree/v3", "org/name", "v3", ""),
        ("https://huggingface.co/gpt2/tree/main", "gpt2", "main", ""),
        ("https://huggingface.co/org/name/blob/main/a-q4.gguf", "org/name", "main", "a-q4.gguf"),
        (
            "https://huggingface.co/org/name/resolve/main/sub/a.gguf?download=true",
            "org/name",
            "main",
            "sub/a.gguf",
        ),
        ("org/name:Q4_K_M", "org/name", None, "Q4_K_M"),
        ("org/name:model.Q4_K_M.gguf", "org/name", None, "model.Q4_K_M.gguf"),
        ("org/name@main:sub/model.gguf", "org/name", "main", "sub/model.gguf"),
        ("hf.co/org/name:UD-Q4_K_XL", "org/name", None, "UD-Q4_K_XL"),
    ],
)
def test_names_and_addresses(text: str, ref: str, revision: str | None, gguf: str) -> None:
    wanted = parse_wanted(text, HUB)
    assert (wanted.name.ref, wanted.name.revision, wanted.gguf) == (ref, revision, gguf)
    assert parse_wanted(wanted.text, HUB) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/org/name", "http://127.0.0.1:1/org/name", "evil.example/org/name",
        "https://huggingface.co.evil.example/org/name", "https://huggingface.co@evil.example/org/name",
        "https://evil.example#@huggingface.co/org/name", "ftp://huggingface.co/org/name", "file:///etc/passwd",
        "localhost:8080/org/name", "https://huggingface.co:444/org/name", "https://xn--hggingface-93b.co/org/name",
        "registry.example:5000/org/name", "https:///org/name",
    ],
)  # fmt: skip
def test_another_machine_is_refused_and_not_asked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(InvalidRequest) as caught:
        parse_wanted(text, HUB)
    assert "alone" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "", "org/name:", "org/name:../x.txt", "org/name:x.bin", "org/name:a b", "../x", "a/b/c", "org/..", "org/na%6de",
        "https://huggingface.co/", "hf.co/", "https://huggingface.co/../../etc", "org/name@", "org/name@../x", "a\x00b",
        "https://huggingface.co/datasets/org/name", "org/name:" + "Q" * 100, "starter",
    ],
)  # fmt: skip
def test_what_no_model_is_called(text: str) -> None:
    with pytest.raises(LocalLLMError):
        parse_wanted(text, HUB)


def test_the_address_of_a_mirror_in_use_is_understood() -> None:
    for endpoint in ("http://127.0.0.1:8080", "https://mirror.example/hub"):
        assert parse_wanted(f"{endpoint}/org/name", endpoint).name.ref == "org/name"
    with pytest.raises(InvalidRequest):
        parse_wanted("https://mirror.example/org/name", HUB)


def test_two_revisions_are_one_too_many() -> None:
    assert parse_wanted("org/name", HUB, "v1").name.revision == "v1"
    assert parse_wanted("org/name@v1", HUB, "v1").name.revision == "v1"
    for text in ("org/name@v2", "https://huggingface.co/org/name/tree/v2"):
        with pytest.raises(InvalidRequest, match="Two revisions"):
            parse_wanted(text, HUB, "v1")


def test_a_directory_is_not_fetched(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for text in ("here", "./here"):
        with pytest.raises(InvalidRequest, match="not a model on the hub"):
            parse_wanted(text, HUB)
    with pytest.raises(ModelNotFound):
        parse_wanted("./gone", HUB)
