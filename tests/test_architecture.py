"""The house stays as docs/architecture.md says: floors, zones, cycles, budgets. Each rule must catch an offender."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import house_rules
from house_rules import Module

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = house_rules.read_modules(ROOT / "src" / "llm_local")
SCRIPTS = house_rules.read_modules(ROOT / "scripts")
TESTS = house_rules.read_modules(ROOT / "tests")

Rule = Callable[[list[Module]], list[str]]

PRODUCT_RULES: list[Rule] = [
    house_rules.check_floors,
    house_rules.check_zones,
    house_rules.check_cycles,
    house_rules.check_names,
    house_rules.check_module_lengths,
    house_rules.check_function_lengths,
    house_rules.check_parameters,
    house_rules.check_documented,
    house_rules.check_annotated,
    house_rules.check_banned,
]
SCRIPT_RULES: list[Rule] = [
    house_rules.check_names,
    house_rules.check_module_lengths,
    house_rules.check_function_lengths,
    house_rules.check_parameters,
    house_rules.check_annotated,
]


def fake(name: str, source: str) -> Module:
    """A module of the package that exists only here; a name ending in a dot is a package's `__init__`."""
    path = f"src/llm_local/{name.replace('.', '/')}"
    return Module(name.rstrip("."), f"{path}__init__.py" if name.endswith(".") else f"{path}.py", source)


@pytest.mark.parametrize("rule", PRODUCT_RULES, ids=lambda rule: rule.__name__)
def test_the_product_keeps_the_rule(rule: Rule) -> None:
    assert rule(PRODUCT) == []


@pytest.mark.parametrize("rule", SCRIPT_RULES, ids=lambda rule: rule.__name__)
def test_the_scripts_keep_the_rule(rule: Rule) -> None:
    assert rule(SCRIPTS) == []


def test_test_files_have_names_that_say_something() -> None:
    assert house_rules.check_names(TESTS) == []


def test_the_tree_is_really_read() -> None:
    names = {module.name for module in PRODUCT}
    assert {"", "errors", "events", "engine.engine"} <= names
    assert len(PRODUCT) > 10


