"""Every error kind has an exit code, and every failure is one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llm_local import errors
from llm_local.errors import AccessDenied, InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.terminal.exit_codes import EXIT_CODES, error_line, exit_code


def _tree(root: type[LocalLLMError]) -> Iterator[type[LocalLLMError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_every_kind_in_the_tree_is_in_the_table() -> None:
    kinds = {cls.kind for cls in _tree(LocalLLMError) if cls.__module__ == errors.__name__}
    assert kinds == set(EXIT_CODES)


def test_the_table_covers_all_exported_errors() -> None:
    for name in errors.__all__:
        assert getattr(errors, name).kind in EXIT_CODES


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("internal_error", 1),
        ("invalid_value", 2),
        ("context_length_exceeded", 2),
        ("unsupported_task", 2),
        ("invalid_config", 2),
        ("model_not_found", 3),
        ("access_denied", 4),
        ("hub_unavailable", 5),
        ("insufficient_storage", 6),
        ("insufficient_memory", 6),
        ("model_corrupt", 7),
        ("unsafe_weights", 7),
        ("busy", 8),
    ],
)
def test_codes_are_those_of_the_fault_list(kind: str, code: int) -> None:
    assert EXIT_CODES[kind] == code


def test_a_finer_kind_takes_the_code_of_its_class() -> None:
    assert exit_code(AccessDenied("Gated.", kind="gated_repo")) == 4
    assert exit_code(LocalLLMError("Odd.", kind="never_heard_of")) == 1


def test_a_known_finer_kind_wins_over_the_class() -> None:
    assert exit_code(InvalidRequest("No such model.", kind="model_not_found")) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (PermissionError(errno.EACCES, "Permission denied"), 6),
        (OSError(errno.EMFILE, "Too many open files"), 1),
        (MemoryError(), 6),
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
        (TypeError("bug"), 1),
    ],
)
def test_foreign_errors(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_of_ours_is_message_and_hint_in_one_line() -> None:
    error = ModelNotFound("No model\nnamed 'a\x1b[31m\u202eb'.", "Check\r\nthe name.")
    assert error_line(error) == r"error: No model named 'a\x1b[31m\u202eb'. Check the name."


def test_a_foreign_error_names_its_type() -> None:
    assert error_line(KeyError("x")) == "error: KeyError: 'x' (run again with --debug for the traceback)"
    assert error_line(MemoryError()) == "error: MemoryError (run again with --debug for the traceback)"
    assert error_line(OSError(errno.ENOSPC, "No space left on device", "/x")) == (
        "error: No space left on device (/x)."
    )


def test_a_huge_message_stays_readable() -> None:
    assert len(error_line(ModelNotFound("x" * 100_000))) < 2100


def test_no_token_is_told() -> None:
    assert "hf_" not in error_line(AccessDenied("The hub refused hf_abcdefghijklmnop."))


def test_leaving_runs_exit_functions_and_nothing_else() -> None:
    program = """
import atexit, os
from llm_local.terminal.exit_codes import leave
class Late:
    def __del__(self):
        os.write(1, b"teardown")
late = Late()
atexit.register(os.write, 1, b"exit function")
leave(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"exit function", b"")
