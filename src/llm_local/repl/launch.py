"""From a command line to a chat that runs: settings, store, tools, model, session, loop; and every way it ends."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from contextlib import ExitStack

from llm_local.config import load_config
from llm_local.repl.choosing import choose_model, model_choices
from llm_local.repl.commanding import Shows, chat_commands, command_context, completer
from llm_local.repl.flags import chat_request
from llm_local.repl.loop import ChatLoop
from llm_local.repl.opening import OpenAModel, Opening, with_model
from llm_local.terminal.asking import open_model
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.chat_signals import ChatSignals, Ended
from llm_local.terminal.exit_codes import BROKEN_PIPE, INTERRUPTED, OK, TERMINATED, error_line, exit_code
from llm_local.terminal.flags import setting_flags
from llm_local.terminal.process import prepare_process
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["Launch", "MakeFront"]

MakeFront = Callable[[FrontParts], ChatFront]
"""Makes both sides of the terminal."""


class Launch:
    """One start. Its surroundings are handed in, so that tests can stand in for them."""

    def __init__(
        self,
        make_front: MakeFront,
        messages: Messages,
        signals: ChatSignals,
        modes: TerminalModes,
        answer: AnswerWriter,
        *,
        opener: OpenAModel = open_model,
    ) -> None:
        self._make_front = make_front
        self._messages = messages
        self._signals = signals
        self._modes = modes
        self._answer = answer
        self._open = opener

    def run(self, args: argparse.Namespace) -> int:
        """Chat, and return the exit code."""
        try:
            with ExitStack() as closing:
                closing.callback(self._modes.restore)
                return self._run(args, closing)
        except Ended:
            return self._signals.code or TERMINATED
        except KeyboardInterrupt:  # no signal of ours raises it here, but foreign code may
            return INTERRUPTED
        except Exception as error:
            return self._fail(error, debug=bool(getattr(args, "debug", False)))

    def _run(self, args: argparse.Namespace, closing: ExitStack) -> int:
        request = chat_request(args)
        flags = setting_flags(args)
        config = load_config(flags)
        prepare_process(config)
        for warning in config.warnings:
            self._messages.note(warning)
        shows = Shows(request.verbose)
        table = chat_commands(shows)
        parts = FrontParts(
            self._answer,
            self._messages,
            self._signals,
            self._modes,
            show_thinking=request.shows_thinking or config.chat_show_thinking,
            keeps_history=request.stores,
            enter_submits=config.chat_enter_submits,
        )
        front = self._make_front(parts)
        closing.callback(front.close)
        if request.chooses:
            chosen = choose_model(front.view, model_choices(config.model_id))
            if chosen is None:
                return OK
            config = with_model(config, chosen)
        opening = Opening(request, parts, front.view, closing, self._open)
        archive = opening.archive()
        conversation = opening.conversation(archive)
        if conversation is not None and conversation.model and not config.is_explicit("model_id"):
            if conversation.model != config.model_id:
                front.view.notice(
                    f"The conversation goes on with {conversation.model}; name a model to take another."
                )
            config = with_model(config, conversation.model)
        context = command_context(opening.session(config, archive, conversation), table)
        loop = ChatLoop(context, front, self._signals, shows=shows, complete=completer(context))
        return loop.run()

    def _fail(self, error: Exception, *, debug: bool) -> int:
        """Say in a line what went wrong, unless it is that nobody reads any more."""
        self._modes.restore()
        code = exit_code(error)
        if code == BROKEN_PIPE:
            return code
        if self._signals.code is not None:  # what fails after SIGHUP fails for want of a terminal
            return self._signals.code
        if debug:
            self._messages.block("".join(traceback.format_exception(error)))
        self._messages.note(error_line(error))
        return code
