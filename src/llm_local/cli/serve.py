"""`llm-local serve`: serve models of this machine over HTTP, here or in the background. `api.sh` is the same."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

from llm_local.config import SETTINGS, Config, load_config
from llm_local.errors import InvalidRequest, StorageError
from llm_local.home import state_home
from llm_local.store.servers import RunningServer, running_servers
from llm_local.terminal.exit_codes import OK, RUNTIME_FAILURE, leave
from llm_local.terminal.flags import setting_flags
from llm_local.terminal.serve_flags import add_serve_flags
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "run"]

_START_S: Final = 60.0
_SETTLE_S: Final = 3.0
_POLL_S: Final = 0.1
_TAIL_BYTES: Final = 2000


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    add_serve_flags(parser)
    background = parser.add_argument_group("background")
    background.add_argument(
        "--detach", action="store_true", help="Go on in the background; llm-local stop ends it, ps shows it."
    )
    background.add_argument(
        "--log-file",
        metavar="FILE",
        help="Where a detached server writes its log; the default is told when it starts.",
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    """Serve until told to end, or start a server and say where it is.

    Raises:
        LocalLLMError: it cannot run.
    """
    if args.detach:
        return _detach(args, answer, messages)
    if args.log_file is not None:
        raise InvalidRequest(
            "--log-file is for a server with --detach.", "Write 2> FILE instead.", param="--log-file"
        )
    # Late: the server's libraries take a third of a second to import, and help needs none of them.
    from llm_local.api_server import run as run_server

    return leave(run_server(args))  # a model that is being loaded in a thread must not keep the process


def _detach(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    flags = setting_flags(args)
    config = load_config(flags)  # what is wrong with the settings is said here, not in a log
    path = Path(args.log_file) if args.log_file else _log_path(config.api_port)
    # Settings go through the environment: a command line can be read by every user of the machine.
    environment = {
        **os.environ,
        **{SETTINGS[name].env: str(flags[name]) for name in flags if flags[name] is not None},
    }
    words = ["--insecure-no-auth"] if args.insecure_no_auth else []
    with _open_log(path) as log:
        before = log.seek(0, os.SEEK_END)
        child = subprocess.Popen(  # noqa: S603  (our own module, with this Python)
            [sys.executable, "-m", "llm_local.api_server", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    server = _wait(child)
    if server is None or not _settles(child):
        for line in _last_lines(path, before):
            messages.note(line)
        if child.poll() is None:
            child.terminate()
        code = child.wait()
        return code if code > 0 else RUNTIME_FAILURE
    _say(server, path, config, answer, messages)
    return OK


def _say(server: RunningServer, path: Path, config: Config, answer: AnswerWriter, messages: Messages) -> None:
    host = f"[{server.host}]" if ":" in server.host else server.host
    answer.write(f"http://{host}:{server.port}\n")
    messages.note(f"process {server.pid}, log in {path}; `llm-local stop {server.port}` ends it.")
    messages.note(f"It loads {config.model_id} now; GET /ready answers 200 when that is done.")


def _wait(child: subprocess.Popen[bytes]) -> RunningServer | None:
    """The server, once it listens; None when it ended, or took too long."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and child.poll() is None:
        found = next((one for one in running_servers() if one.pid == child.pid), None)
        if found is not None:
            return found
        time.sleep(_POLL_S)
    return None


def _settles(child: subprocess.Popen[bytes]) -> bool:
    """False when the server ends soon after it began to listen: most models that cannot be had are known by then."""
    end = time.monotonic() + _SETTLE_S
    while time.monotonic() < end and child.poll() is None:
        if any(one.model is not None for one in running_servers() if one.pid == child.pid):
            return True
        time.sleep(_POLL_S)
    return child.poll() is None


def _log_path(port: int) -> Path:
    folder = state_home() / "logs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder {folder} for the log cannot be made: {error.strerror}.") from error
    return folder / f"server-{port}.log"


def _open_log(path: Path) -> BinaryIO:
    """The log, to be written at its end by its owner alone. A link is not followed: it may lead anywhere."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)
    except OSError as error:
        raise StorageError(f"The log {path} cannot be written: {error.strerror}.") from error


def _last_lines(path: Path, before: int) -> list[str]:
    """Why the server ended: the last of its lines that is an error, else the last. `before` it said nothing."""
    try:
        data = path.read_bytes()[before:][-_TAIL_BYTES:]
    except OSError:
        return []
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return [line for line in lines if line.startswith("error: ")][-1:] or lines[-1:]
