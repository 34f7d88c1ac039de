"""`llm-local bench`: how fast this machine runs a model, and what noise there was."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_local.cli.version import versions
from llm_local.config import Config, load_config
from llm_local.errors import InvalidRequest
from llm_local.logs import configure_logging
from llm_local.privacy import apply_privacy_defaults
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.streams import AnswerWriter, Messages

if TYPE_CHECKING:
    from llm_local.bench.driving import Subject
    from llm_local.bench.plan import Plan
    from llm_local.bench.report import BenchReport

__all__ = ["add_flags", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    # Late: `--help` of the other verbs does not need the shapes.
    from llm_local.bench.plan import SCENARIOS, SHAPES

    add_setting_flags(parser, ("model_id", "device_map", "torch_dtype", "offline"))
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        metavar="SHAPE",
        help=f"Instead of a model, random weights of a published shape: {', '.join(SHAPES)}. Nothing is downloaded.",
    )
    parser.add_argument(
        "--scenario",
        choices=tuple(SCENARIOS),
        default="decode",
        metavar="SCENARIO",
        help="decode: sequences side by side. prefix: the second turn of a conversation, with the prefix cache and "
        "without. stall: a running stream while a long prompt is read. Default: decode.",
    )
    parser.add_argument(
        "--prompt-tokens",
        type=_count("--prompt-tokens"),
        metavar="N",
        help="Length of each prompt (prefix: of the history). Default: "
        + ", ".join(f"{one.prompt_tokens} ({name})" for name, one in SCENARIOS.items())
        + ".",
    )
    parser.add_argument(
        "--new-tokens",
        type=_count("--new-tokens"),
        metavar="N",
        help="Tokens that each sequence generates. Default: "
        + ", ".join(f"{one.new_tokens} ({name})" for name, one in SCENARIOS.items())
        + ".",
    )
    parser.add_argument(
        "--sequences",
        type=_counts,
        default=(),
        metavar="N,N",
        help="How many sequences at once, with decode. Default: 1,4,8,16.",
    )
    parser.add_argument(
        "--against",
        choices=("transformers",),
        default="",
        metavar="PEER",
        help="With decode, measure transformers' generate on the same weights in turn.",
    )
    parser.add_argument(
        "--rounds", type=_count("--rounds"), default=3, metavar="N", help="Repeat everything. Default: 3."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every round")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Measure and print a table, or JSON. Ctrl-C prints what was measured until then.

    Raises:
        LocalLLMError: the flags are wrong, or the model cannot be had, or does not fit.
        KeyboardInterrupt: after what was measured is printed.
    """
    # Late: other verbs do not need it.
    from llm_local.bench.plan import Plan

    if args.shape is not None and args.model_id is not None:
        raise InvalidRequest("--shape and --model exclude each other.", "Drop one of the two.", param="shape")
    plan = Plan(args.scenario, args.prompt_tokens, args.new_tokens, args.sequences, args.rounds, args.against)
    config = load_config(setting_flags(args))
    for warning in config.warnings:
        messages.note(f"warning: {warning}")
    apply_privacy_defaults(os.environ)
    os.environ.update(config.hub_environment())
    configure_logging(config.log_level, secrets=config.secrets)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the report, whatever a library prints
        report = _measure(plan, config, args.shape, messages)
    if report.interrupted and not report.rounds:
        raise KeyboardInterrupt
    answer.write((json.dumps(report.to_object(), indent=2) if args.json else report.text()) + "\n")
    if report.interrupted:
        raise KeyboardInterrupt


def _measure(plan: Plan, config: Config, shape: str | None, messages: Messages) -> BenchReport:
    # Late: like the plan, and these look at the machine.
    from llm_local.bench.machine import peak_rss_bytes, this_machine
    from llm_local.bench.plan import prepare
    from llm_local.bench.report import BenchReport
    from llm_local.bench.scenario import Round

    machine = this_machine()
    if machine.busy:
        messages.note(
            f"warning: other programs keep this machine {machine.busy_percent:.0f}% busy "
            f"(load {machine.load_average:.2f}): the figures will be too low."
        )
    subject = _open(config, shape, messages)
    rounds: list[Round] = []
    scenario = prepare(
        plan, subject, lambda: messages.status(f"{plan.scenario}: {len(rounds)} measurements done")
    )
    interrupted = False
    try:
        for one in scenario.rounds():
            rounds.append(one)
    except KeyboardInterrupt:
        interrupted = True
    messages.status("")
    return BenchReport(
        name=plan.scenario,
        scenario=scenario,
        rounds=rounds,
        info=subject.info,
        machine=machine,
        versions=versions(),
        num_threads=subject.num_threads(),
        peak_rss_bytes=peak_rss_bytes(),
        interrupted=interrupted,
    )


def _open(config: Config, shape: str | None, messages: Messages) -> Subject:
    # Late: like the plan.
    from llm_local.bench.plan import open_shape, open_weights

    if shape is not None:
        return open_shape(shape, config.model_spec(), config.engine_options())
    progress = ProgressReporter(messages)
    subject, notices = open_weights(
        config.model_spec(),
        config.engine_options(),
        explicit=config.is_explicit("model_id"),
        offline=config.offline,
        on_progress=progress,
    )
    progress.close()
    for notice in notices:
        messages.note(notice)
    return subject


def _count(flag: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
            raise InvalidRequest(f"{flag} is {text!r}, but must be a number from 1.", param=flag)
        return int(text)

    return read


def _counts(text: str) -> tuple[int, ...]:
    read = _count("--sequences")
    return tuple(sorted({read(part.strip()) for part in text.split(",")}))
