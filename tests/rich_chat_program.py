"""A chat in a process of its own, whose model says what a file tells it to: for tests in a pseudo-terminal.

python tests/rich_chat_program.py SCRIPT [FLAG...]

SCRIPT is a JSON object: replies, delay_s for each token, load_s, and plain of true for the plain chat.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


def main(words: list[str]) -> int:
    from chat.chatting import make_model
    from llm_local.events import Progress
    from llm_local.repl.flags import make_parser
    from llm_local.repl.launch import Launch
    from llm_local.repl.start import own_stdout
    from llm_local.terminal.chat_signals import ChatSignals
    from llm_local.terminal.fronts import best_front
    from llm_local.terminal.plain_front import plain_front
    from llm_local.terminal.streams import Messages
    from llm_local.terminal.terminal_modes import TerminalModes

    script = json.loads(Path(words[0]).read_text())

    def open_model(config, progress):
        load_s = script.get("load_s", 0.0)
        for part in range(10 if load_s else 0):
            progress(Progress("loading", part * 100, 1000, "weights\x1b[2J.safetensors"))
            time.sleep(load_s / 10)
        progress(Progress("loading", 1000, 1000, "weights\x1b[2J.safetensors"))
        model = make_model(*script["replies"], context_length=1_000_000)
        step = model.engine.step

        def slow_step():
            time.sleep(script.get("delay_s", 0.0))
            return step()

        model.engine.step = slow_step
        return model

    messages, modes = Messages.on_stderr(), TerminalModes()
    signals = ChatSignals(messages, modes.restore)
    signals.install()
    args = make_parser("chat-rich.sh", "").parse([*words[1:], "--max-tokens", "100000"])
    front = plain_front if script.get("plain") else best_front
    return Launch(front, messages, signals, modes, own_stdout(), opener=open_model).run(args)


if __name__ == "__main__":
    from llm_local.terminal.exit_codes import leave

    leave(main(sys.argv[1:]))
