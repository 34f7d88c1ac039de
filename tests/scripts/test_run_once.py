"""`scripts/run_once.py` as people run it: real processes, real models, pipes, terminals and signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.endless_model import write_endless_model

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts" / "run_once.py")
ANYTHING_ODD = re.compile(r"Traceback|Exception|Warning|\x1b")
# Nobody listens there, so the hub is unreachable at once and without a network.
NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: bytes
    err: str

    @property
    def report(self) -> dict:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_endless_model(tmp_path_factory.mktemp("models") / "endless"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other on a busy machine
    for name, value in NO_HUB.items():
        monkeypatch.setenv(name, value)


def run(*words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, shell: str = "") -> Done:
    """Run to the end. `shell` is put after the command, in `sh`: a pipe or a redirection."""
    command = [sys.executable, SCRIPT, *words]
    if shell:
        # the exit code of the first command of the pipe is what counts
        command = ["sh", "-c", f'{{ "$@"; echo "code=$?" >&3; }} 3>&2 {shell}', "sh", *command]
    done = subprocess.run(
        command, input=stdin, capture_output=True, env={**os.environ, **(env or {})}, timeout=120
    )
    err = done.stderr.decode()
    if shell:
        err, _, code = err.rpartition("code=")
        return Done(int(code), done.stdout, err)
    return Done(done.returncode, done.stdout, err)


def start(*words: str, **details: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *words],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **details},
    )


class _NothingHere(BaseHTTPRequestHandler):
    """A hub that knows no model."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def empty_hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _NothingHere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def assert_one_error_line(done: Done, code: int, *parts: str) -> None:
    assert done.code == code, done.err
    assert done.out == b""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err


# --- without a model -------------------------------------------------------------------------------------------


def test_help_and_version_import_nothing_heavy() -> None:
    for flag, begin in (("--help", b"usage: run_once.py"), ("-h", b"usage"), ("--version", b"llm-local 0.")):
        done = run(flag)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(begin)
    watched = f"import sys, runpy; main = runpy.run_path({SCRIPT!r})['main']; main(['--help'])\n"
    watched += "print(*sys.modules, file=sys.stderr)"
    done_names = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done_names.stderr.split()}
    assert "llm_local" in loaded
    assert not loaded & {"torch", "transformers", "pydantic", "huggingface_hub", "numpy", "logging", "dotenv"}


def test_it_runs_from_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-S", SCRIPT, "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_usage_errors_are_one_line_and_2() -> None:
    assert_one_error_line(run(), 2, "No prompt")
    assert_one_error_line(run("--temperature", "99", "hi"), 2, "--temperature", "99", "from 0 to 10")
    assert_one_error_line(run("what", "is", "up"), 2, "quotes")
    assert_one_error_line(run("--raw", "--system-prompt", "x", "hi"), 2, "--raw", "--system-prompt")
    done = run("--json", "--top-k", "-1", "hi")
    assert done.code == 2 and done.report["error"]["kind"] == "invalid_config"
    assert done.err.count("\n") == 1


def test_a_hundred_megabytes_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(100_000_000)
    assert_one_error_line(run("hi", shell=f"< {large}"), 2, "100000000", "16000000")
    done = run("hi", stdin=b"x" * 17_000_000)
    assert_one_error_line(done, 2, "16000000", "more")


def test_a_closed_or_full_stdout_without_a_model() -> None:
    assert_one_error_line(run("hi", shell=">&-"), 1, "stdout is closed")
    assert_one_error_line(run("--help", shell="> /dev/full"), 6, "No space left on device")
    done = run("--help", shell="| true")
    assert done.code in (0, 141) and done.err == ""  # a pipe may take it all before its reader goes


def test_a_name_nobody_has_is_3(empty_hub: str) -> None:
    done = run("--model", "some/model", "hi", env={"HF_ENDPOINT": empty_hub})
    assert_one_error_line(done, 3, "some/model")
    assert_one_error_line(run("--model", "./nowhere", "hi"), 3, "nowhere")


def test_what_is_no_model_has_its_code(tmp_path: Path, endless: str) -> None:
    assert_one_error_line(run("--model", "some/model", "hi"), 5, "127.0.0.1:9")
    assert_one_error_line(run("--model", "some/model", "--offline", "hi"), 5, "some/model")
    (tmp_path / "empty").mkdir()
    assert_one_error_line(run("--model", str(tmp_path / "empty"), "hi"), 3, "empty", "config.json")
    (tmp_path / "empty" / "config.json").write_bytes((Path(endless) / "config.json").read_bytes())
    assert_one_error_line(run("--model", str(tmp_path / "empty"), "hi"), 7, "model.safetensors")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in Path(endless).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_one_error_line(run("--model", str(broken), "hi"), 7, "model.safetensors")
    done = run("--model", str(broken), "--debug", "--json", "hi")
    assert done.code == 7 and done.report["error"]["kind"] == "model_corrupt"
    assert "Traceback" in done.err and done.err.splitlines()[-1].startswith("error: ")


