"""The rules of the house as pure functions over parsed source: modules in, violations out.

Every rule takes the modules of one package and returns one line per violation, `path:line what is wrong`.
`test_architecture.py` runs each on the real tree, and on a small offender that it must catch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "llm_local"

# The first part of a module's name under the package is its room; the table is docs/architecture.md in code.
FLOORS: Mapping[str, int] = {
    **dict.fromkeys(("", "errors", "messages", "options", "events", "specs"), 0),
    **dict.fromkeys(("config", "settings", "logs", "privacy", "plugins", "home", "locks"), 1),
    **dict.fromkeys(("store", "conversations"), 2),
    **dict.fromkeys(("text", "constraints", "sampling", "kernels"), 3),
    **dict.fromkeys(("loaders", "model_loader"), 4),
    **dict.fromkeys(("engine",), 5),
    **dict.fromkeys(("generator", "generation", "embedder", "embedding"), 6),
    **dict.fromkeys(("runtime", "service"), 7),
    **dict.fromkeys(("chat", "tools", "rag", "finetuning", "bench", "terminal"), 8),
    **dict.fromkeys(("repl",), 9),
    **dict.fromkeys(("chat_cli", "chat_cli_rich", "api_server", "api", "cli", "web", "__main__"), 10),
}

# Modules without a folder that make up one room and may import each other.
SHARED_ROOMS: Mapping[str, str] = {
    **dict.fromkeys(("", "errors", "messages", "options", "events", "specs"), "words"),
    **dict.fromkeys(("config", "logs", "privacy"), "settings"),
}

# A door imports the room it is the face of, on the same floor; the room never imports its door.
DOORS: Mapping[str, tuple[str, ...]] = {
    "config": ("settings",),
    "model_loader": ("loaders",),
    "generator": ("generation",),
    "embedder": ("embedding",),
    "service": ("runtime",),
    "api_server": ("api",),
    "__main__": ("cli",),
    "cli": ("api_server",),  # a verb opens the door
}

_TORCH_ROOMS = (
    "sampling",
    "kernels",
    "loaders",
    "engine",
    "model_loader",
    "embedder",
    "embedding",
    "finetuning",
)
_HUB_ONLY = ("store.hub",)
_TERMINALS = ("terminal", "chat_cli_rich", "cli")
_SERVER = ("api", "api_server")

# Which rooms (or single modules) may import a library, at the top of a module or inside a function.
ZONES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "peft", "bitsandbytes"), _TORCH_ROOMS),
    **dict.fromkeys(("tokenizers", "safetensors"), (*_TORCH_ROOMS, "text")),
    **dict.fromkeys(("jinja2",), ("text",)),
    **dict.fromkeys(("llguidance",), ("constraints",)),
    **dict.fromkeys(("huggingface_hub", "requests", "httpx", "httpx2", "aiohttp", "urllib3"), _HUB_ONLY),
    **dict.fromkeys(("socket", "ssl", "urllib.request", "http.client", "ftplib", "smtplib"), _HUB_ONLY),
    **dict.fromkeys(("pydantic",), ("api", "tools")),
    **dict.fromkeys(("dotenv",), ("settings",)),
    **dict.fromkeys(("mcp",), ("tools",)),
    **dict.fromkeys(
        ("fastapi", "fastapi_offline", "starlette", "sse_starlette", "uvicorn", "limits"), _SERVER
    ),
    **dict.fromkeys(("prometheus_client",), ("runtime",)),
    **dict.fromkeys(("redis",), ("runtime.redis_cache",)),
    **dict.fromkeys(("rich", "prompt_toolkit", "pygments", "markdown_it"), _TERMINALS),
    **dict.fromkeys(("sqlite3",), ("conversations", "rag")),
}
# Rooms whose import may load torch, its zone, or numpy; who is not in one imports them late. All others stay light.
HEAVY_ROOMS = (*_TORCH_ROOMS, "constraints")

_ROUTE_METHODS = frozenset({"api_route", "delete", "get", "head", "post", "put"})

FORBIDDEN_NAMES = frozenset(
    {"utils", "util", "helpers", "helper", "common", "misc", "base", "core", "manager"}
)

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
GOOD_FUNCTION_LINES = 35
MAX_PARAMETERS = 6

# Functions that may have more parameters, each with its reason.
MANY_PARAMETERS: Mapping[str, str] = {
    "engine.attention.ragged_attention": "transformers calls every attention function with exactly these",
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed source file. `name` is dotted and relative to the package: `text.stops`, `` for `__init__`."""

    name: str
    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.source, self.path)

    @property
    def room(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]

    @property
    def is_package(self) -> bool:
        """True for an `__init__.py`."""
        return self.path.endswith("__init__.py")

    def at(self, line: int, what: str) -> str:
        """A violation at a line of this module."""
        return f"{self.path}:{line} {what}"


@dataclass(frozen=True)
class Import:
    """One imported name: `target` is dotted and absolute, as specific as the statement is."""

    target: str
    line: int


