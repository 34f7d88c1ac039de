"""`llm-local pull`: a model from the hub to this disk, whole and verified, after a look at whether it fits here."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_local.config import Config, load_config
from llm_local.errors import HubUnavailable, InvalidRequest
from llm_local.terminal.flags import add_setting_flags, setting_flags
from llm_local.terminal.process import prepare_process
from llm_local.terminal.sanitize import sanitize_line
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import AnswerWriter, Messages

if TYPE_CHECKING:
    from llm_local.cli.fit_check import FitCheck
    from llm_local.store.destinations import Destination
    from llm_local.store.download import RemoteFile
    from llm_local.store.remote import RemoteModel, Source
    from llm_local.store.wanted import Wanted

__all__ = ["add_flags", "hub_of", "run"]

_NAME_HELP = (
    "org/name, org/name@revision, hf.co/org/name, the address of its page on the hub, or one GGUF file of it: "
    "org/name:Q4_K_M, org/name:model-q4.gguf (fetched and verified; GGUF cannot be run yet). Several are fetched one "
    "after the other, until one fails."
)


@dataclass(frozen=True, slots=True)
class _Pulled:
    """One model that was looked at, and what it consists of."""

    wanted: Wanted
    remote: RemoteModel
    files: tuple[RemoteFile, ...]
    goal: Destination
    check: FitCheck


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    parser.add_argument(
        "--revision", metavar="REVISION", help="A branch, a tag or a commit; the same as NAME@REVISION."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="Only say whether it fits: exit code 0 when it does, 6 when not. Nothing is written.",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="Fetch it though it does not fit in memory, and overwrite other files in DIR/. The disk must have room.",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="Put real files into DIR/ instead of links into the cache of the hub's tools.",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="Ask this hub instead, as HF_ENDPOINT says it for every run. HF_TOKEN is not sent to it.",
    )
    parser.add_argument(
        "--context",
        dest="context_length",
        metavar="N",
        help="Count memory for N tokens of context. Default: CONTEXT_LENGTH, else 4096 or what the model has.",
    )
    add_setting_flags(parser, ("quantization", "torch_dtype", "device_map", "offline"))
    parser.add_argument("-q", "--quiet", action="store_true", help="Say nothing on stderr but errors.")
    parser.add_argument(
        "--json",
        action="store_true",
        help="Print one JSON object for each NAME, each in one line, once it is there (or checked): what came from "
        "where, its files, and the fit check. Progress stays on stderr.",
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Fetch each model and print its folder, or with --check whether it fits.

    Raises:
        LocalLLMError: a name is wrong, the hub refuses, it does not fit, or what arrives is damaged.
    """
    config = load_config(setting_flags(args))
    source = hub_of(config, args.mirror, messages)
    # Late: what follows loads the network's library, and `--help` needs none.
    from llm_local.store.wanted import parse_wanted

    wanted = [parse_wanted(name, source.endpoint, args.revision) for name in args.names]
    if args.output is not None and len(wanted) > 1:
        raise InvalidRequest("--output takes one model.", "Give each a folder of its own.", param="output")
    for one in wanted:
        _pull(one, source, config, _Ways(args, answer, messages))


def hub_of(config: Config, mirror: str | None, messages: Messages) -> Source:
    """The hub to ask, once the settings hold for the process.

    Raises:
        HubUnavailable: it is switched off. ConfigError: an address or a token cannot be used.
    """
    prepare_process(config)
    for warning in config.warnings:
        messages.note(warning)
    if config.offline:
        raise HubUnavailable(
            f"The model hub is switched off (offline, by {config.origin('offline')}).",
            "Go online, or use a model on this disk.",
        )
    # Late: they load the network's library.
    from llm_local.store.endpoint import checked_endpoint, origin
    from llm_local.store.pulling import hub_source
    from llm_local.store.remote import Source

    usual = hub_source()
    if mirror is None:
        return usual
    endpoint = checked_endpoint(mirror, "--mirror")
    same = origin(endpoint) == origin(usual.endpoint)
    if usual.token is not None and not same:
        messages.note(
            "HF_TOKEN is not sent to the mirror; set HF_ENDPOINT instead of --mirror to have it sent."
        )
    return Source(endpoint, usual.token if same else None)


