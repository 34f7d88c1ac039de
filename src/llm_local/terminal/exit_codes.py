"""How a terminal door ends: one table from error kind to exit code, and the one line that says why."""

from __future__ import annotations

import atexit
import errno
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from llm_local.errors import LocalLLMError
from llm_local.terminal.sanitize import sanitize_line

__all__ = [
    "BROKEN_PIPE",
    "EXIT_CODES",
    "HUNG_UP",
    "INTERRUPTED",
    "OK",
    "RUNTIME_FAILURE",
    "TERMINATED",
    "USAGE",
    "error_line",
    "exit_code",
    "leave",
]

OK: Final = 0
RUNTIME_FAILURE: Final = 1
USAGE: Final = 2
_NOT_FOUND: Final = 3
_DENIED: Final = 4
_UNREACHABLE: Final = 5
_NO_ROOM: Final = 6
_DAMAGED: Final = 7
_TRY_LATER: Final = 8
HUNG_UP: Final = 129  # 128 + SIGHUP
INTERRUPTED: Final = 130  # 128 + SIGINT
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
TERMINATED: Final = 143  # 128 + SIGTERM

EXIT_CODES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "internal_error": RUNTIME_FAILURE,
        "engine_error": RUNTIME_FAILURE,
        "numerical_error": RUNTIME_FAILURE,
        "plugin_failed": RUNTIME_FAILURE,
        "tool_server_failed": RUNTIME_FAILURE,
        "database_unusable": RUNTIME_FAILURE,
        "invalid_value": USAGE,
        "invalid_config": USAGE,
        "context_length_exceeded": USAGE,
        "unsupported_task": USAGE,
        "model_not_found": _NOT_FOUND,
        "conversation_not_found": _NOT_FOUND,
        "access_denied": _DENIED,
        "hub_unavailable": _UNREACHABLE,
        "insufficient_storage": _NO_ROOM,
        "insufficient_memory": _NO_ROOM,
        "model_corrupt": _DAMAGED,
        "unsafe_weights": _DAMAGED,
        "busy": _TRY_LATER,
    }
)
"""Error kind to exit code. A kind that is not here counts as the kind of its class (see `exit_code`)."""

_STORAGE_ERRNOS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def exit_code(error: BaseException) -> int:
    """The exit code a terminal door ends with after `error`.

    An error whose own `kind` is finer than the table (`gated_repo`, an AccessDenied) takes the code of its
    class. Errors that are not ours mean a bug or the machine: 6 where the disk or the memory refused, else 1.
    """
    if isinstance(error, LocalLLMError):
        kinds = [error.kind, *(getattr(cls, "kind", "") for cls in type(error).__mro__)]
        return next(EXIT_CODES[kind] for kind in kinds if kind in EXIT_CODES)
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS):
        return _NO_ROOM
    return RUNTIME_FAILURE


def error_line(error: BaseException) -> str:
    """`error: ...` in exactly one line without a line end, harmless on a terminal and without secrets.

    An error of ours is its message and its hint. Any other is a bug or the machine, so its type is named.
    """
    # Late: the code path without an error, `--help` above all, has no use for the logging library.
    from llm_local.logs import redact

    return "error: " + sanitize_line(redact(_describe(error)))


def leave(code: int) -> NoReturn:
    """End this process with `code`, now.

    Exit functions run, but the interpreter is not taken down: with torch in it that was measured at two seconds
    on a busy machine, for nothing, since the answer is written unbuffered.
    """
    atexit._run_exitfuncs()
    os._exit(code)


def _describe(error: BaseException) -> str:
    if isinstance(error, LocalLLMError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})." if error.filename else f"{error.strerror}."
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{text} (run again with --debug for the traceback)"
