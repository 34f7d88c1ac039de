"""A chat for tests: a scripted model, a person with a script, and plain lines to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chat.chatting import make_model, make_session
from fakes import FakeClock
from llm_local.chat.session import ChatSession
from llm_local.repl.commanding import Shows, chat_commands, command_context, completer
from llm_local.repl.loop import ChatLoop
from llm_local.terminal.chat_front import ChatFront
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.chat_view import PromptContext
from llm_local.terminal.plain_view import PlainView
from llm_local.terminal.streams import AnswerWriter, Messages
from terminal.fake_streams import FakeRaw

Said = str | BaseException | Callable[[], str]


class ScriptedInput:
    """Says one thing after the other, then ends. A callable is called first, and may be the one to raise."""

    def __init__(self, said: Sequence[Said], *, interactive: bool, can_edit: bool = False) -> None:
        self.said = list(said)
        self.interactive = interactive
        self.can_edit = can_edit
        self.contexts: list[PromptContext] = []
        self.closed = 0

    def read(self, context: PromptContext) -> str:
        self.contexts.append(context)
        return self.ask("")

    def ask(self, question: str) -> str:
        said = self.said.pop(0) if self.said else EOFError()
        if callable(said):
            said = said()
        if isinstance(said, BaseException):
            raise said
        return said

    def close(self) -> None:
        self.closed += 1


class Chat:
    """A loop over a session, with all that it says and is told."""

    def __init__(
        self,
        *said: Said,
        replies: Sequence[object] = (),
        person: bool = True,
        can_edit: bool = False,
        verbose: bool = False,
        stdout: FakeRaw | None = None,
        session: ChatSession | None = None,
        **more: object,
    ) -> None:
        self.stdout = stdout or FakeRaw(terminal=person)
        self.stderr = FakeRaw(terminal=person)
        self.clock = FakeClock()
        messages = Messages(self.stderr)
        self.signals = ChatSignals(messages)
        self.input = ScriptedInput(said, interactive=person, can_edit=can_edit)
        self.view = PlainView(
            AnswerWriter(self.stdout), messages, read_line=self.input.ask if person else None
        )
        self.session = session or make_session(model=make_model(*replies), **more)
        shows = Shows(verbose)
        context = command_context(self.session, chat_commands(shows))
        self.loop = ChatLoop(
            context,
            ChatFront(self.input, self.view),
            self.signals,
            shows=shows,
            complete=completer(context),
            clock=self.clock,
        )

    def run(self) -> int:
        """Chat to the end."""
        return self.loop.run()

    @property
    def roles(self) -> list[tuple[str, str]]:
        """The conversation."""
        return [(one.role, one.content) for one in self.session.messages]
