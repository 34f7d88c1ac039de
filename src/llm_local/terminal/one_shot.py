"""The one-shot run: a prompt in, an answer out, an exit code. What `scripts/run_once.py` does.

Torch is imported as late as possible: only when everything that can be wrong without a model has been checked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llm_local.config import Config, load_config
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.events import Delta, Event, Finish, Progress, fold
from llm_local.messages import ToolCall
from llm_local.options import GenerationOptions
from llm_local.terminal.asking import OpenModel, open_model, prepare_question
from llm_local.terminal.batch import BatchRun
from llm_local.terminal.constraint_flags import check_given_constraint
from llm_local.terminal.exit_codes import BROKEN_PIPE, OK, RUNTIME_FAILURE, error_line, exit_code
from llm_local.terminal.flags import check_batch_flags, request_options, setting_flags
from llm_local.terminal.piped_input import decode_argument, read_prompt
from llm_local.terminal.process import prepare_process
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.report import RunReport, error_object, joined_replies
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import STDIN, AnswerWriter, Messages
from llm_local.terminal.thinking import ThinkingView
from llm_local.terminal.tool_flags import ToolRequest, check_tool_flags, tool_request
from llm_local.terminal.tool_question import ToolAnswer, ToolQuestion
from llm_local.terminal.tool_run import OpenTools, ToolRounds, show_tools, unfinished_notices

if TYPE_CHECKING:
    from llm_local.generator import PreparedRequest

__all__ = ["OneShot"]


class OneShot:
    """One run. Its surroundings are handed in, so that tests can stand in for them.

    `open_tools` opens the tools that flags ask for; tools are strangers to this room, and a door knows them.
    """

    def __init__(
        self,
        answer: AnswerWriter,
        messages: Messages,
        signals: StopSignals,
        *,
        stdin: int = STDIN,
        opener: Callable[[Config, Callable[[Progress], None]], OpenModel] = open_model,
        open_tools: OpenTools | None = None,
    ) -> None:
        self._answer = answer
        self._messages = messages
        self._signals = signals
        self._stdin = stdin
        self._open = opener
        self._open_tools = open_tools
        self._progress = ProgressReporter(messages)
        self._notices: list[str] = []

    def run(self, args: argparse.Namespace) -> int:
        """Ask once, as `args` (from `flags`) say, and return the exit code. No failure escapes."""
        try:
            check_batch_flags(args)
            check_tool_flags(args)
            self._decode(args)
            tools = tool_request(args)
            config = self._settings(args)
            if args.batch is not None:
                return BatchRun(args, config, self._messages, self._signals).run(
                    self._answer, self._stdin, lambda: self._open_model(config)
                )
            if tools is not None:
                return self._ask_with_tools(args, config, self._read_prompt(args), tools)
            return self._ask(args, config, self._read_prompt(args))
        except Exception as error:
            return self.fail(error, as_json=args.json, debug=args.debug)
        except KeyboardInterrupt as error:  # no signal of ours raises it, but foreign code may
            self._progress.close()
            self._messages.note("interrupted")
            return exit_code(error)

    def fail(self, error: Exception, *, as_json: bool, debug: bool) -> int:
        """Report `error` as all failures are reported, and return the exit code."""
        self._progress.close()
        code = exit_code(error)
        if code == BROKEN_PIPE:  # the reader has what it wanted
            return code
        try:
            if as_json:
                self._print_json(error_object(error))
            elif self._answer.started:
                self._answer.end()
        except (OSError, LocalLLMError):
            pass  # stdout is what failed, or it fails too: the first error is the one to tell
        if debug:
            self._messages.block("".join(traceback.format_exception(error)))
        self._messages.note(error_line(error))
        return code

    def _decode(self, args: argparse.Namespace) -> None:
        """Make valid text of what the model will read; the name of a model stays as it is."""
        broken = False
        for name in ("prompt", "system_prompt", "stop"):
            given = getattr(args, name)
            words = given if isinstance(given, list) else [given]
            decoded = [word and decode_argument(word) for word in words]
            broken |= any(new != old and "\ufffd" in new for new, old in zip(decoded, words, strict=True))
            setattr(args, name, decoded if isinstance(given, list) else decoded[0])
        if broken:
            self._notice("The command line has bytes that are not UTF-8; they were replaced by U+FFFD.")

    def _settings(self, args: argparse.Namespace) -> Config:
        """Read and check all there is to set, and prepare the process for the libraries to come."""
        config = load_config(setting_flags(args))
        _check_options(GenerationOptions().replace(**request_options(args)))
        if args.raw and config.system_prompt:
            if config.source("system_prompt") == "flag":
                raise InvalidRequest(
                    "--system-prompt has no place with --raw.", "Drop one of the two.", param="system_prompt"
                )
            self._notice(f"SYSTEM_PROMPT (from {config.origin('system_prompt')}) is not used with --raw.")
        prepare_process(config)
        for warning in config.warnings:
            self._notice(warning)
        return config

    def _read_prompt(self, args: argparse.Namespace) -> str:
        prompt, notice = read_prompt(args.prompt, self._messages, self._stdin, exact=args.raw)
        self._notice(notice)
        return prompt

    def _ask(self, args: argparse.Namespace, config: Config, prompt: str) -> int:
        model = self._open_model(config)
        profiled = config.with_profile(model.generation_defaults)
        prepared = prepare_question(model.generator, profiled, prompt, request_options(args), raw=args.raw)
        self._tell_prepared(prepared, args)
        stream = model.generator.stream(prepared)
        self._signals.on_stop = stream.cancel
        report = RunReport(
            fold(self._shown(stream, args)),
            model.info,
            model.generator.runs_as,
            model.load_s,
            prepared.options,
            notices=tuple(self._notices),
            prompt=prepared.prompt_text if args.show_prompt else None,
        )
        self._finish(report, args)
        return OK if self._signals.code is None else self._signals.code

    def _ask_with_tools(
        self, args: argparse.Namespace, config: Config, prompt: str, request: ToolRequest
    ) -> int:
        if self._open_tools is None:
            raise InvalidRequest("Tools cannot be used here.", param="tools")
        if args.debug:
            request = dataclasses.replace(request, on_server_line=self._messages.note)
        question = ToolQuestion(
            self._messages,
            request.approve,
            on_notice=self._notice,
            stopped=lambda: self._signals.code is not None,
        )

        def approve(call: ToolCall, source: str) -> ToolAnswer:
            self._end_line()
            return question.ask(call, source)

        with self._open_tools(request, approve) as make_loop:
            model = self._open_model(config)
            profiled = config.with_profile(model.generation_defaults)
            changes = {**request_options(args), "tool_choice": request.choice}
            rounds = ToolRounds(model, profiled, changes, lambda one: self._tell_prepared(one, args))
            run = rounds.start(make_loop, prompt)
            self._signals.on_stop = run.cancel
            for _ in self._shown(show_tools(run, self._messages, self._end_line), args):
                pass
            outcome = run.answer
            for notice in unfinished_notices(outcome):
                self._end_line()
                self._notice(notice)
            report = RunReport(
                joined_replies(outcome.rounds),
                model.info,
                model.generator.runs_as,
                model.load_s,
                rounds.used_options(),
                notices=tuple(self._notices),
                prompt=rounds.prepared.prompt_text if args.show_prompt and rounds.prepared else None,
                rounds=outcome.rounds,
                results=outcome.results,
            )
            self._finish(report, args)
        if self._signals.code is not None:
            return self._signals.code
        return RUNTIME_FAILURE if outcome.end == "max_rounds" else OK

    def _tell_prepared(self, prepared: PreparedRequest, args: argparse.Namespace) -> None:
        for notice in prepared.notices:
            if notice not in self._notices:  # once, however many replies there are
                self._notice(notice)
        if args.show_prompt:
            self._messages.block(f"--- prompt: {len(prepared.prompt_ids)} tokens ---\n{prepared.prompt_text}")
            self._messages.note("--- end of prompt ---")

    def _end_line(self) -> None:
        """What people see next does not land in a line of the answer."""
        if self._answer.started:
            self._answer.end()

    def _open_model(self, config: Config) -> OpenModel:
        model = self._open(config, self._progress)
        self._progress.close()
        for notice in model.notices:
            self._notice(notice)
        return model

    def _finish(self, report: RunReport, args: argparse.Namespace) -> None:
        """Complete stdout first: on a terminal what follows on stderr must not land in the answer's line."""
        if args.json:
            self._print_json(report.to_object())
        else:
            if args.no_stream:
                self._answer.write(report.completion.text)
            if self._answer.started or report.completion.finish_reason != "cancelled":
                self._answer.end()
        self._signals.announce()
        for line in (report.cut_notice, *(report.lines() if args.verbose else ())):
            if line:
                self._messages.note(line)

    def _shown(self, stream: Iterator[Event], args: argparse.Namespace) -> Iterator[Event]:
        """The same events, each shown as it passes."""
        live = not (args.json or args.no_stream)
        thinking = ThinkingView(self._messages, shown=args.show_thinking)
        for event in stream:
            if isinstance(event, Progress):
                self._progress(event)
            elif isinstance(event, Delta):
                self._progress.close()
                thinking.show(event)
                if live and event.channel == "content":
                    self._answer.write(event.text)
            elif isinstance(event, Finish):
                thinking.close()
            yield event
        self._progress.close()

    def _print_json(self, value: Mapping[str, Any]) -> None:
        self._answer.write(json.dumps(value, ensure_ascii=False) + "\n")

    def _notice(self, text: str) -> None:
        """Tell people at once; `--json` repeats it to programs."""
        if text:
            self._notices.append(text)
            self._messages.note(text)


def _check_options(options: GenerationOptions) -> None:
    """What no model could keep is refused before one is loaded."""
    if options.constraint is not None:
        check_given_constraint(options.constraint)
