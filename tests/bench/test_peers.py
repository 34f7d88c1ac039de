"""Programs that are compared with us: how they are asked, how they fail, and what is written for them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from llm_local.bench.machine import ReadProbe, peak_rss_bytes
from llm_local.bench.peers.files import cache_folder
from llm_local.bench.peers.opening import PeerName, Peers, parse_peer
from llm_local.bench.peers.process import HelperProcess, MissingPackage
from llm_local.bench.peers.serving import reply_to
from llm_local.bench.peers.vocabulary import byte_vocabulary, tokenizer_files
from llm_local.bench.runners import PeerRunner
from llm_local.errors import EngineError, InvalidRequest, StorageError
from llm_local.specs import ModelInfo

FAKE = """
import os, sys
def answer(asked):
    do = asked["do"]
    if do == "open":
        print("chatter of a library")
        return {"weight_bytes": 7, "kv_bytes_per_token": 1}
    if do == "generate":
        return {"tokens_s": [0.5 * (n + 1) for n in range(asked["new_tokens"])],
                "token_ids": [prompt[:1] for prompt in asked["prompts"]]}
    if do == "fail":
        raise ValueError("no such thing")
    if do == "import":
        import there_is_no_such_package
    if do == "crash":
        os.kill(os.getpid(), 11)
    if do == "die":
        print("first line", file=sys.stderr)
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)
"""


@pytest.fixture
def peer(tmp_path: Path):
    (tmp_path / "fake_driver.py").write_text(FAKE)
    process = HelperProcess(sys.executable, "fake_driver", {"PYTHONPATH": str(tmp_path)})
    yield process
    process.close()


def test_a_peer_is_opened_and_tells_when_its_tokens_came(peer: HelperProcess) -> None:
    runner = PeerRunner("fake", peer, peer.ask(do="open"))
    times = runner.run([(1, 2), (3, 4)], 3)
    assert times.submitted_s == (0.0, 0.0)
    assert times.tokens_s == ((0.5, 1.0, 1.5), (0.5, 1.0, 1.5))
    assert runner.facts["weight_bytes"] == 7
    assert runner.peak_rss_bytes() > 1 << 20


def test_a_failure_is_an_answer_and_the_peer_goes_on(peer: HelperProcess) -> None:
    with pytest.raises(EngineError, match="fake_driver failed: ValueError: no such thing"):
        peer.ask(do="fail")
    with pytest.raises(MissingPackage, match="there_is_no_such_package") as caught:
        peer.ask(do="import")
    assert sys.executable in caught.value.message
    assert peer.ask(do="open")["weight_bytes"] == 7


def test_a_peer_that_dies_is_named_with_its_last_words(peer: HelperProcess) -> None:
    for _ in range(2):  # the second time it is gone already
        with pytest.raises(EngineError, match="fake_driver ended with status 3: out of luck"):
            peer.ask(do="die")


def test_a_peer_that_crashes_is_told_by_the_signal(peer: HelperProcess) -> None:
    with pytest.raises(EngineError, match="fake_driver ended with SIGSEGV: "):
        peer.ask(do="crash")


def test_a_peer_that_babbles_is_refused(tmp_path: Path) -> None:
    process = HelperProcess(interpreter(tmp_path, "echo hello; cat >/dev/null"), "fake_driver")
    try:
        with pytest.raises(EngineError, match=r"fake_driver answered b'hello.n', which is not JSON"):
            process.ask(do="open")
    finally:
        process.close()


def interpreter(folder: Path, command: str) -> str:
    """A program that can stand where a Python is expected."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match="/nowhere/python cannot be started: No such file"):
        HelperProcess("/nowhere/python", "fake_driver")


def test_close_ends_the_process(peer: HelperProcess) -> None:
    peer.ask(do="open")
    peer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


def test_replies_say_what_went_wrong() -> None:
    def broken(asked):
        raise KeyError("threads")

    assert reply_to(broken, {}) == {"error": "KeyError: 'threads'"}


# --- names ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("transformers", PeerName("transformers")),
        ("transformers:continuous", PeerName("transformers", "continuous")),
        ("llama.cpp", PeerName("llama.cpp")),
        ("llama.cpp:Q4_K_M", PeerName("llama.cpp", "Q4_K_M")),
    ],
)
def test_names_of_peers(text: str, expected: PeerName) -> None:
    assert parse_peer(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vllm",
        "llama.cpp:Q4",
        "transformers:Q4_0",
        "transformers:continuous:",
        "llama.cpp:q4_0",
        "llama.cpp:continuous",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_peer(text)
    assert caught.value.param == "against"


@pytest.mark.parametrize(
    ("dtype", "quantization", "shown"),
    [
        ("float32", "int4", "llama.cpp Q4_0"),
        ("float32", "int8", "llama.cpp Q8_0"),
        ("bfloat16", "none", "llama.cpp BF16"),
        ("float32", "none", "llama.cpp F32"),
    ],
)
def test_the_format_nearest_to_ours(dtype: str, quantization, shown: str) -> None:
    info = ModelInfo("tiny", "", "x", 1, 1, dtype, "cpu", 1, 1, False, quantization)
    assert parse_peer("llama.cpp").shown(info) == shown
    assert parse_peer("llama.cpp:Q6_K").shown(info) == "llama.cpp Q6_K"
    assert parse_peer("transformers").shown(info) == "transformers"
    assert parse_peer("transformers:continuous").shown(info) == "transformers:continuous"


def test_an_interpreter_without_llama_cpp_is_told_how_to_get_it(tmp_path: Path) -> None:
    python = interpreter(tmp_path, f'exec {sys.executable} -S "$@"')  # without what is installed
    with pytest.raises(InvalidRequest) as caught:
        Peers((PeerName("llama.cpp"),), python).check()
    assert caught.value.param == "against"
    assert f"{python} -m pip install --no-binary llama-cpp-python" in caught.value.hint
    assert "--peer-python" in caught.value.hint
    Peers((PeerName("transformers"),), python).check()  # needs nothing of it


# --- what is written for them ---


@pytest.mark.parametrize("size", [3, 256, 300, 70_000])
def test_the_vocabulary_has_the_size_and_no_token_twice(size: int) -> None:
    tokens, merges = byte_vocabulary(size)
    assert len(tokens) == len(set(tokens)) == size
    assert len(merges) == max(0, size - 256)
    known = set(tokens)
    assert all(token.isascii() for token in tokens[256:])
    for token, merge in zip(tokens[256:], merges, strict=True):
        left, right = merge.split(" ")
        assert left + right == token and {left, right} <= known


def test_the_tokenizer_reads_any_text() -> None:
    files = tokenizer_files(1000)
    tokenizer = Tokenizer.from_str(files["tokenizer.json"])
    text = "How soon? Grüße, 你好\n"
    assert tokenizer.get_vocab_size() == 1000
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert json.loads(files["tokenizer_config.json"])


def test_the_cache_lies_in_our_home(tmp_path: Path) -> None:
    assert cache_folder({"LLM_LOCAL_HOME": str(tmp_path / "x")}) == tmp_path / "x" / "bench"
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "llm-local" / "bench"
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        cache_folder({"LLM_LOCAL_HOME": str(tmp_path / "file")})


# --- the machine ---


def test_the_probe_reads_memory_in_a_process_of_its_own() -> None:
    probe = ReadProbe(2)
    try:
        before = peak_rss_bytes()
        assert probe.bytes_per_s() > 1e6
        assert peak_rss_bytes() - before < 100 << 20
    finally:
        probe.close()
