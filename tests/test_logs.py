"""Logs: one record is one line, the request is known, secrets and prompts stay out."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llm_local.logs import configure_logging, current_request_id, elide, one_line, redact, request_scope

SECRET = "hf_ThisMustNeverBeSeen0123456789"
logger = logging.getLogger("llm_local.test")


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what `configure_logging` does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "")
    monkeypatch.setenv("HF_HUB_VERBOSITY", "")
    logging.captureWarnings(False)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(level: str = "info", *, json_lines: bool = False, secrets: tuple[str, ...] = ()) -> io.StringIO:
    """Configure logging into a text that can be read."""
    stream = io.StringIO()
    configure_logging(level, json_lines=json_lines, stream=stream, secrets=secrets)
    return stream


HOSTILE = "a\r\nb\tc\x1b[31md\x00e\x7ff\x85g\u2028h\u202ei\ud800j"


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_hostile_text_is_one_harmless_line(json_lines: bool) -> None:
    stream = lines(json_lines=json_lines)
    logger.info("got %s", HOSTILE, extra={"path": HOSTILE})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    text.encode("utf-8")


def test_one_line_keeps_what_is_harmless() -> None:
    assert one_line("Grüße 🙂 \\n") == "Grüße 🙂 \\n"
    assert one_line("\n\x1b\u2028\ud800") == r"\n\x1b\u2028\ud800"


def test_json_record() -> None:
    stream = lines(json_lines=True)
    with request_scope("r-1"):
        logger.warning(
            "loaded %s", "starter", extra={"load_s": 0.5, "cached": True, "ref": None, "path": Path("m")}
        )
    record = json.loads(stream.getvalue())
    time = datetime.fromisoformat(record.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert record == {
        "level": "warning",
        "logger": "llm_local.test",
        "message": "loaded starter",
        "request_id": "r-1",
        "load_s": 0.5,
        "cached": True,
        "ref": None,
        "path": "m",
    }


def test_human_record() -> None:
    stream = lines()
    with request_scope("r-1"):
        logger.info("loaded %s", "starter", extra={"load_s": 0.5})
    text = stream.getvalue()
    assert text[2] == text[5] == ":"
    assert text[8:] == " info llm_local.test: loaded starter request_id=r-1 load_s=0.5\n"


@pytest.mark.parametrize("json_lines", [False, True])
def test_an_exception_is_on_the_same_line_and_redacted(json_lines: bool) -> None:
    stream = lines(json_lines=json_lines)
    try:
        raise ValueError(f"token {SECRET}\nrefused")
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "Traceback" in text
    assert "ValueError" in text
    assert SECRET[3:15] not in text


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        "authorization: Basic VGhpc011c3ROZXZlckJl==",
        "Authorization: ThisMustNeverBe",
        "curl -H 'Authorization: Bearer ThisMustNeverBe'",
        "bearer ThisMustNeverBe",
        "x-api-key: ThisMustNeverBe",
        "api_key='ThisMustNeverBe'",
        '{"api_key": "ThisMustNeverBe"}',
        "{'hf_token': 'ThisMustNeverBe'}",
        "HF_TOKEN=ThisMustNeverBe",
        "/path?token=ThisMustNeverBe&x=1",
        "password=ThisMustNeverBe",
        "key sk-ThisMustNeverBe-0_1",
        "https://ada:ThisMustNeverBe@mirror.example/x",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "ThisMustNeverBe" not in redact(text)
    assert "VGhpc011c3ROZXZlckJl" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "512 tokens in 0.4 s, token=151645, max_tokens=512, completion_tokens: 7",
        "eos_token=<|im_end|>",
        "loaded org/name from https://huggingface.co/org/name@main",
        "the key of the basic idea is a secret of nobody",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_known_secret_never_appears_whatever_it_looks_like(json_lines: bool) -> None:
    stream = lines(json_lines=json_lines, secrets=("plain words 123", ""))
    logger.info("got %s", "plain words 123", extra={"header": "x plain words 123 y"})
    assert "plain words" not in stream.getvalue()
    assert stream.getvalue().count("***") == 2


def test_elide_says_only_the_length() -> None:
    assert elide("my prompt") == "<9 characters>"


def test_levels() -> None:
    stream = lines("warning")
    logger.info("quiet")
    logger.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


@pytest.mark.parametrize("library", ["transformers", "huggingface_hub", "httpx", "urllib3", "torch"])
def test_libraries_talk_only_when_debugging(library: str) -> None:
    stream = lines("info")
    logging.getLogger(f"{library}.module").warning("chatter")
    logging.getLogger(f"{library}.module").error("trouble")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue()
    stream = lines("debug")
    logging.getLogger(f"{library}.module").debug("chatter")
    assert "chatter" in stream.getvalue()


@pytest.mark.parametrize(("level", "shown"), [("warning", False), ("debug", True)])
def test_python_warnings_are_records_for_those_who_debug(level: str, shown: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = lines(level)
        warnings.warn("old\nhabits", FutureWarning, stacklevel=1)
    assert ("habits" in stream.getvalue()) is shown
    assert len(stream.getvalue().splitlines()) == int(shown)


def test_configuring_again_replaces_our_handler_and_no_other() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = lines(), lines()
    logger.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert other in logging.getLogger().handlers


def test_a_request_id_belongs_to_its_scope() -> None:
    assert current_request_id() == ""
    with request_scope() as outer:
        assert current_request_id() == outer
        assert len(outer) == 32
        with request_scope("inner"):
            assert current_request_id() == "inner"
        assert current_request_id() == outer
    assert current_request_id() == ""


def test_a_request_id_is_freed_by_a_failure() -> None:
    with pytest.raises(KeyError), request_scope("r"):
        raise KeyError
    assert current_request_id() == ""


def test_two_tasks_have_two_request_ids() -> None:
    async def task(request_id: str) -> str:
        with request_scope(request_id):
            await asyncio.sleep(0)
            return current_request_id()

    async def both() -> list[str]:
        return await asyncio.gather(task("a"), task("b"))

    assert asyncio.run(both()) == ["a", "b"]


def test_logs_go_to_stderr_alone() -> None:
    program = (
        "import logging; from llm_local.logs import configure_logging; configure_logging('info')\n"
        "logging.getLogger('llm_local').info('hello')"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert done.stderr.endswith(" info llm_local: hello\n")
