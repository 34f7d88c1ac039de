"""A rich view that draws on an emulator, and an input that somebody types into."""

from __future__ import annotations

from types import SimpleNamespace

from llm_local.events import Completion, Timings, Usage
from llm_local.specs import ModelInfo
from llm_local.terminal.chat_view import ChatStatus
from llm_local.terminal.rich_screen import RichScreen
from llm_local.terminal.rich_view import RichView
from llm_local.terminal.streams import AnswerWriter
from terminal.emulator import Emulator
from terminal.fake_streams import FakeRaw


class EmulatedTerminal(FakeRaw):
    """What is written to it lands on the screen of `emulator`."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(terminal=True)
        self._emulator = emulator

    def write(self, data) -> int:
        written = super().write(data)
        self._emulator.write(bytes(data)[:written].decode("utf-8"))
        return written


class FakeModes:
    """Remembers whether typing is hidden."""

    def __init__(self) -> None:
        self.uses_escapes = self.has_drawing = False
        self.is_silent = False

    def silence(self) -> None:
        self.is_silent = True

    def restore(self) -> None:
        self.is_silent = False


def make_screen(columns: int = 60, lines: int = 12) -> tuple[RichScreen, Emulator, FakeModes]:
    emulator, modes = Emulator(columns, lines), FakeModes()
    writer = AnswerWriter(EmulatedTerminal(emulator))
    return RichScreen(writer, modes, size=emulator.size, color_system="256"), emulator, modes


def make_status(**changes) -> ChatStatus:
    info = ModelInfo(
        ref="org/model\x1b[2J",
        path="",
        architecture="Some",
        num_parameters=1_500_000,
        weight_bytes=1,
        dtype="float32",
        device="cpu",
        context_length=4096,
        vocab_size=10,
        has_chat_template=True,
    )
    return ChatStatus(info, "batched", 1.25, **changes)


class FakeInput:
    """Says what it was told to say; None is Ctrl-C."""

    keys_line = "Alt+Enter sends"

    def __init__(self, *said: str | None) -> None:
        self.said = list(said)

    def ask(self, question: str) -> str:
        said = self.said.pop(0)
        if said is None:
            raise KeyboardInterrupt
        return said

    def choose(self, title, columns, choices):
        return self.ask(title)


def make_view(*said, show_thinking=False, columns=60, lines=12):
    screen, emulator, modes = make_screen(columns, lines)
    view = RichView(screen, FakeInput(*said), show_thinking=show_thinking)
    return SimpleNamespace(view=view, emulator=emulator, modes=modes, rows=emulator.rows)


def completion(reason="stop", text="text", reasoning=""):
    usage, timings = Usage(20, 5, 11), Timings(prefill_s=0.5, decode_s=2.0, first_token_s=0.6)
    return Completion(text, reasoning, (), (), (), reason, usage, timings)
