"""Runs the real doors where nothing can leave, and concludes from what they asked of the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import llm_local
from llm_local.cli.egress.trials import NOBODY
from llm_local.errors import LocalLLMError

__all__ = ["Attempt", "EgressProof", "Stage", "prove", "stage_commands"]

_MAIN: Final = "llm_local.cli.main"
_TRIALS: Final = "llm_local.cli.egress.trials"
_LISTEN: Final = "listen at"
_EVENTS: Final[Mapping[str, str]] = {
    "socket.connect": "connect to",
    "socket.bind": _LISTEN,
    "socket.sendto": "send to",
    "socket.sendmsg": "send to",
    "socket.getaddrinfo": "look up",
    "socket.gethostbyname": "look up",
    "socket.gethostbyaddr": "look up the name of",
    "socket.getnameinfo": "look up the name of",
}
_SEALS: Final = (("unshare", "--net"), ("unshare", "--map-root-user", "--net"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a program asked of the network: `action` (connect to, look up ...), `target`, and `by` which code."""

    action: str
    target: str
    by: str

    def __str__(self) -> str:
        return f"{self.action} {self.target}, by {self.by}"


@dataclass(frozen=True, slots=True)
class Stage:
    """What one program did.

    - `attempts`: what would have led out of this machine, and was denied; `local`: what stayed on it, and was not.
    - `unseen`: what the system counted that Python did not announce; None where it was not asked.
    - `programs`: other programs that were started, which only a namespace watches.
    - `failure`: why it did not come to its end, else empty.
    """

    name: str
    attempts: tuple[Attempt, ...]
    local: tuple[Attempt, ...]
    unseen: int | None
    programs: tuple[str, ...]
    failure: str = ""

    @property
    def asked_others(self) -> bool:
        """True when it talked to something on this machine that is not itself."""
        own = {one.target for one in self.local if one.action == _LISTEN}
        return any(one.target not in own for one in self.local)

    @property
    def is_clean(self) -> bool:
        """True when it ran to its end and nothing in it tried to leave."""
        return not (self.attempts or self.unseen or self.failure)


@dataclass(frozen=True, slots=True)
class EgressProof:
    """The outcome. `why_not_sealed` is empty where a network namespace kept everything in, and counted."""

    stages: tuple[Stage, ...]
    why_not_sealed: str
    control: Stage

    @property
    def is_sealed(self) -> bool:
        """True when the system itself kept everything in."""
        return not self.why_not_sealed

    @property
    def watch_works(self) -> bool:
        """True when the attempt that was made on purpose was seen."""
        return [one.target for one in self.control.attempts] == [f"{NOBODY} port 80"]

    @property
    def holds(self) -> bool:
        """True when nothing tried to leave, and that would have been seen."""
        return self.watch_works and all(stage.is_clean for stage in self.stages)


def stage_commands(model: str, verbs: Sequence[str]) -> dict[str, list[str]]:
    """What is run, by the name it is shown under; `verbs` are those that only look at this machine."""
    return {
        **{verb: [_MAIN, verb, "--json"] for verb in verbs},
        f"load {model}": [_TRIALS, "load", model],
        f"chat with {model}": [_MAIN, "run", model, "--max-tokens", "1", "Hello"],
        f"serve {model}": [_TRIALS, "serve", model],
    }


def prove(commands: Mapping[str, Sequence[str]], *, sealed: bool | None = None) -> EgressProof:
    """Run `commands`, each a module and its words, and an attempt on purpose.

    They run in a network namespace where this system allows one; `sealed` False does without.

    Raises:
        LocalLLMError: they could not be run.
    """
    seal, why_not = ((), "it was not asked for") if sealed is False else _find_seal()
    told = _keep(seal, [[_TRIALS, "attempt"], *map(list, commands.values())])
    if seal and told["interfaces"] != ["lo"]:
        why_not = f"the namespace has other interfaces: {', '.join(told['interfaces'])}"
    control, *stages = (
        _read(name, result) for name, result in zip(("control", *commands), told["results"], strict=True)
    )
    return EgressProof(tuple(stages), why_not, control)


def _find_seal() -> tuple[tuple[str, ...], str]:
    """The command that makes a namespace without network, or why there is none."""
    if sys.platform != "linux":
        return (), "only Linux has network namespaces"
    if shutil.which("unshare") is None:
        return (), "the program unshare is not installed"
    for seal in _SEALS:
        done = subprocess.run([*seal, "true"], capture_output=True, check=False)  # noqa: S603
        if done.returncode == 0:
            return seal, ""
    return (), "this system does not allow a network namespace"


def _keep(seal: Sequence[str], commands: list[list[str]]) -> dict[str, Any]:
    root = str(Path(llm_local.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(  # noqa: S603  (our own module)
        [*seal, sys.executable, "-P", "-m", "llm_local.cli.egress.keeper", *(["--sealed"] if seal else [])],
        input=json.dumps(commands),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2] or f"it ended with status {done.returncode}"
        raise LocalLLMError(f"The proof could not be run: {last}.", "Run it again.") from None
    return told


def _read(name: str, result: Mapping[str, Any]) -> Stage:
    asked = result["asked"]
    named = [one for one in asked if "denied" in one]
    return Stage(
        name,
        tuple(dict.fromkeys([*(_attempt(one) for one in named if one["denied"]), *_unexplained(asked)])),
        tuple(dict.fromkeys(_attempt(one) for one in named if not one["denied"])),
        result["lost"],
        tuple(sorted({one["program"] for one in asked if "program" in one})),
        _failure(result),
    )


def _failure(result: Mapping[str, Any]) -> str:
    """Why a program proves nothing by what it asked; "" when it does."""
    events = [one["event"] for one in result["asked"]]
    if not events or events[0] != "watching":
        return f"it could not be watched: {result['said']}"
    if "damaged" in events:
        return "something wrote into the report of the watch"
    if "flooded" in events:
        return "it asked for more than can be written down"
    return f"it ended with code {result['code']}: {result['said']}" if result["code"] != 0 else ""


def _unexplained(asked: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """Network sockets that were made, and then not used for anything that was seen.

    A name given to a socket directly is looked up before Python announces anything, and may end right there.
    """
    waiting: dict[int, Mapping[str, Any]] = {}
    found = []
    for one in asked:
        if one["event"] == "socket.__new__":
            found += [waiting[one["socket"]]] if one["socket"] in waiting else []  # that one is gone
            waiting[one["socket"]] = one
        elif "socket" in one:
            waiting.pop(one["socket"], None)
    unseen = [*found, *waiting.values()]
    return [Attempt("open", "a network socket, for what was not seen", one["by"]) for one in unseen]


def _attempt(said: Mapping[str, Any]) -> Attempt:
    return Attempt(_EVENTS[said["event"]], said["target"], said["by"])