# --- with the starter model ------------------------------------------------------------------------------------


def test_the_first_command_of_the_readme_answers_offline() -> None:
    done = run(stdin=b"What can you do?\n")
    assert done.code == 0, done.err
    answer = done.out.decode()
    assert len(answer.split()) >= 3 and answer.endswith("\n") and not answer.endswith("\n\n")
    assert done.err.count("\n") == 1 and "starter" in done.err
    assert not ANYTHING_ODD.search(answer + done.err)


def test_json_tells_all_and_its_seed_repeats_the_run() -> None:
    words = ["--model", "starter", "--json", "--max-tokens", "24", "--temperature", "2", "Grüße, wie geht's?"]
    first = run(
        *words, "--show-prompt", "--verbose", "-s", "Be brief.", env={"LC_ALL": "C", "PYTHONUTF8": "0"}
    )
    assert first.code == 0, first.err
    report = first.report
    assert report["model"] == "starter"
    assert "Be brief." in report["prompt"] and "Grüße, wie geht's?" in report["prompt"]
    usage = report["usage"]
    assert usage["prompt_tokens"] > 5 and 1 <= usage["completion_tokens"] <= 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert report["timings"]["load_s"] > 0 and report["timings"]["prefill_s"] > 0
    assert f"--- prompt: {usage['prompt_tokens']} tokens ---\n{report['prompt']}" in first.err
    assert f"seed {report['seed']}" in first.err and "first token after" in first.err
    again = run(*words, "-s", "Be brief.", "--seed", str(report["seed"]))
    assert again.report["text"] == report["text"]
    assert again.report["usage"] == usage


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    done = run("--model", "starter", stdin=b"word " * 5000)
    assert_one_error_line(done, 2, "tokens", "context length")
    numbers = [int(number) for number in re.findall(r"\d+", done.err)]
    assert len(numbers) >= 3 and max(numbers) > 5000


# --- with a model that talks until it is stopped ---------------------------------------------------------------

TALK = ("--temperature", "0", "--max-tokens", "90000", "hi")


def test_raw_is_the_bare_prompt_and_length_is_told(endless: str) -> None:
    done = run("--model", endless, "--raw", "--show-prompt", "--max-tokens", "8", stdin=b"bare\xff\n")
    assert done.code == 0, done.err
    assert "--- prompt: 8 tokens ---\nbare\ufffd\n--- end" in done.err  # 4 letters, 3 bytes, the newline
    assert "U+FFFD" in done.err and "--max-tokens" in done.err
    assert len(done.out) == 9 and done.out.endswith(b"\n")


def test_a_reader_that_goes_ends_the_run_quietly(endless: str) -> None:
    done = run("--model", endless, *TALK, shell="| head -c 1")
    assert (done.code, len(done.out), done.err) == (141, 1, "")


def test_a_full_disk_is_6(endless: str) -> None:
    assert_one_error_line(run("--model", endless, *TALK, shell="> /dev/full"), 6, "No space left on device")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_keeps_the_partial_answer(number: int, code: int, word: str, endless: str) -> None:
    with start("--model", endless, *TALK) as process:
        begin = process.stdout.read(20)
        process.send_signal(number)
        rest, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert len(begin) == 20 and rest.endswith(b"\n") and rest.count(b"\n") == 1
    assert err.decode() == word + "\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_ctrl_c_while_torch_is_imported_is_quiet(endless: str) -> None:
    with start("--model", endless, *TALK) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        until = time.monotonic() + 30
        while "libtorch" not in maps.read_text() and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.decode()) == (130, b"", "interrupted\n")


def _on_a_terminal(*words: str, env: Mapping[str, str], keys: bytes = b"") -> tuple[int, str]:
    """Run with a terminal on all three streams, press `keys` once it answers; what the screen got."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**os.environ, **env},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(side)
    screen = b""
    while True:
        try:
            screen += os.read(main, 4096)
        except OSError:  # the last one on the other side has gone
            break
        if keys and len(screen.partition(b"--- end of prompt ---")[2]) > 20:
            os.write(main, keys)
            keys = b""
    os.close(main)
    return process.wait(30), screen.decode()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_terminal_shows_escapes_and_takes_ctrl_c(endless: str) -> None:
    env = {"NO_COLOR": "1"}
    code, screen = _on_a_terminal("--model", endless, *TALK, "--show-prompt", env=env, keys=b"\x03")
    assert code == 130, screen
    assert screen.endswith("\r\ninterrupted\r\n")
    assert "\x1b" not in screen and "Traceback" not in screen
    prompt = "say \x1b]52;c;x\x07"
    code, screen = _on_a_terminal("--model", endless, "--show-prompt", "--max-tokens", "3", prompt, env={})
    assert code == 0
    assert "\x1b" not in screen and "\x07" not in screen
    assert r"say \x1b]52;c;x\x07" in screen
