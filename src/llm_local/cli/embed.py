"""`llm-local embed`: texts in, one vector each out, as the model's own repository says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

from llm_local.cli.embed_input import Inputs, read_inputs
from llm_local.cli.embed_output import FORMATS, VectorWriter, check_output, make_writer
from llm_local.cli.embed_report import Job, cut, details, skipped, summary
from llm_local.config import Config, load_config
from llm_local.embedding.batches import BATCH_TOKENS, GPU_BATCH_TOKENS
from llm_local.embedding.layout import POOLING_MODES
from llm_local.errors import InvalidRequest
from llm_local.options import Bound
from llm_local.terminal.exit_codes import OK
from llm_local.terminal.flags import add_setting_flags, number_reader, setting_flags
from llm_local.terminal.piped_input import decode_argument
from llm_local.terminal.process import prepare_process
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import STDIN, STDOUT, AnswerWriter, Messages

__all__ = ["add_flags", "run"]

_COUNT: Final = Bound(1, 1 << 24, integer=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "text",
        nargs="*",
        metavar="TEXT",
        help="What to embed, each a text of its own. Without, or with -, each line of standard input is one.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "-0", "--null", action="store_true", help="texts on stdin end in NUL, and may have lines"
    )
    source.add_argument(
        "--json-lines",
        action="store_true",
        help='each line of stdin is a JSON object {"text": "..."}, with an "id" that comes back, if you like',
    )
    parser.add_argument(
        "--skip-empty", action="store_true", help="leave empty texts out; without, one is an error"
    )
    _add_vector_flags(parser)
    add_setting_flags(parser, ("model_id", "torch_dtype", "device_map", "context_length", "offline"))
    parser.add_argument(
        "--batch-tokens",
        type=number_reader("--batch-tokens", _COUNT),
        metavar="TOKENS",
        help=f"Tokens that go through the model at once: bounds its memory. "
        f"Default: {BATCH_TOKENS}, on a GPU {GPU_BATCH_TOKENS}.",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORM",
        help="jsonl: a JSON object a line, as they are done; json: one object with everything; npy: a NumPy file of "
        "float32. Default: jsonl.",
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of stdout")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print model, tokens and times on stderr"
    )


def _add_vector_flags(parser: argparse.ArgumentParser) -> None:
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt-name",
        metavar="NAME",
        help="put a prompt of the model in front of each text: query, document, ...",
    )
    prompt.add_argument(
        "--prompt", metavar="TEXT", help="put TEXT in front of each text; empty for no prompt"
    )
    parser.add_argument(
        "--dimensions",
        type=number_reader("--dimensions", _COUNT),
        metavar="COUNT",
        help="keep so many numbers of each vector, for models trained so (Matryoshka)",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="leave out the end of texts that are too long, and tell of which",
    )
    parser.add_argument(
        "--pooling",
        choices=POOLING_MODES,
        metavar="MODE",
        help=f"how tokens become one vector: {', '.join(POOLING_MODES)}. Default: as the model's repository says.",
    )
    normalize = parser.add_mutually_exclusive_group()
    normalize.add_argument(
        "--normalize",
        action="store_true",
        default=None,
        help="scale vectors to length 1, whatever the repository says",
    )
    normalize.add_argument(
        "--no-normalize", dest="normalize", action="store_false", help="leave the length of vectors as it is"
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    """Embed, print, and return the exit code.

    Raises:
        LocalLLMError: flags or texts are wrong, the model cannot be had or is of another kind, or a text is too long.
    """
    form = _form(args)
    check_output(args.output, STDIN)
    config = load_config(setting_flags(args))
    notices = [*config.warnings]
    if config.is_explicit("quantization") and config.quantization not in ("none", "auto"):
        notices.append(
            f"QUANTIZATION (from {config.origin('quantization')}) is not used: embeddings are computed in the "
            "precision of the weights."
        )
    inputs = read_inputs(args, messages)
    notices += [one for one in (inputs.notice, skipped(inputs)) if one]
    for one in notices:
        messages.note(one)
    prepare_process(config)
    with (
        contextlib.redirect_stdout(sys.stderr),
        _stop_signals(messages) as signals,
    ):  # stdout is for the answer
        progress = ProgressReporter(messages)
        try:
            job = _prepare(args, config, inputs, progress)
            progress.close()
            late = [*job.embedder.notices, *cut(job)]
            for one in late:
                messages.note(one)
            with make_writer(form, answer, args.output) as writer:
                embed_s = _embed(job, writer, signals, None if _shows_vectors(args) else progress)
                if signals.code is None:
                    writer.finish(summary(job, embed_s, [*notices, *late]))
        finally:
            progress.close()
        if signals.code is not None:
            if not writer.keeps_part:
                messages.note("stopped before the last vector, without which the output is not whole")
            signals.announce()
            return signals.code
    if args.verbose:
        for line in details(job, embed_s):
            messages.note(line)
    return OK


def _form(args: argparse.Namespace) -> str:
    """The form of the output."""
    if args.json and args.format not in (None, "json"):
        raise InvalidRequest(
            f"--json and --format {args.format} exclude each other.", "Drop one of the two.", param="format"
        )
    form = "json" if args.json else str(args.format or "jsonl")
    if form == "npy" and args.output is None and os.isatty(STDOUT):
        raise InvalidRequest(
            "npy is no text, and stdout is a terminal.",
            "Give --output FILE, or write > FILE.",
            param="format",
        )
    return form


def _shows_vectors(args: argparse.Namespace) -> bool:
    """True when vectors run over the terminal: they are progress enough."""
    return args.output is None and os.isatty(STDOUT)


def _prepare(args: argparse.Namespace, config: Config, inputs: Inputs, progress: ProgressReporter) -> Job:
    """The model, and what it will read."""
    # Late: what is wrong with the words is known by now.
    from llm_local.loaders.first_import import first_import
    from llm_local.model_loader import resolve_model

    found = resolve_model(
        dataclasses.replace(config.model_spec(), quantization="none"),  # embeddings are never packed
        explicit=config.is_explicit("model_id"),
        offline=config.offline,
        on_progress=progress,
    )
    # Later still: it imports torch and transformers, and a model that is not there is known by now.
    with first_import("torch"):
        from llm_local.embedder import EmbedOptions, TextEmbedder

    embedder = TextEmbedder.load(
        found,
        pooling=args.pooling,
        normalize=args.normalize,
        batch_tokens=None if args.batch_tokens is None else int(args.batch_tokens),
        on_progress=progress,
    )
    options = EmbedOptions(
        args.prompt_name,
        None if args.prompt is None else decode_argument(args.prompt),
        None if args.dimensions is None else int(args.dimensions),
        args.truncate,
    )
    texts = [one.text for one in inputs.texts]
    prepared = embedder.prepare(texts, options, lambda index: inputs.texts[index].name)
    return Job(embedder, prepared, options, inputs)


def _embed(job: Job, writer: VectorWriter, signals: StopSignals, progress: ProgressReporter | None) -> float:
    """Write every vector, or those before a signal, and return the seconds that took."""
    began = time.perf_counter()
    writer.begin(len(job.prepared.ids), job.dimensions)
    signals.on_stop = lambda: (
        None
    )  # from here on there is something to keep, and the embedder asks for the signal
    for found in job.embedder.stream(
        job.prepared, job.options, on_progress=progress, stopped=lambda: signals.code is not None
    ):
        writer.add(job.inputs.texts[found.index], found)
    return time.perf_counter() - began


@contextlib.contextmanager
def _stop_signals(messages: Messages) -> Iterator[StopSignals]:
    """Signals as they end this verb, and afterwards as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    signals = StopSignals(messages)
    signals.install()
    try:
        yield signals
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
