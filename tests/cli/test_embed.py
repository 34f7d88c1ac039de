"""`llm-local embed` as a person, a pipe and a script meet it."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_local.cli import embed_input
from llm_local.cli.main import main
from llm_local.embedder import TextEmbedder
from llm_local.specs import ModelSpec
from tiny_embedders import PLACES, SIZE, TEXTS, declare, save_embedder, write_json

COMMAND = [sys.executable, "-m", "llm_local.cli.main", "embed"]
LONG = " ".join(["world"] * 100)

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that says it wants the mean, normalized."""
    return declare(save_embedder(tmp_path / "model"), {"pooling_mode": "mean"}, "Normalize")


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], None]:
    """Give the verb a text on its standard input."""

    def pipe(text: str | bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, text.encode() if isinstance(text, str) else text)
        os.close(writer)
        monkeypatch.setattr(embed_input, "STDIN", reader)

    pipe("")
    return pipe


def run(folder: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """One command line in a process of its own, in the temporary home."""
    return subprocess.run(
        [*COMMAND, "-m", str(folder), "--device", "cpu", *words],
        input=data, capture_output=True, check=False, timeout=120, cwd=os.environ["HOME"],
    )  # fmt: skip


def embed(folder: Path, *words: str) -> int:
    """One command line in this process."""
    return main(["embed", "-m", str(folder), "--device", "cpu", *words])


def expected(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    """What the embedder itself says."""
    return TextEmbedder.load(ModelSpec(str(folder), device="cpu")).embed(texts, **options).vectors


def vectors(lines: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in lines.splitlines()], dtype=np.float32)


def test_lines_become_json_lines_in_order(folder: Path) -> None:
    done = run(folder, data="\n".join(TEXTS).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    wanted = TextEmbedder.load(ModelSpec(str(folder), device="cpu")).embed(TEXTS)
    assert [(one["index"], one["line"]) for one in found] == [(n, n + 1) for n in range(len(TEXTS))]
    assert [one["prompt_tokens"] for one in found] == list(wanted.token_counts)
    assert np.array_equal(vectors(done.stdout.decode()), wanted.vectors)  # no digit is lost


def test_a_numpy_file_in_a_pipe(folder: Path) -> None:
    done = run(folder, "--format", "npy", data="\n".join(TEXTS).encode() + b"\n")
    assert (done.returncode, done.stderr) == (0, b"")
    found = np.load(io.BytesIO(done.stdout))
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), SIZE))
    assert np.array_equal(found, expected(folder, list(TEXTS)))


def test_arguments_are_texts_and_json_has_everything(folder: Path, piped: Any, capfd: Output) -> None:
    piped("not read")
    assert embed(folder, "Hello world", "a", "--json", "--dimensions", "8") == 0
    shown = json.loads(capfd.readouterr().out)
    assert np.array_equal(
        np.array([one["embedding"] for one in shown["data"]], dtype=np.float32),
        expected(folder, ["Hello world", "a"], dimensions=8),
    )
    assert shown["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (shown["model"], shown["dimensions"]) == (str(folder), 8)
    assert (shown["pooling"], shown["normalized"], shown["prompt"]) == ("mean", True, "")
    assert (shown["truncated"], shown["skipped"], shown["notices"]) == ([], [], [])
    assert all("line" not in one and "id" not in one for one in shown["data"])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(folder: Path, piped: Any, capfd: Output, ending: str, last: bool) -> None:
    # U+2028 and form feed are characters of a text, not line ends
    piped(ending.join(["Hello\u2028world", "a\fb"]) + (ending if last else ""))
    assert embed(folder) == 0
    assert np.array_equal(vectors(capfd.readouterr().out), expected(folder, ["Hello\u2028world", "a\fb"]))


def test_texts_that_end_in_nul_may_have_lines(folder: Path, piped: Any, capfd: Output) -> None:
    piped("Hello\nworld\0a\0")
    assert embed(folder, "-", "-0") == 0
    shown = capfd.readouterr()
    assert np.array_equal(vectors(shown.out), expected(folder, ["Hello\nworld", "a"]))
    assert shown.err == ""


def test_json_lines_bring_their_ids_back(folder: Path, piped: Any, capfd: Output) -> None:
    piped('{"id": "x", "text": "Hello\\nworld"}\n\n{"text": "a", "id": 7}\n{"text": "the"}\n')
    assert embed(folder, "--json-lines") == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(one["index"], one["line"], one.get("id")) for one in found] == [
        (0, 1, "x"),
        (1, 3, 7),
        (2, 4, None),
    ]
    wanted = expected(folder, ["Hello\nworld", "a", "the"])
    assert np.array_equal(np.array([one["embedding"] for one in found], dtype=np.float32), wanted)


