"""`llm-local decide`: which of some answers the model would give, with exact probabilities and nothing sampled."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from llm_local.config import Config, load_config
from llm_local.errors import InvalidRequest
from llm_local.generation.choices import Decision, DecisionOptions, Normalize, check_choices
from llm_local.messages import Message
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.piped_input import (
    compose_prompt,
    decode_argument,
    decode_input,
    read_input,
    read_prompt,
)
from llm_local.terminal.process import prepare_process
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.streams import STDIN, AnswerWriter, Messages
from llm_local.terminal.tables import aligned

if TYPE_CHECKING:
    from llm_local.terminal.asking import OpenModel

__all__ = ["add_flags", "run"]

# What would break a line of the output into several, or into other columns.
_ESCAPES: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be decided; `raw` without chat template."""

    question: str
    choices: tuple[str, ...]
    options: DecisionOptions
    raw: bool


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "question",
        nargs="?",
        metavar="QUESTION",
        help="What to decide. Piped input comes first, then a blank line, then QUESTION; - takes the input alone.",
    )
    parser.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="TEXT",
        help="An answer to consider, letter by letter. Given at least twice.",
    )
    parser.add_argument(
        "--choices",
        metavar="FILE",
        help="Read answers from FILE, one a line; - is stdin. Empty lines do not count.",
    )
    _add_scoring_flags(parser)
    parser.add_argument(
        "--raw", action="store_true", help="Continue QUESTION as it is, without chat template."
    )
    add_setting_flags(
        parser,
        (
            "model_id",
            "quantization",
            "torch_dtype",
            "device_map",
            "context_length",
            "offline",
            "system_prompt",
        ),
    )
    parser.add_argument(
        "--best", action="store_true", help="print the text of the most probable choice alone"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print token counts, passes and timings on stderr"
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Decide and print: a table on a terminal, `probability<TAB>choice` lines in a pipe, the best alone, or JSON.

    Raises:
        LocalLLMError: the flags are wrong, the model cannot be had, or question and choices do not fit it.
    """
    answer = AnswerWriter.take_stdout()  # whatever libraries and plug-ins print is no answer
    if args.best and args.json:
        raise InvalidRequest("--best and --json exclude each other.", "Drop one of the two.", param="best")
    choices = _choices(args, messages)
    options = DecisionOptions(args.whole, args.normalize)
    config = load_config(setting_flags(args))
    notices = [*config.warnings]
    if args.raw and config.system_prompt:
        if config.source("system_prompt") == "flag":
            raise InvalidRequest(
                "--system-prompt has no place with --raw.", "Drop one of the two.", param="system_prompt"
            )
        notices.append(f"SYSTEM_PROMPT (from {config.origin('system_prompt')}) is not used with --raw.")
    question, notice = _question(args, messages)
    asked = _Asked(question, choices, options, args.raw)
    notices = [one for one in (*notices, notice) if one]
    for one in notices:
        messages.note(one)
    prepare_process(config)
    progress = ProgressReporter(messages)
    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)
        # Late: it leads to torch, and what is wrong with the words is known by now.
        from llm_local.terminal.asking import open_model

        model = open_model(config, progress)
        decision = _decide(model, config, asked, progress)
    late = [one for one in (*model.notices, *decision.notices) if one]
    for one in late:
        messages.note(one)
    if answer.on_terminal and not (args.json or args.best):
        answer.write(_table(decision))
    else:
        answer.write(_output(args, decision, model, [*notices, *late]))
    if not args.json:
        for line in (_coverage(decision), *(_details(decision, model) if args.verbose else ())):
            messages.note(line)


def _add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument(
        "--whole",
        action="store_true",
        default=None,
        help="Score each choice as the whole reply: that it ends there is part of its probability. Default: a reply "
        "may go on, unless one choice is the beginning of another.",
    )
    whole.add_argument(
        "--no-whole",
        dest="whole",
        action="store_false",
        help="Score each choice as the beginning of a reply.",
    )
    parser.add_argument(
        "--normalize",
        choices=get_args(Normalize),
        default="none",
        metavar="BY",
        help=f"Compare mean log-probabilities, since longer texts are less likely: {', '.join(get_args(Normalize))}. "
        "Default: none.",
    )


def _choices(args: argparse.Namespace, messages: Messages) -> tuple[str, ...]:
    choices = [decode_argument(choice) for choice in args.choice]
    if args.choices is not None:
        if args.choices == "-" and args.question == "-":
            raise InvalidRequest(
                "Standard input cannot be both the question and the choices.",
                "Give the question as an argument.",
                param="choices",
            )
        data = _read(messages) if args.choices == "-" else _read_file(args.choices, messages)
        lines, notice = decode_input(data)
        if notice:
            messages.note(notice)
        choices += [line for line in (line.removesuffix("\r") for line in lines.split("\n")) if line]
    elif not choices:
        raise InvalidRequest(
            "There is no choice.", "Give each with --choice, or a file with --choices.", param="choices"
        )
    return check_choices(choices)


def _question(args: argparse.Namespace, messages: Messages) -> tuple[str, str]:
    """The question, and a notice about what was piped in, or ""."""
    argument = args.question and decode_argument(args.question)
    if args.choices == "-":  # the input is taken
        return compose_prompt(argument, "", exact=args.raw), ""
    return read_prompt(argument, messages, STDIN, exact=args.raw)


def _read(messages: Messages) -> bytes:
    return read_input(
        STDIN,
        on_wait=lambda: messages.note("waiting for stdin to end (if nothing is piped in: </dev/null)"),
    )


def _read_file(name: str, messages: Messages) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidRequest(f"The file {name!r} cannot be read: {reason}.", param="choices") from None
    try:
        return read_input(descriptor, on_wait=lambda: messages.note(f"waiting for {name} to end"), name=name)
    finally:
        os.close(descriptor)


def _decide(model: OpenModel, config: Config, asked: _Asked, progress: ProgressReporter) -> Decision:
    if asked.raw:
        return model.generator.decide_text(asked.question, asked.choices, asked.options, on_progress=progress)
    system = decode_argument(config.system_prompt or "")
    turns = [*([Message("system", system)] if system else []), Message("user", asked.question)]
    return model.generator.decide_chat(turns, asked.choices, asked.options, on_progress=progress)


def _output(args: argparse.Namespace, decision: Decision, model: OpenModel, notices: list[str]) -> str:
    if args.json:
        return json.dumps(_as_object(decision, model, notices), ensure_ascii=False) + "\n"
    if args.best:
        return decision.best.text + "\n"
    return "".join(f"{one.probability:.6g}\t{_line(one.text)}\n" for one in decision.ranked)


def _table(decision: Decision) -> str:
    rows = [(f"{one.probability:.4f}", f"{one.logprob:.3f}", _line(one.text)) for one in decision.ranked]
    return aligned(("probability", "logprob", "choice"), rows, right={0, 1})


def _as_object(decision: Decision, model: OpenModel, notices: list[str]) -> dict[str, Any]:
    usage = decision.usage
    return {
        "best": decision.best.text,
        "choices": [dataclasses.asdict(one) for one in decision.ranked],
        "coverage": decision.coverage,
        "whole": decision.whole,
        "normalize": decision.normalize,
        "reasoning": decision.reasoning,
        "usage": dataclasses.asdict(usage) | {"total_tokens": usage.total_tokens},
        "choice_tokens": decision.choice_tokens,
        "num_passes": decision.num_passes,
        "timings": dataclasses.asdict(decision.timings) | {"load_s": model.load_s},
        "model": model.info.ref,
        "device": model.info.device,
        "dtype": model.info.dtype,
        "quantization": model.info.quantization,
        "runs_as": model.generator.runs_as,
        "notices": notices,
    }


def _coverage(decision: Decision) -> str:
    how = "is one of the choices" if decision.whole else "begins with one of the choices"
    mean = "" if decision.normalize == "none" else f"; compared by the mean over {decision.normalize}"
    return f"{100 * decision.coverage:.3g}% of what the model would say {how}{mean}"


def _details(decision: Decision, model: OpenModel) -> tuple[str, ...]:
    info, usage = model.info, decision.usage
    return (
        f"model: {info.ref} ({info.architecture}), device {info.device}, dtype {info.dtype}, quantization "
        f"{info.quantization}, {model.generator.runs_as}, loaded in {model.load_s:.2f} s",
        f"prompt: {usage.prompt_tokens} tokens ({usage.cached_tokens} cached), choices: {decision.choice_tokens} "
        f"tokens, {decision.num_passes} forward passes in {decision.timings.prefill_s:.3f} s",
    )


def _line(text: str) -> str:
    return text.translate(_ESCAPES)
