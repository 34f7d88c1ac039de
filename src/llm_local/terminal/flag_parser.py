"""What reads a command line, and raises where it cannot. Apart from the flags: a verb without settings is quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from llm_local.errors import InvalidRequest

__all__ = ["FlagParser"]


class FlagParser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing and exiting, and guesses nothing.

    Raises (from `parse`):
        InvalidRequest: unknown flags, several prompts, a missing or impossible value.
    """

    def __init__(self, **details: Any) -> None:
        super().__init__(allow_abbrev=False, add_help=False, **details)

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", "See --help.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The flags in `words`."""
        parsed, rest = self.parse_known_args(words)
        unknown = next((word for word in rest if word.startswith("-")), None)
        if unknown is not None:
            raise InvalidRequest(f"There is no flag {unknown}.", self._hint(unknown))
        if rest:
            raise InvalidRequest(
                f"Only one prompt is taken, but {rest[0]!r} is left over.",
                'Put the prompt in quotes: "...".',
                param="prompt",
            )
        return parsed

    def _hint(self, unknown: str) -> str:
        # Late: only a typing error needs it.
        from difflib import get_close_matches

        near = get_close_matches(unknown.partition("=")[0], self._option_string_actions, n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        return f"{guess}See --help; a prompt that begins with a dash goes after --."