def test_empty_texts_are_an_error_or_left_out_aloud(folder: Path, piped: Any, capfd: Output) -> None:
    piped("Hello\n\n  \na\n")
    assert embed(folder) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Line 2 is empty, and an empty text has no embedding. So are 1 more." in shown.err
    piped("Hello\n\n  \na\n")
    assert embed(folder, "--skip-empty") == 0
    shown = capfd.readouterr()
    assert [json.loads(line)["line"] for line in shown.out.splitlines()] == [1, 4]
    assert "2 empty texts left out (number 2, 3)" in shown.err


def test_long_texts_are_an_error_or_cut_aloud(folder: Path, piped: Any, capfd: Output) -> None:
    piped(f"a\n{LONG}\n")
    assert embed(folder) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert f"Line 2 has 102 tokens, but the model takes {PLACES}." in shown.err
    piped(f"a\n{LONG}\n")
    assert embed(folder, "--truncate") == 0
    shown = capfd.readouterr()
    found = [json.loads(line) for line in shown.out.splitlines()]
    left_out = 102 - PLACES
    assert [one["truncated_tokens"] for one in found] == [0, left_out]
    assert found[1]["prompt_tokens"] == PLACES
    assert (
        f"The end of 1 text was left out, {left_out} tokens in all: Line 2 ({left_out} tokens)" in shown.err
    )
    piped(f"a\n{LONG}\n")
    assert embed(folder, "--truncate", "--json") == 0
    assert json.loads(capfd.readouterr().out)["truncated"] == [1]


def test_prompts(folder: Path, piped: Any, capfd: Output) -> None:
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "the user: ", "document": ""}, "default_prompt_name": "query"},
    )
    assert embed(folder, "a dog") == 0
    shown = capfd.readouterr()
    wanted = expected(folder, ["a dog"], prompt_name="query")
    assert np.array_equal(vectors(shown.out), wanted)
    assert "the model's default prompt 'query' in front: 'the user: '" in shown.err
    for words in (["--prompt-name", "query"], ["--prompt", "the user: "]):
        assert embed(folder, "a dog", *words) == 0
        shown = capfd.readouterr()
        assert np.array_equal(vectors(shown.out), wanted)
        assert shown.err == ""
    for words in (["--prompt-name", "document"], ["--prompt", ""]):
        assert embed(folder, "a dog", *words) == 0
        assert np.array_equal(vectors(capfd.readouterr().out), expected(folder, ["a dog"], prompt=""))


def test_pooling_and_length_can_be_chosen(folder: Path, piped: Any, capfd: Output) -> None:
    assert embed(folder, "a dog", "--pooling", "cls", "--no-normalize", "-v") == 0
    shown = capfd.readouterr()
    embedder = TextEmbedder.load(ModelSpec(str(folder), device="cpu"), pooling="cls", normalize=False)
    assert np.array_equal(vectors(shown.out), embedder.embed(["a dog"]).vectors)
    assert f"vectors: 1 of {SIZE} numbers, pooling cls, not normalized" in shown.err
    assert "tok/s" in shown.err


