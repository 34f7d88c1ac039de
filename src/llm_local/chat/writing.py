"""Writing a file that somebody named: at once where there is none, after a question where there is one."""

from __future__ import annotations

from llm_local.chat.attachments import user_path
from llm_local.chat.outcomes import Ask, Outcome, Said
from llm_local.conversations.exports import write_file
from llm_local.errors import InvalidRequest

__all__ = ["write_asking"]


def write_asking(file: str, text: str, what: str) -> Outcome:
    """Write `text`; `what` names it for people, at the beginning of a sentence.

    Raises:
        InvalidRequest: no file is named, or it is a link or a folder.
        StorageError: the disk refuses.
    """
    if not file:
        raise InvalidRequest("Into which file?", "Name one behind the command.", param="file")
    path = user_path(file)

    def write(*, over: bool) -> Said:
        write_file(path, text, may_overwrite=lambda: over)
        return Said((f"{what} is in {path}.",))

    try:
        there = path.is_file() and not path.is_symlink()
    except (OSError, ValueError):
        there = False  # the writing says what is wrong
    if there:
        return Ask(
            f"{path} is there already. Overwrite it?",
            lambda: write(over=True),
            Said(("Nothing was written.",)),
        )
    return write(over=False)