OFFENDERS: list[tuple[Rule, str, str, str]] = [
    # a room that nobody put on a floor
    (house_rules.check_floors, "cellar", "", "no floor"),
    # upward, at the top, inside a function, under TYPE_CHECKING, relative, and by name
    (house_rules.check_floors, "errors", "import llm_local.config", "errors may not import config"),
    (
        house_rules.check_floors,
        "text.stops",
        "from llm_local.engine import protocol",
        "may not import engine",
    ),
    (house_rules.check_floors, "text.stops", "def f():\n    from llm_local import generator", "generator"),
    (
        house_rules.check_floors,
        "text.stops",
        "if TYPE_CHECKING:\n    import llm_local.cli.main",
        "import cli",
    ),
    (house_rules.check_floors, "text.stops", "from ..engine.engine import X", "may not import engine"),
    (house_rules.check_floors, "text.stops", "from .. import generator", "may not import generator"),
    (house_rules.check_floors, "text.", "from ..engine import X", "may not import engine"),
    (house_rules.check_floors, "text.stops", "importlib.import_module('llm_local.engine')", "import engine"),
    # strangers on one floor
    (house_rules.check_floors, "chat.session", "from llm_local.terminal import sanitize", "import terminal"),
    (house_rules.check_floors, "cli.main", "from llm_local.api import routes", "may not import api"),
    (house_rules.check_floors, "text.stops", "from llm_local.sampling import filters", "import sampling"),
    (house_rules.check_floors, "generator", "from llm_local.embedder import Embedder", "import embedder"),
    # a room imports its door, or the lower half of a floor its upper half
    (
        house_rules.check_floors,
        "loaders.devices",
        "from llm_local import model_loader",
        "import model_loader",
    ),
    (house_rules.check_floors, "settings.sources", "from llm_local.config import Config", "import config"),
    (house_rules.check_floors, "runtime.pool", "from llm_local.service import Service", "import service"),
    # libraries outside their zones
    (house_rules.check_zones, "generator", "import torch", "torch may only"),
    (house_rules.check_zones, "config", "def f():\n    import torch.cuda", "torch may only"),
    (
        house_rules.check_zones,
        "text.templates",
        "from transformers import AutoTokenizer",
        "transformers may only",
    ),
    (house_rules.check_zones, "loaders.safetensors", "from huggingface_hub import snapshot_download", "hub"),
    (house_rules.check_zones, "store.library", "import socket", "socket may only"),
    (house_rules.check_zones, "store.names", "from urllib import request", "urllib.request may only"),
    (house_rules.check_zones, "engine.engine", "import fastapi", "fastapi may only"),
    (house_rules.check_zones, "chat.session", "from rich.console import Console", "rich may only"),
    (house_rules.check_zones, "store.library", "import sqlite3", "sqlite3 may only"),
    (house_rules.check_zones, "text.stops", "__import__('httpx')", "httpx may only"),
    (house_rules.check_zones, "options", "import pydantic", "pydantic may only"),
    # names and budgets
    (house_rules.check_names, "text.utils", "", "'utils' says nothing"),
    (house_rules.check_names, "core.", "", "'core' says nothing"),
    (house_rules.check_names, "text._helpers", "", "'_helpers' says nothing"),
    (house_rules.check_module_lengths, "text.stops", "x = 1\n" * 401, "401 lines"),
    (house_rules.check_function_lengths, "text.stops", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    (
        house_rules.check_function_lengths,
        "text.stops",
        "def f():\n" + "    x = 1\n" * 35,
        "one function in ten",
    ),
    (house_rules.check_parameters, "text.stops", "def f(a, b, c, d, *, e, f, g): ...", "f has 7 parameters"),
    (
        house_rules.check_parameters,
        "text.stops",
        "def f(a, b, c, /, d, e, *f, **g): ...",
        "f has 7 parameters",
    ),
    # words about it
    (house_rules.check_documented, "text.stops", "x = 1", "the module has no docstring"),
    (house_rules.check_documented, "text.stops", '"""M."""\ndef f(): ...', "f has no docstring"),
    (house_rules.check_documented, "text.stops", '"""M."""\nclass C: ...', "C has no docstring"),
    (
        house_rules.check_documented,
        "text.stops",
        '"""M."""\nclass C:\n    """C."""\n    def m(self): ...',
        "C.m has",
    ),
    (house_rules.check_annotated, "text.stops", "def f(a) -> int: ...", "f: no annotation for a"),
    (house_rules.check_annotated, "text.stops", "def _f(a: int): ...", "no annotation for return"),
    (house_rules.check_annotated, "text.stops", "def f(*a, **b) -> int: ...", "no annotation for a, b"),
    # what may not be there at all
    (house_rules.check_banned, "text.stops", "assert True", "assert vanishes"),
    (house_rules.check_banned, "text.stops", "eval('1')", "eval runs"),
    (house_rules.check_banned, "text.stops", "exec('1')", "exec runs"),
    (house_rules.check_banned, "loaders.x", "torch.load(path)", "safetensors"),
    (house_rules.check_banned, "loaders.x", "from torch import load", "safetensors"),
    (house_rules.check_banned, "loaders.x", "pickle.loads(data)", "pickle runs"),
    (house_rules.check_banned, "loaders.x", "from pickle import loads as f", "pickle runs"),
    (house_rules.check_banned, "text.templates", "jinja2.Environment()", "sandboxed"),
    (house_rules.check_banned, "text.templates", "from jinja2 import Environment", "sandboxed"),
    (house_rules.check_banned, "tools.shell", "subprocess.run('ls', shell=True)", "shell=True"),
    (house_rules.check_banned, "loaders.x", "load(trust_remote_code=True)", "trust_remote_code=True"),
]


@pytest.mark.parametrize(("rule", "name", "source", "message"), OFFENDERS)
def test_the_rule_catches_an_offender(rule: Rule, name: str, source: str, message: str) -> None:
    neighbors = [fake("", ""), *(fake(room, "") for room in house_rules.FLOORS if room), fake("cli.main", "")]
    others = [module for module in neighbors if module.name != name]
    if rule is house_rules.check_documented:
        others = []
    if "has 61 lines" in message:  # one long function among ten is not yet "more than one in ten"
        others = [fake("text.fit", "def f(): ...\n" * 9)]
    found = rule([*others, fake(name, source)])
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (house_rules.check_floors, "engine.engine", "from llm_local.sampling.sampler import Sampler"),
        (house_rules.check_floors, "events", "from llm_local.messages import ToolCall"),
        (house_rules.check_floors, "model_loader", "from llm_local.loaders import devices"),
        (house_rules.check_floors, "service", "from llm_local.runtime import pool"),
        (house_rules.check_floors, "text.stops", "from . import fit"),
        (house_rules.check_zones, "store.names", "from urllib.parse import quote"),
        (house_rules.check_zones, "engine.engine", "import torch"),
        (house_rules.check_zones, "store.hub", "import huggingface_hub"),
        (house_rules.check_banned, "engine.runner", "model.eval()"),
        (house_rules.check_banned, "text.templates", "ImmutableSandboxedEnvironment()"),
        (house_rules.check_function_lengths, "text.stops", 'def f():\n    """' + "x\n" * 70 + '"""\n'),
        (house_rules.check_documented, "text.stops", '"""M."""\ndef _f(): ...'),
    ],
)
def test_the_rule_lets_what_is_right_pass(rule: Rule, name: str, source: str) -> None:
    assert rule([fake(name, source)]) == []