def test_what_the_repository_does_not_say_is_said(tmp_path: Path, piped: Any, capfd: Output) -> None:
    silent = save_embedder(tmp_path, "qwen3")
    capfd.readouterr()
    assert embed(silent, "a") == 0
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "the last token, since it is a decoder, normalized to length 1. --pooling" in told


def test_a_batch_budget_changes_no_vector(folder: Path, piped: Any, capfd: Output) -> None:
    piped("\n".join(TEXTS * 3))
    assert embed(folder, "--batch-tokens", "1") == 0
    one_by_one = vectors(capfd.readouterr().out)
    assert np.abs(one_by_one - expected(folder, list(TEXTS) * 3)).max() < 1e-5


def test_bytes_that_are_no_text_are_told(folder: Path, piped: Any, capfd: Output) -> None:
    piped(b"Hello \xff world\n")
    assert embed(folder) == 0
    shown = capfd.readouterr()
    assert "stdin contains bytes that are not UTF-8 (replaced by U+FFFD)" in shown.err
    assert np.array_equal(vectors(shown.out), expected(folder, ["Hello \ufffd world"]))


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("", [], "Standard input is empty, so there is no text to embed."),
        ("", ["-0"], "Standard input is empty"),
        ("\n\n", ["--skip-empty"], "Every text is empty, so there is nothing to embed."),
        ("", ["a", ""], "Text 2 is empty"),
        ("", ["a", "-"], "Texts are given and - asks for standard input."),
        ("", ["a", "-0"], "--null is for standard input, but texts are given."),
        ("", ["a", "--json-lines"], "--json-lines is for standard input"),
        ("x", ["--json", "--format", "npy"], "--json and --format npy exclude each other."),
        ("x", ["--prompt", "a", "--prompt-name", "b"], "not allowed with"),
        ("x", ["--dimensions", "0"], "--dimensions is '0', but must be an integer from 1"),
        ("x", ["--dimensions", str(SIZE + 1)], f"but the model's have {SIZE}."),
        ("x", ["--prompt-name", "query"], "There is no prompt 'query': the model has none."),
        ("x", ["--pooling", "median"], "nvalid choice: 'median'"),
        ("x", ["--context-length", "1000"], f"has places for {PLACES}"),
        ('{"text": "a"', ["--json-lines"], "Line 1: The line is not JSON"),
        ('{"text": "a"}\n{"txt": "a"}', ["--json-lines"], "Line 2 has the field 'txt'"),
        ('{"id": 1}', ["--json-lines"], "Line 1 has no text."),
        ('{"id": 1.5, "text": "a"}', ["--json-lines"], "neither text nor an integer"),
        ('{"text": "\\ud800"}', ["--json-lines"], "Line 1 is not valid Unicode"),
        ("x", ["--output", "."], "--output . is a directory."),
        ("x", ["--output", "none/x"], "lies in no directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    folder: Path, piped: Any, capfd: Output, data: str, words: list[str], message: str
) -> None:
    piped(data)
    assert embed(folder, *words) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("error: ") == 1


def test_an_output_file(folder: Path, tmp_path: Path, piped: Any, capfd: Output) -> None:
    for form, read in (
        ("jsonl", lambda path: vectors(path.read_text())),
        ("npy", np.load),
        ("json", lambda path: vectors("\n".join(map(json.dumps, json.loads(path.read_text())["data"])))),
    ):
        place = tmp_path / f"vectors.{form}"
        place.write_text("old")
        piped("\n".join(TEXTS))
        assert embed(folder, "--format", form, "--output", str(place)) == 0
        assert capfd.readouterr().out == ""
        found = read(place)
        assert np.array_equal(np.asarray(found, dtype=np.float32), expected(folder, list(TEXTS)))
    assert sorted(path.name for path in tmp_path.glob("*vectors*")) == [
        "vectors.json",
        "vectors.jsonl",
        "vectors.npy",
    ]


