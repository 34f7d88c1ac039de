"""`llm-local compare PROMPT A B`: the same prompt through several models or settings, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any, Final

from llm_local.chat.compare import Begun, Comparison, Ended, Row
from llm_local.chat.contestants import make_contestant
from llm_local.chat.models import ChatModel
from llm_local.chat.sampling_choices import OptionChoices
from llm_local.config import Config, load_config
from llm_local.conversations.exports import write_file
from llm_local.errors import InvalidRequest
from llm_local.events import Progress
from llm_local.messages import Message
from llm_local.terminal.exit_codes import OK, RUNTIME_FAILURE
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.piped_input import decode_argument, read_prompt
from llm_local.terminal.process import prepare_process
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.sanitize import show_controls
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import STDIN, AnswerWriter, Messages
from llm_local.terminal.tables import aligned

__all__ = ["add_flags", "run"]

# Narrower columns are hard to read; then the answers come one below the other.
_LEAST_WIDTH: Final = 30


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        help="What to ask. Piped input comes first, then a blank line, then PROMPT; - takes the input alone.",
    )
    parser.add_argument(
        "contestants",
        nargs="+",
        metavar="MODEL[,NAME=VALUE...]",
        help="A model, or settings of the one of --model, or both: starter, temperature=0, starter,top_k=1.",
    )
    add_setting_flags(
        parser,
        ("model_id", "quantization", "torch_dtype", "device_map", "context_length", "offline"),
    )
    add_setting_flags(parser, ("system_prompt", "max_new_tokens", "temperature", "top_p", "top_k", "seed"))
    parser.add_argument("--save", metavar="FILE", help="also write all of it to FILE, as Markdown")
    parser.add_argument("--force", action="store_true", help="write over FILE where it is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    """Ask all, one after the other, and print columns on a terminal, Markdown in a pipe, or JSON.

    A model that fails is a row of the table; when none answers, the exit code is 1.

    Raises:
        LocalLLMError: the flags are wrong, or the file cannot be written.
    """
    answer = AnswerWriter.take_stdout()  # whatever libraries and plug-ins print is no answer
    signals = StopSignals(messages)
    signals.install()
    config = load_config(setting_flags(args))
    for warning in config.warnings:
        messages.note(warning)
    file = None if args.save is None else Path(args.save)
    if file is not None and file.exists() and not args.force:
        raise InvalidRequest(f"{file} is there already.", "Write over it with --force.", param="save")
    progress = ProgressReporter(messages)
    comparison = _comparison(args, config, messages, progress)
    prepare_process(config)
    signals.on_stop = comparison.cancel
    _ask_all(comparison, messages, progress)
    answer.write(_output(args, comparison, wide=answer.on_terminal))
    if file is not None:
        write_file(file, comparison.markdown(), may_overwrite=lambda: args.force)
        messages.note(f"Written to {file}.")
    signals.announce()
    if signals.code is not None:
        return signals.code
    return OK if any(row.completion is not None for row in comparison.rows) else RUNTIME_FAILURE


def _comparison(
    args: argparse.Namespace, config: Config, messages: Messages, progress: ProgressReporter
) -> Comparison:
    system = decode_argument(config.system_prompt or "")
    prompt, notice = read_prompt(decode_argument(args.prompt), messages, STDIN)
    if notice:
        messages.note(notice)
    turns = [*([Message("system", system)] if system else []), Message("user", prompt)]

    def open_by_name(ref: str) -> ChatModel:
        # Late: it leads to torch, and what is wrong with the words is known by now.
        from llm_local.repl.opening import with_model
        from llm_local.terminal.asking import open_model

        model = open_model(with_model(config, ref), progress)
        progress.close()
        for notice in filter(None, model.notices):
            messages.note(notice)
        return model

    choices = OptionChoices(config)
    names = [decode_argument(name) for name in args.contestants]
    # settings without a model are about the one of --model
    whole = [f"{config.model_id},{name}" if "=" in name.split(",")[0] else name for name in names]
    return Comparison(turns, [make_contestant(name, choices, None, open_by_name) for name in whole])


def _ask_all(comparison: Comparison, messages: Messages, progress: ProgressReporter) -> None:
    for event in comparison:
        if isinstance(event, Begun):
            messages.status(f"{event.index} of {event.total}: {event.label}")
        elif isinstance(event, Progress):
            progress(event)
        elif isinstance(event, Ended):
            progress.close()
            if event.row.error:
                messages.note(f"{event.row.label}: {event.row.error}")
    progress.close()


def _output(args: argparse.Namespace, comparison: Comparison, *, wide: bool) -> str:
    if args.json:
        return (
            json.dumps({"answers": [_to_object(row) for row in comparison.rows]}, ensure_ascii=False) + "\n"
        )
    if not wide:
        return comparison.markdown()
    table = comparison.table()
    lines = "".join(f"{note}\n" for note in table.notes)
    return f"{_columns(comparison.rows)}\n{aligned(table.columns, table.rows)}{lines}"


def _columns(rows: list[Row]) -> str:
    """The answers beside one another, or below where the terminal is too narrow."""
    shown = [(show_controls(row.label), show_controls(_text(row))) for row in rows]
    width = shutil.get_terminal_size().columns
    if width < _LEAST_WIDTH * len(shown):
        return "\n".join(f"--- {label} ---\n{text}\n" for label, text in shown)
    # Late: only a person at a wide terminal needs it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, expand=True)
    for label, _ in shown:
        table.add_column(Text(label), ratio=1, overflow="fold")
    table.add_row(*(Text(text) for _, text in shown))
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None).print(table)
    return drawn.getvalue()


def _text(row: Row) -> str:
    return f"(no answer: {row.error})" if row.completion is None else row.completion.text


def _to_object(row: Row) -> dict[str, Any]:
    if row.completion is None:
        return {"label": row.label, "error": row.error}
    done = row.completion
    return {
        "label": row.label,
        "text": done.text,
        "reasoning": done.reasoning,
        "finish_reason": done.finish_reason,
        "usage": dataclasses.asdict(done.usage) | {"total_tokens": done.usage.total_tokens},
        "timings": dataclasses.asdict(done.timings) | {"total_s": row.total_s},
        "tokens_per_s": row.tokens_per_s,
        "seed": row.seed,
    }
