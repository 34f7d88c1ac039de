"""`llm-local bench`: how fast this machine runs a model, and what noise there was."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, get_args

from llm_local.cli.version import versions
from llm_local.config import Config, load_config
from llm_local.errors import InvalidRequest
from llm_local.settings.declarations import SETTINGS
from llm_local.specs import Kernels
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.process import prepare_process
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.streams import AnswerWriter, Messages

if TYPE_CHECKING:
    from llm_local.bench.plan import Plan, Takes
    from llm_local.bench.report import BenchReport
    from llm_local.bench.subjects import Subject

__all__ = ["add_flags", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    # Late: `--help` of the other verbs does not need the shapes.
    from llm_local.bench.plan import SCENARIOS
    from llm_local.bench.subjects import SHAPES

    parser.add_argument(
        "scenario",
        nargs="?",
        choices=tuple(SCENARIOS),
        default="decode",
        metavar="SCENARIO",
        help="; ".join(f"{name}: {takes.help}" for name, takes in SCENARIOS.items()) + ". Default: decode.",
    )
    add_setting_flags(parser, ("model_id", "quantization", "device_map", "torch_dtype", "offline"))
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        metavar="SHAPE",
        help=f"Instead of a model, random weights of a published shape: {', '.join(SHAPES)}. Nothing is "
        "downloaded, and nothing packed unless --quant is given.",
    )
    _add_numbers(parser, SCENARIOS)
    parser.add_argument(
        "--kernels",
        choices=get_args(Kernels),
        metavar="KERNELS",
        help=f"{SETTINGS['kernels'].help} One of {', '.join(get_args(Kernels))}.",
    )
    parser.add_argument(
        "--threads",
        type=_count("--threads"),
        metavar="N",
        help="CPU threads, for us and for the peers; a small model takes one. Default: all cores.",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="PEER",
        help="Measure another program on the same prompts in turn: transformers, or its server with continuous "
        "batching as transformers:continuous, or llama.cpp in the format nearest to ours, or llama.cpp:FORMAT. Can be "
        f"given several times: {_takers(SCENARIOS)}",
    )
    parser.add_argument(
        "--peer-python",
        metavar="PATH",
        default=os.environ.get("BENCH_PEER_PYTHON") or sys.executable,
        help="The Python that has llama-cpp-python and gguf. Default: BENCH_PEER_PYTHON, else our own.",
    )
    parser.add_argument(
        "--rounds", type=_count("--rounds"), default=3, metavar="N", help="Repeat everything. Default: 3."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every round")


def _add_numbers(parser: argparse.ArgumentParser, scenarios: Mapping[str, Takes]) -> None:
    for name, text in _NUMBERS.items():
        defaults = (
            f"{_shown(getattr(takes, name))} ({one})"
            for one, takes in scenarios.items()
            if getattr(takes, name)
        )
        parser.add_argument(
            _flag(name), type=_READERS[name], metavar="N", help=f"{text} Default: {', '.join(defaults)}."
        )


def _takers(scenarios: Mapping[str, Takes]) -> str:
    """Which peers go with which scenario."""
    peers = dict.fromkeys(peer for takes in scenarios.values() for peer in takes.against)
    told = (
        f"{peer} with {', '.join(name for name, takes in scenarios.items() if peer in takes.against)}"
        for peer in peers
    )
    return f"{'; '.join(told)}."


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Measure and print a table, or JSON. Ctrl-C prints what was measured until then.

    Raises:
        LocalLLMError: the flags are wrong, or the model cannot be had, or does not fit.
        KeyboardInterrupt: after what was measured is printed.
    """
    if args.shape is not None and args.model_id is not None:
        raise InvalidRequest("--shape and --model exclude each other.", "Drop one of the two.", param="shape")
    plan = _plan(args)
    config = load_config(setting_flags(args))
    for warning in config.warnings:
        messages.note(f"warning: {warning}")
    prepare_process(config)
    if args.threads is not None:  # read when torch is imported, which is later
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the report, whatever a library prints
        report = _measure(plan, config, args.shape, messages)
    if report.interrupted and not report.rounds:
        raise KeyboardInterrupt
    answer.write((json.dumps(report.to_object(), indent=2) if args.json else report.text()) + "\n")
    if report.interrupted:
        raise KeyboardInterrupt


def _plan(args: argparse.Namespace) -> Plan:
    # Late: other verbs do not need it.
    from llm_local.bench.peers.opening import Peers, parse_peer
    from llm_local.bench.plan import Plan

    peers = Peers(tuple(dict.fromkeys(map(parse_peer, args.against))), args.peer_python)
    numbers = {name: value for name in _NUMBERS if (value := getattr(args, name)) is not None}
    plan = Plan(args.scenario, rounds=args.rounds, peers=peers, **numbers)
    peers.check()
    return plan


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
    interrupted = False
    with contextlib.ExitStack() as cleanup:
        messages.status(f"{plan.scenario}: getting ready")
        scenario = prepare(
            plan,
            subject,
            cleanup,
            lambda: messages.status(f"{plan.scenario}: {len(rounds)} measurements done"),
        )
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
    from llm_local.bench.subjects import open_shape, open_weights

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


def _counts(flag: str) -> Callable[[str], tuple[int, ...]]:
    read = _count(flag)
    return lambda text: tuple(sorted({read(part.strip()) for part in text.split(",")}))


def _rate(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) == 0:
        raise InvalidRequest(f"--rate is {text!r}, but must be a number above 0.", param="--rate")
    return float(text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


_NUMBERS: Final = {
    "context": "Tokens before the first new one: of each prompt (prefix: of the history). Several, with commas, for "
    "decode, prefill and batch.",
    "new_tokens": "Tokens that each sequence generates.",
    "streams": "How many sequences, or clients, at once, with commas.",
    "requests": "How many requests arrive.",
    "rate": "Requests a second, on average.",
}
_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "context": _counts("--context"),
    "new_tokens": _count("--new-tokens"),
    "streams": _counts("--streams"),
    "requests": _count("--requests"),
    "rate": _rate,
}
