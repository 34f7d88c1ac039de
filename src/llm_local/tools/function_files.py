"""Tools out of a Python file that a person names: its public functions."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from llm_local.errors import InvalidRequest
from llm_local.tools.functions import make_tool
from llm_local.tools.tool import Tool

__all__ = ["load_function_file"]


def load_function_file(path: str | Path) -> tuple[Tool, ...]:
    """Run the Python file and make a tool of each public function that is defined in it, in their order.

    Where the file has `__all__`, the functions it names instead. The file is run as it is, like any program that one
    starts; its folder is not added to where Python looks for modules, and no bytecode is written or read.

    Raises:
        InvalidRequest: it cannot be read, fails when it is run, has no public function, or one that is no tool.
    """
    path = Path(path)
    module = _run(path)
    functions = _public_functions(module, path)
    if not functions:
        raise _wrong(
            f"{path} has no public function.", "Define one whose name does not begin with an underscore."
        )
    return tuple(_tool(function, path) for function in functions)


class _SourceLoader(SourceFileLoader):
    """Compiles the file itself, rather than trusting what lies in `__pycache__`, and leaves nothing there."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise _wrong(f"There is no file {path}.", "Name a Python file.")
    # a name that no import statement can ask for; a dot in it would make it a package's
    name = f"<functions of {path.resolve()}>".replace(".", "_")
    location = str(path.resolve())
    spec = importlib.util.spec_from_file_location(name, location, loader=_SourceLoader(name, location))
    if spec is None or spec.loader is None:
        raise _wrong(f"{path} cannot be loaded.", "Name a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up the names in their hints
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the file does, sys.exit too
        sys.modules.pop(name, None)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise _wrong(f"{path} failed when it was run: {reason}.", "Mend it.") from error
    return module


def _public_functions(module: ModuleType, path: Path) -> list[Callable[..., Any]]:
    exported = getattr(module, "__all__", None)
    if exported is None:
        return [
            one
            for name, one in vars(module).items()
            if not name.startswith("_") and inspect.isfunction(one) and one.__module__ == module.__name__
        ]
    if not isinstance(exported, list | tuple):
        raise _wrong(f"__all__ of {path} is no list, but {exported!r}.", "Mend it.")
    exported = dict.fromkeys(map(str, exported))  # each once
    missing = next((name for name in exported if not callable(getattr(module, name, None))), None)
    if missing is not None:
        raise _wrong(f"__all__ of {path} names {missing!r}, which is no function of it.", "Mend it.")
    return [getattr(module, name) for name in exported]


def _tool(function: Callable[..., Any], path: Path) -> Tool:
    try:
        return make_tool(function, source=f"function of {path.name}")
    except InvalidRequest as error:
        hint = f"{error.hint} A name that begins with an underscore keeps a function from the model."
        raise _wrong(f"{path}: {error.message}", hint) from error


def _wrong(message: str, hint: str) -> InvalidRequest:
    return InvalidRequest(message, hint, param="functions")
