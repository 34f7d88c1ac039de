"""The keys of the rich prompt: what Enter means, the search in the history, the editor, long pastes."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, get_common_complete_suffix
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.keys import Keys

from llm_local.terminal.multiline import InputAssembler
from llm_local.terminal.pastes import PasteShelf

__all__ = ["HistorySearch", "PromptKeys", "is_unfinished", "without_marks"]


class HistorySearch:
    """Whether the history is searched just now, and what stood in the line before."""

    def __init__(self, completer: Completer) -> None:
        self._completer = completer
        self._before: Document | None = None
        self.is_open = Condition(lambda: self._before is not None)

    def open(self, buffer: Buffer) -> None:
        """Begin: what is typed from now on are letters to look for. Again: the next entry."""
        if self._before is not None:
            buffer.complete_next()
            return
        self._before = buffer.document
        buffer.document = Document()
        buffer.start_completion(select_first=False)

    def accept(self, buffer: Buffer) -> None:
        """Take the entry that is chosen, or else the best one; without one, what stood there before."""
        state = buffer.complete_state
        chosen = state.current_completion if state else None
        if chosen is None:
            chosen = self._best(buffer.document)
        before, self._before = self._before, None
        buffer.cancel_completion()
        buffer.document = Document(chosen.text) if chosen else before or Document()

    def cancel(self, buffer: Buffer) -> None:
        """Go back to what stood there before."""
        before, self._before = self._before, None
        buffer.cancel_completion()
        buffer.document = before or Document()

    def stop(self) -> None:
        """No line is read any more."""
        self._before = None

    def _best(self, document: Document) -> Completion | None:
        found = self._completer.get_completions(document, CompleteEvent(completion_requested=True))
        return next(iter(found), None)


class PromptKeys:
    """Makes the bindings. `enter_submits`: Enter sends, and Alt+Enter begins a line; else the other way round.

    A command is one line, so Enter sends it in any case. `edit` lets a person edit a text in a program of theirs.
    """

    def __init__(
        self,
        search: HistorySearch,
        shelf: PasteShelf,
        edit: Callable[[str], str],
        *,
        enter_submits: bool,
    ) -> None:
        self._search = search
        self._shelf = shelf
        self._edit = edit
        self._enter_submits = enter_submits

    def bindings(self) -> KeyBindings:
        """What prompt-toolkit takes."""
        keys = KeyBindings()
        searching = self._search.is_open
        keys.add("enter")(self._enter)
        keys.add("escape", "enter")(self._meta_enter)
        keys.add("tab")(self._tab)
        keys.add("c-r")(lambda event: self._search.open(event.current_buffer))
        keys.add("escape", filter=searching)(lambda event: self._search.cancel(event.current_buffer))
        keys.add("c-g", filter=searching)(lambda event: self._search.cancel(event.current_buffer))
        keys.add("c-g", filter=~searching)(self._open_editor)
        keys.add("c-c")(self._interrupt)
        keys.add(Keys.BracketedPaste)(self._paste)
        return keys

    def _enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if self._search.is_open():
            self._search.accept(buffer)
        elif buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the candidate stands in the line; the next Enter is about the line
        elif is_unfinished(buffer.text) or not (self._enter_submits or _is_command(buffer.text)):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    def _meta_enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if self._search.is_open():
            self._search.accept(buffer)
        elif self._enter_submits:
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    def _tab(self, event: KeyPressEvent) -> None:
        """Write what all candidates begin with, and go through them when there is no more of that."""
        buffer = event.current_buffer
        found = list(
            buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True))
        )
        common = get_common_complete_suffix(buffer.document, found)
        if self._search.is_open():
            buffer.complete_next()
        elif len(found) == 1:
            buffer.apply_completion(found[0])
        elif common:
            buffer.insert_text(common)
        elif buffer.complete_state:
            buffer.complete_next()
        else:
            buffer.start_completion(select_first=True)

    def _interrupt(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if self._search.is_open():
            self._search.cancel(buffer)
        elif buffer.text:
            buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    def _paste(self, event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(self._shelf.put(event.data))

    def _open_editor(self, event: KeyPressEvent) -> None:
        buffer, app = event.current_buffer, event.app
        app.create_background_task(self._edit_in(buffer, app))

    async def _edit_in(self, buffer: Buffer, app: Application[str]) -> None:
        text = await run_in_terminal(lambda: self._edit(self._shelf.expand(buffer.text)), in_executor=True)
        # a long text gets a mark, as one that was pasted
        buffer.document = Document(self._shelf.put(text))
        app.invalidate()


def is_unfinished(text: str) -> bool:
    '''True inside of `"""` that nothing closes yet.'''
    assembler = InputAssembler()
    return all(assembler.feed(line) is None for line in text.split("\n"))


def without_marks(text: str) -> str:
    '''What stands between two `"""`, as the plain chat reads it; any other text as it is.'''
    assembler = InputAssembler()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        whole = assembler.feed(line)
        if whole is not None:
            return whole if number == len(lines) - 1 else text
    return text


def _is_command(text: str) -> bool:
    return text.startswith("/") and not text.startswith("//") and "\n" not in text
