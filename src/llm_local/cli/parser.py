"""An argument parser with our manners: errors are raised, help goes the way every answer goes."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING, Any, NoReturn

from llm_local.errors import InvalidRequest
from llm_local.terminal.streams import STDOUT, AnswerWriter

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["Parser", "answer_on_stdout"]


def answer_on_stdout() -> AnswerWriter:
    """The writer of a verb's answer: a full disk or a reader who left is an error, not a traceback at exit."""
    return AnswerWriter(io.FileIO(STDOUT, "w", closefd=False))


class Parser(argparse.ArgumentParser):
    """Options are never abbreviated: a later option must not change what a script of today means."""

    def __init__(self, **details: Any) -> None:
        super().__init__(allow_abbrev=False, **details)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line.

        Raises:
            InvalidRequest: always; exit code 2.
        """
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"Try `{self.prog} --help`.")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help to `file`, by default to stdout."""
        (file or answer_on_stdout()).write(self.format_help())