def test_a_device_is_written_to_and_never_replaced(folder: Path, tmp_path: Path, piped: Any) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert embed(folder, "a", "--format", "npy", "--output", str(pipe)) == 0
    data, _ = reader.communicate(timeout=30)
    assert np.load(io.BytesIO(data)).shape == (1, SIZE)
    assert pipe.is_fifo()


def test_the_input_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "texts"
    place.write_text("Hello\n")
    with place.open("rb") as stdin:
        done = subprocess.run(
            [*COMMAND, "-m", str(folder), "--output", str(place)],
            stdin=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, place.read_text()) == (2, "Hello\n")
    assert "is the input" in done.stderr


def test_a_full_disk_leaves_no_half_file(folder: Path, piped: Any, capfd: Output) -> None:
    assert embed(folder, "a", "--output", "/dev/full") == 6
    assert "Cannot write /dev/full: No space left on device." in capfd.readouterr().err


def test_a_reader_that_has_enough_ends_the_run(folder: Path) -> None:
    line = " ".join([*COMMAND, "-m", str(folder), "--batch-tokens", "8"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; yes 'Hello world' | head -3000 | {line} | head -1; exit ${{PIPESTATUS[2]}}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 141
    assert json.loads(done.stdout)["index"] == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("form", "number", "code"), [("jsonl", signal.SIGINT, 130), ("npy", signal.SIGTERM, 143)]
)
def test_a_signal_leaves_what_is_done(
    folder: Path, tmp_path: Path, number: int, code: int, form: str
) -> None:
    place, texts = tmp_path / "out", tmp_path / "texts"
    texts.write_text("the quick brown fox\n" * 20_000)
    words = ["-m", str(folder), "--batch-tokens", "64", "--format", form, "--output", str(place)]
    with texts.open("rb") as stdin:
        process = subprocess.Popen(
            [*COMMAND, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        deadline = time.monotonic() + 90
        while not any(
            path.stat().st_size > 20_000 for path in [*tmp_path.glob("out"), *tmp_path.glob(".out.*")]
        ):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (code, "")
    assert err.count("interrupted" if code == 130 else "terminated") == 1
    if form == "npy":
        assert list(tmp_path.glob("*out*")) == []
        assert "the output is not whole" in err
        return
    data = place.read_text()
    assert data.endswith("\n")
    found = [json.loads(line)["index"] for line in data.splitlines()]
    assert found == list(range(len(found)))
    assert 0 < len(found) < 20_000


def test_a_terminal_gets_no_npy_and_no_waiting(folder: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        for words, message in ((["a", "--format", "npy"], "stdout is a terminal"), ([], "No text given")):
            done = subprocess.run(
                [*COMMAND, "-m", str(folder), *words],
                stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert done.returncode == 2
            assert message in done.stderr
    finally:
        os.close(controller)
        os.close(terminal)


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from llm_local.cli.main import main; code = main(['embed', '--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'tokenizers'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--prompt-name" in done.stdout


def test_every_flag_is_documented() -> None:
    import re

    page = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text(encoding="utf-8")
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=60)
    own = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", done.stdout)) - {
        "--model", "--dtype", "--device", "--offline", "--debug", "--help",
    }  # fmt: skip
    assert {"--truncate", "--json-lines", "--dimensions"} <= own
    assert [flag for flag in sorted(own) if not re.search(rf"{flag}(?![\w-])", page)] == []


def test_the_default_model_may_be_embedded_with(piped: Any, capfd: Output) -> None:
    assert main(["embed", "-m", "starter", "Hello", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["model"], shown["pooling"]) == ("starter", "last")
    assert "starter does not say how" in shown["notices"][0]


def test_a_setting_that_has_no_part_in_it_is_told(
    folder: Path, piped: Any, capfd: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTIZATION", "int8")
    assert embed(folder, "a dog") == 0
    shown = capfd.readouterr()
    assert "QUANTIZATION (from environment) is not used" in shown.err
    assert np.array_equal(vectors(shown.out), expected(folder, ["a dog"]))
