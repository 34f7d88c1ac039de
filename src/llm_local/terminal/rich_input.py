"""What is typed into a rich chat: several lines, history, completion, suggestions, a toolbar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app_or_none
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    ConditionalCompleter,
    merge_completers,
)
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.shortcuts import choice
from prompt_toolkit.styles import Style

from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.terminal.chat_view import Choice, PromptContext
from llm_local.terminal.history_search import HistoryCompleter
from llm_local.terminal.pastes import PasteParser, PasteShelf
from llm_local.terminal.piped_input import MAX_INPUT_BYTES
from llm_local.terminal.prompt_history import PromptHistory
from llm_local.terminal.prompt_keys import HistorySearch, PromptKeys, without_marks
from llm_local.terminal.prompt_toolbar import toolbar_line
from llm_local.terminal.sanitize import sanitize_line
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.tables import aligned
from llm_local.terminal.text_editor import edit_text

__all__ = ["RichInput"]

_STYLE: Final = Style.from_dict(
    {
        "prompt": "ansicyan bold",
        "continuation": "ansibrightblack",
        "bottom-toolbar": "noreverse ansibrightblack",
        "auto-suggestion": "ansibrightblack",
        "fuzzymatch.inside": "bold underline",
    }
)
_PROMPT: Final[StyleAndTextTuples] = [("class:prompt", "❯ ")]
_SEARCH_PROMPT: Final[StyleAndTextTuples] = [("class:prompt", "search ❯ ")]


class RichInput:
    """A `ChatInput` on prompt-toolkit. `on_notice` takes lines for people."""

    def __init__(
        self,
        *,
        history_path: Path | None,
        enter_submits: bool,
        on_notice: Callable[[str], None],
        source: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.interactive = True
        self.can_edit = True
        self._enter_submits = enter_submits
        self._context = PromptContext()
        self._notices: list[str] = []
        self._on_notice = on_notice
        self._input = source or create_input(sys.stdin)
        if isinstance(self._input, Vt100Input):
            self._input.vt100_parser = PasteParser(self._input.vt100_parser.feed_key_callback)
        self._output = output or create_output(sys.stdout)
        self._shelf = PasteShelf()
        self._history = PromptHistory(
            history_path, self._notices.append, may_be_kept=lambda entry: not self._shelf.has_mark(entry)
        )
        searched = HistoryCompleter(lambda: list(reversed(self._history.get_strings())))
        self._search = HistorySearch(searched)
        self._session = self._make_session(searched)

    @property
    def keys_line(self) -> str:
        """What sends a text, and what else is good to know."""
        send, line = ("Enter", "Alt+Enter") if self._enter_submits else ("Alt+Enter", "Enter")
        return f"{send} sends, {line} begins a line · Tab completes · Ctrl+R searches · Ctrl+G edits"

    def read(self, context: PromptContext) -> str:
        """The next input; see `ChatInput`."""
        self._context = context
        try:
            text = self._session.prompt(default=context.initial)
        finally:
            self._search.stop()
            self._tell()
        text = without_marks(self._shelf.expand(text))
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > MAX_INPUT_BYTES:
            allowed = f"{MAX_INPUT_BYTES} bytes ({format_bytes(MAX_INPUT_BYTES)})"
            raise InvalidRequest(
                f"One input may have at most {allowed}, but this has more.",
                "Send a part of it.",
                param="prompt",
            )
        return data.decode("utf-8", "replace")

    def ask(self, question: str) -> str:
        """One line, behind a question; raises as `read` does."""
        asking: PromptSession[str] = PromptSession(input=self._input, output=self._output)
        return asking.prompt(question)

    def choose(self, title: str, columns: Sequence[str], choices: Sequence[Choice]) -> str | None:
        """A list to go up and down in; None when there is nothing in it."""
        if not choices:
            return None
        header, *lines = aligned(columns, [one.cells for one in choices]).splitlines()
        current = next((one.value for one in choices if one.is_current), None)
        message = f"{title}\n     {header}" if title else f"     {header}"
        options = [(one.value, line) for one, line in zip(choices, lines, strict=True)]
        with create_app_session(self._input, self._output):
            return choice(message, options=options, default=current)

    def close(self) -> None:
        """Nothing is open between two inputs."""
        self._tell()

    def _make_session(self, searched: Completer) -> PromptSession[str]:
        searching = self._search.is_open
        keys = PromptKeys(self._search, self._shelf, self._edit, enter_submits=self._enter_submits)
        completer = merge_completers(
            [
                ConditionalCompleter(searched, searching),
                ConditionalCompleter(_Commands(self._candidates), ~searching),
            ]
        )
        return PromptSession(
            message=lambda: _SEARCH_PROMPT if searching() else _PROMPT,
            prompt_continuation=[("class:continuation", "· ")],
            multiline=True,
            history=self._history,
            auto_suggest=AutoSuggestFromHistory(),
            completer=completer,
            complete_while_typing=searching | Condition(_begins_command),
            bottom_toolbar=self._toolbar,
            reserve_space_for_menu=5,
            key_bindings=keys.bindings(),
            style=_STYLE,
            include_default_pygments_style=False,
            input=self._input,
            output=self._output,
        )

    def _candidates(self, line: str) -> Iterable[Completion]:
        for one in self._context.complete(line):
            yield Completion(one.text, start_position=-one.replaces, display_meta=sanitize_line(one.help))

    def _toolbar(self) -> StyleAndTextTuples:
        columns = self._output.get_size().columns
        if self._search.is_open():
            return [("", " letters of an earlier input · Enter takes it · Esc goes back"[:columns])]
        hint = f"{'Enter' if self._enter_submits else 'Alt+Enter'} sends"
        return [("", toolbar_line(self._context.status, hint, columns))]

    def _edit(self, text: str) -> str:
        try:
            return edit_text(text)
        except LocalLLMError as error:
            self._on_notice(str(error))
            return text

    def _tell(self) -> None:
        """What had to wait, because a notice in the middle of a prompt would destroy it."""
        notices, self._notices[:] = list(self._notices), []
        for notice in notices:
            self._on_notice(notice)


class _Commands(Completer):
    """Candidates for a line, from whoever knows the commands."""

    def __init__(self, candidates: Callable[[str], Iterable[Completion]]) -> None:
        self._candidates = candidates

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        return () if "\n" in document.text_before_cursor else self._candidates(document.text_before_cursor)


def _begins_command() -> bool:
    """True while the name of a command is typed: there the candidates cost nothing and show what there is."""
    app = get_app_or_none()
    text = app.current_buffer.text if app else ""
    return text.startswith("/") and not text.startswith("//") and not any(map(str.isspace, text))