def read_modules(folder: Path) -> list[Module]:
    """All modules under a package's folder, in order of their names."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        modules.append(Module(name, path.as_posix(), path.read_text(encoding="utf-8")))
    return modules


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module: at the top, inside functions, under TYPE_CHECKING, and by import_module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            yield from (Import(f"{source}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield Import(str(node.args[0].value), node.lineno)


def own_imports(module: Module, known: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The package's own modules that a module imports, relative to the package, with their lines."""
    known = frozenset(known)
    for one in imports(module):
        if one.target == PACKAGE or one.target.startswith(f"{PACKAGE}."):
            name = one.target.removeprefix(PACKAGE).removeprefix(".")
            # `from llm_local.text import stops` names a module, `from llm_local.text.stops import X` a thing in one.
            while name and name not in known:
                name = name.rpartition(".")[0]
            yield name, one.line


def check_floors(modules: list[Module]) -> list[str]:
    """A module imports only from its own room or from lower floors; a door may import its room."""
    known = [module.name for module in modules]
    found = [
        module.at(1, f"room {module.room!r} has no floor; add it to FLOORS and docs/architecture.md")
        for module in modules
        if module.room not in FLOORS
    ]
    for module in modules:
        for target, line in own_imports(module, known):
            room = target.partition(".")[0]
            if not _may_import(module.room, room):
                found.append(module.at(line, f"{module.room or PACKAGE} may not import {room or PACKAGE}"))
    return found


def check_zones(modules: list[Module]) -> list[str]:
    """A library is imported only where ZONES says."""
    found = []
    for module in modules:
        for one in imports(module):
            library = _zoned_library(one.target)
            if library is not None and not _in_zone(module, ZONES[library]):
                found.append(
                    module.at(one.line, f"{library} may only be imported in {', '.join(ZONES[library])}")
                )
    return found


def check_cycles(modules: list[Module]) -> list[str]:
    """No module imports itself through others, imports inside functions and under TYPE_CHECKING included."""
    known = {module.name for module in modules}
    graph = {
        module.name: {name for name, _ in own_imports(module, known)} - {module.name} for module in modules
    }
    while True:
        # What imports nothing that is left cannot be on a cycle; take such modules away until none is left.
        free = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not free:
            break
        graph = {name: targets for name, targets in graph.items() if name not in free}
    return [f"{name or PACKAGE} is on or above an import cycle" for name in sorted(graph)]


def check_names(modules: list[Module]) -> list[str]:
    """No file or folder is called utils, helpers and the like: a name is a promise."""
    return [
        module.at(1, f"{part!r} says nothing about what is inside")
        for module in modules
        for part in module.name.split(".")
        if part.strip("_") in FORBIDDEN_NAMES
    ]


def check_module_lengths(modules: list[Module]) -> list[str]:
    """No module is longer than MAX_MODULE_LINES."""
    lengths = ((module, module.source.count("\n")) for module in modules)
    return [
        module.at(n, f"{n} lines, at most {MAX_MODULE_LINES}")
        for module, n in lengths
        if n > MAX_MODULE_LINES
    ]


def check_function_lengths(modules: list[Module]) -> list[str]:
    """No function is longer than MAX_FUNCTION_LINES; nine in ten keep to GOOD_FUNCTION_LINES. Docstrings are free."""
    lengths = [
        (module, function, _function_lines(function)) for module in modules for function in functions(module)
    ]
    found = [
        module.at(function.lineno, f"{function.name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
        for module, function, lines in lengths
        if lines > MAX_FUNCTION_LINES
    ]
    long = [f"{function.name} ({lines})" for _, function, lines in lengths if lines > GOOD_FUNCTION_LINES]
    if 10 * len(long) > len(lengths):
        found.append(f"more than one function in ten has over {GOOD_FUNCTION_LINES} lines: {', '.join(long)}")
    return found


def check_parameters(modules: list[Module]) -> list[str]:
    """No function takes more than MAX_PARAMETERS, self and cls not counted; more belong into a dataclass."""
    found = []
    for module in modules:
        for function in functions(module):
            names = [argument.arg for argument in _parameters(function)]
            if len(names) > MAX_PARAMETERS and f"{module.name}.{function.name}" not in MANY_PARAMETERS:
                found.append(
                    module.at(
                        function.lineno,
                        f"{function.name} has {len(names)} parameters, at most {MAX_PARAMETERS}",
                    )
                )
    return found


def check_documented(modules: list[Module]) -> list[str]:
    """Every module, public class, public function and public method has a docstring."""
    found = []
    for module in modules:
        if module.tree.body and not ast.get_docstring(module.tree):
            found.append(module.at(1, "the module has no docstring"))
        for node, name in _public_definitions(module.tree):
            if not ast.get_docstring(node):
                found.append(module.at(node.lineno, f"{name} has no docstring"))
    return found


def check_annotated(modules: list[Module]) -> list[str]:
    """Every parameter and every result of every function is annotated."""
    found = []
    for module in modules:
        for function in functions(module):
            bare = [argument.arg for argument in _parameters(function) if argument.annotation is None]
            if function.returns is None:
                bare.append("return")
            if bare:
                found.append(
                    module.at(function.lineno, f"{function.name}: no annotation for {', '.join(bare)}")
                )
    return found


def check_exports(modules: list[Module]) -> list[str]:
    """`__all__` is a sorted list of literals, names only what the module has, and all public definitions of it."""
    found = []
    for module in modules:
        if not _statements(module.tree):
            continue
        exported = _exported(module.tree)
        if exported is None:
            found.append(module.at(1, "no literal __all__"))
            continue
        has = _bound_names(module.tree)
        public = {
            node.name
            for node in module.tree.body
            if isinstance(node, _Function | ast.ClassDef)
            and not node.name.startswith("_")
            # a route is reached by its address, and its name is for the OpenAPI document
            and not any(_is_route(one) for one in node.decorator_list)
        }
        found += [
            module.at(1, f"__all__ names {name}, which is not there") for name in exported if name not in has
        ]
        found += [
            module.at(1, f"{name} is public but not in __all__") for name in sorted(public - set(exported))
        ]
        if len(set(exported)) != len(exported):
            found.append(module.at(1, "__all__ names something twice"))
    return found


def check_banned(modules: list[Module]) -> list[str]:
    """Nothing that can run code from data, no shell, no assert: in the product these are holes."""
    return [
        module.at(node.lineno, what)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.expr | ast.stmt)
        for what in _banned(node)
    ]


