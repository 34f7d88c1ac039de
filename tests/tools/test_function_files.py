"""A file of functions: what becomes a tool, what is refused, and what is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_local.errors import InvalidRequest
from llm_local.tools.function_files import load_function_file

FILE = '''
from __future__ import annotations
import dataclasses
from os.path import join

@dataclasses.dataclass
class Place:
    city: str

def zebra(place: Place) -> str:
    """Say it."""
    return place.city

def _private(x): ...

def add(a: int, b: int = 2) -> int:
    "Add."
    return a + b

constant = 3
also = len
'''


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_public_functions_of_the_file_become_tools_in_order(write) -> None:
    path = write(FILE)
    tools = load_function_file(path)
    assert [(tool.name, tool.source) for tool in tools] == [
        ("zebra", "function of mine.py"),
        ("add", "function of mine.py"),
    ]
    assert tools[0].run({"place": {"city": "Lyon"}}) == "Lyon"
    assert tools[1].run({"a": 1}) == "3"


def test_nothing_is_left_behind(write) -> None:
    path = write(FILE)
    before = list(sys.path)
    load_function_file(path)
    assert sys.path == before
    assert [one.name for one in path.parent.iterdir() if one.name != "home"] == ["mine.py"]


def test_stale_bytecode_is_not_trusted(write) -> None:
    import py_compile

    path = write("def old() -> int:\n    return 1\n")
    py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    path.write_text("def new() -> int:\n    return 1\n")
    assert [tool.name for tool in load_function_file(path)] == ["new"]


def test_neighbors_cannot_be_imported(write) -> None:
    write("secret = 1", "neighbor.py")
    with pytest.raises(InvalidRequest, match="ModuleNotFoundError: No module named 'neighbor'"):
        load_function_file(write("import neighbor\ndef f() -> int: return 1\n"))


def test_all_says_what_is_public(write) -> None:
    text = '__all__ = ["_hidden"]\ndef _hidden() -> int: return 1\ndef shown() -> int: return 2\n'
    assert [tool.name for tool in load_function_file(write(text))] == ["_hidden"]
    text = '__all__ = ["f", "f"]\ndef f() -> int: return 1\n'
    assert [tool.name for tool in load_function_file(write(text))] == ["f"]


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    results = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "same.py").write_text(f"n = {number}\ndef f() -> int: return n\n")
        results.append(load_function_file(folder / "same.py")[0])
    assert [tool.run({}) for tool in results] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "no public function"),
        ("def f(x): ...", "parameter x of the function f has no type hint.*underscore"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("__all__ = ['g']\ndef f() -> int: return 1", "names 'g'"),
        ("__all__ = 5", "__all__ of .*mine.py is no list, but 5"),
        ("__all__ = 'f'\ndef f() -> int: return 1", "is no list"),
        ("from . import x", "attempted relative import with no known parent package"),
        ("def f() -> int: return 1\n\0", "mine.py"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(write, text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        load_function_file(write(text))
    assert "mine.py" in caught.value.message
    assert caught.value.param == "functions"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(InvalidRequest, match="There is no file"):
            load_function_file(path)


def test_a_file_knows_where_it_lies(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("import pathlib\nhere = pathlib.Path(__file__).parent\ndef where() -> str:\n    return str(here)\n")
    monkeypatch.chdir(tmp_path)
    (tool,) = load_function_file("mine.py")
    assert tool.run({}) == str(tmp_path.resolve())