@dataclass(frozen=True, slots=True)
class _Ways:
    """What was asked for, and where to say things."""

    args: argparse.Namespace
    answer: AnswerWriter
    messages: Messages

    def say(self, text: str) -> None:
        """A block for people, on stderr."""
        if not self.args.quiet:
            self.messages.block(text)


def _pull(wanted: Wanted, source: Source, config: Config, ways: _Ways) -> None:
    # Late, as above; and the fit check leads to numpy.
    from llm_local.cli.fit_check import check_disk, check_memory
    from llm_local.store.destinations import FolderDestination
    from llm_local.store.pulling import fetch
    from llm_local.terminal.pull_progress import PullProgress

    args = ways.args
    with _looked_at(wanted, source, config, args.output) as pulled:
        _show_check(pulled, ways)
        check_disk(pulled.check, wanted.text, pulled.goal.folder)
        if not args.force or args.check:
            hint = (
                "Choose a smaller model."
                if args.check
                else "Choose a smaller model, or fetch it with --force."
            )
            check_memory(pulled.check, wanted.text, hint)
        if args.check:
            return
        if isinstance(pulled.goal, FolderDestination):
            pulled.goal.make_way(pulled.files, force=args.force)
        before = pulled.check.missing_bytes
        progress = PullProgress(ways.messages)
        try:
            folder = fetch(
                pulled.remote, pulled.files, pulled.goal, (lambda event: None) if args.quiet else progress
            )
        finally:
            progress.close()
        if args.json:
            ways.answer.write(
                json.dumps({**_to_object(pulled), "path": str(folder), "fetched_bytes": before}) + "\n"
            )
        else:
            ways.answer.write(f"{_shown_path(folder, pulled)}\n")


@contextlib.contextmanager
def _looked_at(wanted: Wanted, source: Source, config: Config, output: str | None) -> Iterator[_Pulled]:
    # Late: see `run`.
    from llm_local.cli.fit_check import check_fit
    from llm_local.store.destinations import CacheDestination, FolderDestination
    from llm_local.store.pulling import needed_files
    from llm_local.store.remote import open_remote
    from llm_local.store.snapshots import RepoCache, cache_folder

    with open_remote(wanted.name, source) as remote:
        repo = RepoCache(cache_folder(), wanted.name.ref)
        files = needed_files(remote, repo, wanted.gguf)
        goal: Destination
        if output is not None:
            goal = FolderDestination(Path(output).expanduser(), repo)
        else:
            commit = remote.description.commit
            goal = CacheDestination(repo, remote.asked.revision, commit, whole=not wanted.gguf)
        yield _Pulled(wanted, remote, files, goal, check_fit(remote, files, goal, config))


def _show_check(pulled: _Pulled, ways: _Ways) -> None:
    """On stdout where it is the answer, else on stderr."""
    if ways.args.check and ways.args.json:
        ways.answer.write(json.dumps(_to_object(pulled)) + "\n")
        return
    about = pulled.remote.description
    rows = [
        ("model", f"{pulled.wanted.text} at {about.commit[:12]} on {pulled.remote.asked.endpoint}"),
        ("license", (about.license or "none is declared") + (", gated" if about.gated else "")),
        ("download", f"{format_bytes(pulled.check.download_bytes)} in {len(pulled.files)} files"),
        *pulled.check.lines(),
    ]
    text = "".join(f"{name:<11} {sanitize_line(value)}\n" for name, value in rows)
    if ways.args.check:
        ways.answer.write(text)
    else:
        ways.say(text)


def _to_object(pulled: _Pulled) -> dict[str, Any]:
    about = pulled.remote.description
    return {
        "model": pulled.wanted.name.ref,
        "revision": pulled.remote.asked.revision,
        "commit": about.commit,
        "hub": pulled.remote.asked.endpoint,
        "license": about.license,
        "gated": about.gated,
        "files": [{"name": file.name, "size": file.size, "digest": file.digest} for file in pulled.files],
        "bytes": pulled.check.download_bytes,
        "fit": pulled.check.to_object(),
    }


def _shown_path(folder: Path, pulled: _Pulled) -> str:
    """A GGUF model is a file; any other is a folder."""
    return str(folder / pulled.files[0].name) if pulled.wanted.gguf else str(folder)