def functions(module: Module) -> Iterator[_Function]:
    """Every function of a module, methods and nested ones included."""
    return (node for node in ast.walk(module.tree) if isinstance(node, _Function))


def _is_route(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in _ROUTE_METHODS


def _may_import(importer: str, target: str) -> bool:
    if importer not in FLOORS or target not in FLOORS:
        return True  # reported once, as a room without a floor
    same_room = SHARED_ROOMS.get(importer, importer) == SHARED_ROOMS.get(target, target)
    if importer == target or target in DOORS.get(importer, ()):
        return True
    # A room never imports its door, though both may bear one name.
    return FLOORS[target] < FLOORS[importer] or (same_room and importer not in DOORS.get(target, ()))


def _zoned_library(target: str) -> str | None:
    return next((library for library in ZONES if target == library or target.startswith(f"{library}.")), None)


def _in_zone(module: Module, zone: tuple[str, ...]) -> bool:
    return any(module.name == place or module.name.startswith(f"{place}.") for place in zone)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *module.name.split(".")] if module.name else [PACKAGE]
    if not module.is_package:
        parts = parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _called(call: ast.Call) -> str:
    """The last part of what is called: `load` for `torch.load(...)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _function_lines(function: _Function) -> int:
    last = function.end_lineno or function.lineno
    first = function.body[0]
    docstring = 0
    if ast.get_docstring(function, clean=False) is not None:
        docstring = (first.end_lineno or first.lineno) - first.lineno + 1
    return last - function.lineno + 1 - docstring


def _parameters(function: _Function) -> list[ast.arg]:
    """All parameters of a function, self and cls not counted."""
    given = function.args
    starred = [one for one in (given.vararg, given.kwarg) if one is not None]
    everything = [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]
    return [one for one in everything if one.arg not in ("self", "cls")]


def _public_definitions(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[_Function | ast.ClassDef, str]]:
    for node in tree.body:
        if isinstance(node, _Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node, node.name
            if isinstance(node, ast.ClassDef):
                yield from ((inner, f"{node.name}.{name}") for inner, name in _public_definitions(node))


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The body without the docstring and `from __future__` lines."""
    docstring = 1 if ast.get_docstring(tree) is not None else 0
    return [
        node
        for node in tree.body[docstring:]
        if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and ast.unparse(node).startswith("__all__"):
            try:
                return [str(name) for name in ast.literal_eval(node.value or ast.Constant(()))]
            except ValueError:
                return None
    return None


def _bound_names(tree: ast.Module) -> set[str]:
    """All names a module's top level may bind, also inside its if and try blocks."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, _Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


_BANNED_CALLS = {
    "eval": "eval runs text as code",
    "exec": "exec runs text as code",
    "pickle.load": "pickle runs code while loading",
    "pickle.loads": "pickle runs code while loading",
    "pickle.Unpickler": "pickle runs code while loading",
    "torch.load": "torch.load reads pickle; weights are safetensors",
    "os.system": "os.system starts a shell",
    "os.popen": "os.popen starts a shell",
    "jinja2.Environment": "templates come from model files: use the sandboxed environment",
    "Environment": "templates come from model files: use the sandboxed environment",
    "yaml.load": "yaml.load can build any object",
}
_BANNED_NAMES = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("pickle", "Unpickler"),
    ("torch", "load"),
    ("jinja2", "Environment"),
    ("os", "system"),
    ("os", "popen"),
}


def _banned(node: ast.expr | ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assert):
        yield "assert vanishes under -O; raise what it means"
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if (node.module, alias.name) in _BANNED_NAMES:
                yield _BANNED_CALLS[f"{node.module}.{alias.name}"]
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in _BANNED_CALLS:
            yield _BANNED_CALLS[name]
        for keyword in node.keywords:
            switched_on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if switched_on and keyword.arg in ("shell", "trust_remote_code"):
                yield f"{keyword.arg}=True runs code that is not ours"
