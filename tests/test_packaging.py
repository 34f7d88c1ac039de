"""What is installed is what is used: pins, floors and imports agree, and the package carries its data."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import llm_local
from house_rules import imports, read_modules

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# A library's import name, where it is not its package's.
IMPORT_NAMES = {"python-dotenv": "dotenv", "pyyaml": "yaml", "markdown-it-py": "markdown_it"}
# Needed though no module of ours imports it.
NEEDED_BY_OTHERS = {
    "accelerate": "transformers spreads a model over several devices with it",
    "fastapi_offline": "the page of the API shows itself with files of it",
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


# Scripts that a bench runs in the Python of another program, with that program's packages.
ELSEWHERE = ("bench.peers.gguf_writer", "bench.peers.llama_cpp_driver")


def _third_party(folder: str) -> set[str]:
    modules = [module for module in read_modules(ROOT / folder) if not module.name.endswith(ELSEWHERE)]
    # the package is imported by its whole name, scripts by their own
    scripts = {module.name.rpartition(".")[2] for module in modules} | {"starter", "terminal"}
    local = {"llm_local"} if folder == "src" else {"llm_local", *scripts}
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
    project = PROJECT["project"]
    extras = [one for name, some in project["optional-dependencies"].items() if name != "dev" for one in some]
    floors = _floors([*project["dependencies"], *extras])
    declared = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in floors}
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


def _wheel(root: Path, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=root,
        capture_output=True,
        check=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_wheel_with_the_compiled_library_is_for_one_platform(tmp_path: Path) -> None:
    root = tmp_path / "project"
    kernels = root / "src/llm_local/kernels"
    kernels.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "scripts/wheel_platform.py", ".gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "src/llm_local/__init__.py").write_bytes((ROOT / "src/llm_local/__init__.py").read_bytes())
    assert _wheel(root, tmp_path / "sources").name.endswith("-py3-none-any.whl")
    (kernels / "_prebuilt").mkdir()
    (kernels / "_prebuilt/libllm_local.so").write_bytes(b"compiled")
    wheel = _wheel(root, tmp_path / "compiled")
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    assert "llm_local/kernels/_prebuilt/libllm_local.so" in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_carries_the_package_and_its_data_and_nothing_else(tmp_path: Path) -> None:
    wheel = _wheel(ROOT, tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/llm_local/starter").iterdir()]
    assert {
        "llm_local/py.typed",
        "llm_local/errors.py",
        "llm_local/kernels/native/abi.h",
        "llm_local/kernels/native/variant.cpp",
        *(name for name in data if "__pycache__" not in name),
    } <= names
    assert [name for name in names if not re.match(r"llm_local(-[\d.]+\.dist-info)?/", name)] == []