@pytest.mark.parametrize(
    "back",
    [
        "from llm_local.text.fit import x",
        "def f():\n    from llm_local.text.fit import x",
        "if TYPE_CHECKING:\n    from llm_local.text import fit",
        "from . import fit",
    ],
    ids=["top", "lazy", "type checking", "relative"],
)
def test_a_cycle_is_caught(back: str) -> None:
    there = fake("text.fit", "from llm_local.text import stops")
    assert house_rules.check_cycles([there, fake("text.stops", "")]) == []
    assert house_rules.check_cycles([there, fake("text.stops", back)]) == [
        "text.fit is on or above an import cycle",
        "text.stops is on or above an import cycle",
    ]


def test_a_cycle_through_the_package_itself_is_caught() -> None:
    package = fake("text.", "from llm_local.text.stops import StopMatcher")
    assert house_rules.check_cycles([package, fake("text.stops", "from llm_local.text import StopMatcher")])


def _loaded_heavy_libraries(code: str) -> str:
    """Run code in a fresh Python and return which of the heavy libraries it has loaded, comma-separated."""
    report = "import sys; sys.stderr.write(','.join(m for m in ('torch', 'transformers', 'numpy') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit\n@atexit.register\ndef report(): {report}\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_light_modules_load_no_heavy_library() -> None:
    light = [module for module in PRODUCT if module.room not in house_rules.HEAVY_ROOMS]
    names = [
        f"{house_rules.PACKAGE}.{module.name}".rstrip(".") for module in light if module.room != "__main__"
    ]
    assert f"{house_rules.PACKAGE}.errors" in names
    assert _loaded_heavy_libraries("\n".join(f"import {name}" for name in names)) == ""


def test_a_heavy_library_would_be_noticed() -> None:
    assert "numpy" in _loaded_heavy_libraries("import numpy")


@pytest.mark.parametrize("script", ["scripts/run_once.py", "src/llm_local/cli/main.py"])
def test_help_loads_no_heavy_library(script: str) -> None:
    if not (ROOT / script).exists():
        pytest.skip("not built yet")
    module = "llm_local.cli.main" if "cli/" in script else ""
    run = (
        f"import runpy, sys; sys.argv = [{script!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_{'module' if module else 'path'}({module or script!r}, run_name='__main__')\n"
        "except SystemExit as done:\n"
        "    assert not done.code, done.code\n"
    )
    assert _loaded_heavy_libraries(run) == ""


def test_scripts_that_people_call_start_with_a_docstring() -> None:
    entries = [module for module in SCRIPTS if "." not in module.name and not module.is_package]
    assert entries
    assert [module.path for module in entries if not ast.get_docstring(module.tree)] == []
