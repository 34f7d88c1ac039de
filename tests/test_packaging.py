"""What is installed is what is used: pins, floors and imports agree, and the package carries its data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import llm_local
from house_rules import imports, read_modules

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# A library's import name, where it is not its package's.
IMPORT_NAMES = {"python-dotenv": "dotenv", "pyyaml": "yaml"}
# Needed though no module of ours imports it.
NEEDED_BY_OTHERS = {
    "accelerate": "transformers spreads a model over several devices with it",
    "huggingface_hub": "transformers reads model folders through it",
    "jinja2": "transformers renders chat templates with it",
}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line.partition("#")[0].strip() for line in lines]
    return dict(line.split("==") for line in lines if line)


def _floors(requirements: list[str]) -> dict[str, str]:
    parts = [re.fullmatch(r"([\w.-]+)>=([\d.]+).*", requirement) for requirement in requirements]
    return {part[1]: part[2] for part in parts if part}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _third_party(folder: str) -> set[str]:
    modules = read_modules(ROOT / folder)
    local = {module.name.rpartition(".")[2] for module in modules} | {"starter", "terminal", "llm_local"}
    names = {one.target.partition(".")[0] for module in modules for one in imports(module)}
    return names - set(sys.stdlib_module_names) - local - {"_typeshed"}


def test_requirements_are_exact_pins_without_an_index() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if line and not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)]
    assert wrong == []
    assert _pins()["torch"] == "2.13.0"


def test_every_dependency_has_a_floor_that_its_pin_keeps() -> None:
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    floors = _floors([*declared, *PROJECT["build-system"]["requires"]])
    assert floors.keys() == _pins().keys()
    low = {name: pin for name, pin in _pins().items() if _version(pin) < _version(floors[name])}
    assert low == {}


def test_the_product_declares_what_it_imports_and_imports_what_it_declares() -> None:
    declared = {
        IMPORT_NAMES.get(name, name.replace("-", "_")) for name in _floors(PROJECT["project"]["dependencies"])
    }
    assert _third_party("src") - declared == set()
    assert declared - _third_party("src") - _third_party("scripts") - NEEDED_BY_OTHERS.keys() == set()


def test_scripts_and_tests_import_only_what_is_pinned() -> None:
    pinned = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in _pins()}
    local = {path.stem for path in (ROOT / "tests").rglob("*")} | {"scripts"}
    assert (_third_party("scripts") | _third_party("tests")) - local - pinned == set()


def test_the_version_is_said_once() -> None:
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/llm_local/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", llm_local.__version__)


def test_the_console_script_leads_to_a_function() -> None:
    module, _, function = PROJECT["project"]["scripts"]["llm-local"].partition(":")
    source = ROOT / "src" / f"{module.replace('.', '/')}.py"
    assert re.search(rf"^def {function}\(", source.read_text(encoding="utf-8"), re.M)


def test_the_wheel_carries_the_package_and_its_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/llm_local/starter").iterdir()]
    assert {
        "llm_local/py.typed",
        "llm_local/errors.py",
        *(name for name in data if "__pycache__" not in name),
    } <= names
    assert [name for name in names if not re.match(r"llm_local(-[\d.]+\.dist-info)?/", name)] == []
