"""`llm-local doctor`: what this machine offers, what llm-local makes of it, and what to mend.

`doctor --egress` runs the real doors where nothing can leave this machine, and says what they asked of the network.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from llm_local.cli.checks.check import Check, worst
from llm_local.config import Config, load_config
from llm_local.errors import ConfigError, InvalidRequest, LocalLLMError
from llm_local.terminal.streams import AnswerWriter, Messages

if TYPE_CHECKING:
    from llm_local.cli.egress.proof import EgressProof, Stage

__all__ = ["LeftThisMachine", "NeedsMending", "add_flags", "checks", "run"]

_SHOWN: Final = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
# Verbs that look at this machine and need no model.
_LOOKS: Final = ("config", "list", "ps", "plugins")
_STARTER: Final = "starter"


class NeedsMending(LocalLLMError):
    """Something on this machine keeps llm-local from working; the report before it says what."""


class LeftThisMachine(LocalLLMError):
    """Something tried to leave this machine, or that nothing did could not be proven."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "--egress",
        action="store_true",
        help="prove that nothing leaves this machine: run config, list, ps, plugins, load, chat and serve with all of "
        "the network but loopback denied, and say what was tried",
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="with --egress: the model to load and chat with, which must be on this disk. Default: starter.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the checks, one a line, or the proof.

    Raises:
        NeedsMending: a check failed.
        LeftThisMachine: the proof does not hold.
        LocalLLMError: the model for the proof cannot be had.
    """
    if args.egress:
        _prove(args.model or _STARTER, answer, messages, as_json=args.json)
        return
    if args.model is not None:
        raise InvalidRequest("--model goes with --egress.", "Drop one of the two.", param="model")
    found = list(checks())
    state = worst(found)
    if args.json:
        told = {"state": state, "checks": [dataclasses.asdict(one) for one in found]}
        answer.write(json.dumps(told, indent=2) + "\n")
    else:
        answer.write(_lines(found))
    if state == "fail":
        wrong = dict.fromkeys(one.name for one in found if one.state == "fail")
        raise NeedsMending(f"{', '.join(wrong)}: see above.")


def checks() -> Iterator[Check]:
    """Look at this machine. Builds the kernels where they are not built yet."""
    # Late, all of them: help needs none.
    from llm_local.cli.checks.folders import check_folders
    from llm_local.cli.checks.kernels import check_kernels
    from llm_local.cli.checks.machine import check_clock, check_machine
    from llm_local.cli.checks.ports import check_ports
    from llm_local.cli.checks.settings import check_privacy, check_settings
    from llm_local.cli.checks.software import check_torch, check_versions

    try:
        config = load_config()
    except ConfigError as error:
        yield Check("settings", error.message, "fail", error.hint or "`llm-local config --help` says how.")
        config = Config()
    yield from check_versions()
    yield from check_machine()
    yield check_clock()
    yield from check_torch()
    yield from check_kernels(config)
    yield from check_settings(config)
    yield from check_folders(config)
    yield from check_ports(config)
    yield from check_privacy(config)


def _lines(found: list[Check]) -> str:
    width = max(len(one.name) for one in found)
    lines = []
    for one in found:
        lines.append(f"{_SHOWN[one.state]:<4}  {one.name:<{width}}  {one.found}")
        if one.mend:
            lines.append(f"{'':<{6 + width}}  -> {one.mend}")
    return "".join(f"{line}\n" for line in lines)


def _prove(model: str, answer: AnswerWriter, messages: Messages, *, as_json: bool) -> None:
    # Late: they start processes, which nothing else here does.
    from llm_local.cli.egress.proof import prove, stage_commands
    from llm_local.cli.main import find_verb
    from llm_local.model_loader import resolve_model

    config = load_config({"model_id": model})
    # A model that is not here would ask the hub, rightly.
    resolve_model(config.model_spec(), explicit=True, offline=True)
    messages.status("running llm-local without a network")
    proof = prove(stage_commands(model, [verb for verb in _LOOKS if find_verb(verb)]))
    messages.status("")
    if as_json:
        answer.write(json.dumps(_proof_object(proof), indent=2) + "\n")
    else:
        answer.write(_proof_lines(proof, offline=config.offline))
    if not proof.holds:
        raise LeftThisMachine(_verdict(proof))


def _proof_object(proof: EgressProof) -> dict[str, object]:
    return {
        "holds": proof.holds,
        "verdict": _verdict(proof),
        "sealed": proof.is_sealed,
        "why_not_sealed": proof.why_not_sealed,
        "watch_works": proof.watch_works,
        "stages": [dataclasses.asdict(stage) for stage in proof.stages],
    }


def _proof_lines(proof: EgressProof, *, offline: bool) -> str:
    how = "Python's audit hook denied and wrote down every socket and name lookup but loopback"
    if proof.is_sealed:
        how += "; all ran in a network namespace that has loopback alone, and the system counted there"
    else:
        how += f"; native code and other programs went unwatched, because {proof.why_not_sealed}"
    seen = "was seen and denied" if proof.watch_works else "was NOT seen"
    rows = [("how", how), ("test", f"an attempt on purpose {seen}")]
    if offline:
        rows.append(("note", "the settings say OFFLINE: this proves nothing about a run without it"))
    rows += [(stage.name, _stage_words(stage, sealed=proof.is_sealed)) for stage in proof.stages]
    rows.append(("verdict", _verdict(proof)))
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {words}\n" for name, words in rows)


def _stage_words(stage: Stage, *, sealed: bool) -> str:
    count = len(stage.attempts)
    words = [f"{count or 'no'} attempt{'' if count == 1 else 's'} to leave this machine"]
    words += map(str, stage.attempts)
    if stage.unseen:
        words.append(f"{stage.unseen} more that the system counted and Python did not announce")
    words += [f"on this machine: {one}" for one in stage.local]
    if stage.programs and not sealed:
        words.append(f"started {', '.join(stage.programs)}, unwatched")
    if stage.failure:
        words.append(stage.failure)
    return "; ".join(words)


def _verdict(proof: EgressProof) -> str:
    if not proof.watch_works:
        return "Nothing is proven: an attempt on purpose was not seen."
    tried = [stage.name for stage in proof.stages if stage.attempts or stage.unseen]
    if tried:
        return f"Something tried to leave this machine, and was denied: {', '.join(tried)}."
    broken = [stage.name for stage in proof.stages if stage.failure]
    if broken:
        return f"Not all is proven, because it did not come to its end: {', '.join(broken)}."
    verdict = "Nothing tried to leave this machine."
    if not proof.is_sealed:
        verdict += " Native code and other programs were not watched."
        if any(stage.asked_others for stage in proof.stages):
            verdict += " What listens on this machine could pass on what it was told."
    return verdict
