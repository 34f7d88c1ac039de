"""Plug-ins: what other installed packages offer through entry points, and which of it this process may load.

Finding them reads the metadata of packages and imports nothing. A plug-in is imported only when it is allowed by the
setting PLUGINS, which a door hands to `allow_plugins`, and when somebody asks for its group. The current directory does
not count: neither is a plug-in found in it, nor is code of one imported from it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, TypeVar

from llm_local.errors import ConfigError, LocalLLMError, PluginFailed

__all__ = [
    "COMMANDS",
    "GROUPS",
    "LOADERS",
    "TOOLS",
    "TOOL_FORMATS",
    "Plugin",
    "allow_plugins",
    "find_plugins",
    "is_allowed",
    "load_plugin",
    "load_plugins",
    "trusted_path",
]

TOOLS: Final = "llm_local.tools"
TOOL_FORMATS: Final = "llm_local.tool_formats"
COMMANDS: Final = "llm_local.commands"
LOADERS: Final = "llm_local.loaders"
GROUPS: Final = (TOOLS, TOOL_FORMATS, COMMANDS, LOADERS)

_TARGET: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)

Value = TypeVar("Value")
Check = Callable[["Plugin", Any], Value]
"""Makes what a group wants of what an entry point names, or raises ValueError with the reason why not."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point. `target` is `module:name`; `fault` says why it cannot be used, as far as metadata tell."""

    name: str
    group: str
    target: str
    distribution: str
    version: str
    fault: str = ""

    def __str__(self) -> str:
        return f"plug-in {self.name} of {self.distribution} {self.version}"


@dataclass(slots=True)
class _Allowed:
    """What this process may load, and what it loaded so far, by plug-in; a reason where that failed."""

    names: frozenset[str] = frozenset()
    everything: bool = False
    loaded: dict[Plugin, Any] = field(default_factory=dict)
    failed: dict[Plugin, str] = field(default_factory=dict)


_allowed = _Allowed()
_logger = logging.getLogger(__name__)


def find_plugins(group: str | None = None) -> tuple[Plugin, ...]:
    """All plug-ins that are installed, of one group or of all, by group and name. Imports nothing of them."""
    found = sorted(
        _entry_points(group), key=lambda one: (GROUPS.index(one.group), one.name, one.distribution)
    )
    count = Counter((one.group, one.name) for one in found)
    return tuple(
        _faulty(one, f"{count[one.group, one.name]} packages offer this name; uninstall all but one")
        if count[one.group, one.name] > 1 and not one.fault
        else one
        for one in found
    )


def allow_plugins(setting: str | None) -> None:
    """Say which plug-ins this process may load: names with commas between, `all`, or None for none.

    Raises:
        ConfigError: a name that no installed package offers.
    """
    global _allowed
    names = frozenset(filter(None, (part.strip() for part in (setting or "").split(","))))
    _allowed = _Allowed(names - {"all"}, "all" in names)
    missing = sorted(_allowed.names - {one.name for one in find_plugins()}) if _allowed.names else []
    if missing:
        raise ConfigError(
            f"PLUGINS names {', '.join(map(repr, missing))}, which no installed package offers.",
            "`llm-local plugins` lists what there is.",
            param="PLUGINS",
        )


def is_allowed(plugin: Plugin) -> bool:
    """Whether this process may load it."""
    return _allowed.everything or plugin.name in _allowed.names


def load_plugins(group: str, check: Check[Value]) -> list[tuple[Plugin, Value]]:
    """The allowed plug-ins of a group, imported the first time, as `check` makes them.

    One that cannot be used is left out, with a warning in the log, where PLUGINS is `all`.

    Raises:
        PluginFailed: one that PLUGINS names cannot be used.
    """
    if not (_allowed.everything or _allowed.names):
        return []
    usable = []
    for plugin in filter(is_allowed, find_plugins(group)):
        told_before = plugin in _allowed.failed
        try:
            usable.append((plugin, load_plugin(plugin, check)))
        except PluginFailed as error:
            if plugin.name in _allowed.names:
                raise
            if not told_before:
                _logger.warning("%s", error)
    return usable


def load_plugin(plugin: Plugin, check: Check[Value]) -> Value:
    """Import one, and check it.

    Raises:
        PluginFailed: it is not allowed, or cannot be used.
    """
    if not is_allowed(plugin):
        raise PluginFailed(f"The {plugin} is off.", f"Allow it: PLUGINS={plugin.name}.")
    if plugin not in _allowed.loaded:
        reason = _allowed.failed.get(plugin) or plugin.fault
        cause: BaseException | None = None
        if not reason:
            with _watching_interrupts() as interrupts:
                try:
                    _allowed.loaded[plugin] = check(plugin, _imported(plugin))
                except (ValueError, LocalLLMError) as error:
                    reason, cause = str(error) or type(error).__name__, error
                except BaseException as error:  # foreign code may raise anything, SystemExit too
                    if isinstance(error, KeyboardInterrupt) and interrupts:
                        raise
                    reason, cause = f"{type(error).__name__}: {error}".rstrip(": "), error
        if reason:
            _allowed.failed[plugin] = reason
            raise PluginFailed(
                f"The {plugin} cannot be used: {reason.rstrip('.')}.", "Update or uninstall that package."
            ) from cause
    return _allowed.loaded[plugin]


@contextlib.contextmanager
def _watching_interrupts() -> Iterator[list[int]]:
    """Gives a list that is empty until Ctrl-C is pressed, to tell that from a KeyboardInterrupt of foreign code."""
    pressed: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    # another handler than Python's own raises nothing; and only the main thread may set one
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        if signal.getsignal(signal.SIGINT) is handle:  # else the plug-in wants another one
            signal.signal(signal.SIGINT, signal.default_int_handler)


def trusted_path() -> list[str]:
    """`sys.path` without the current directory, and without what PYTHONPATH names relative to it."""
    untrusted = {os.path.realpath(os.curdir)}
    given = os.environ.get("PYTHONPATH")
    untrusted |= {os.path.realpath(one) for one in (given or "").split(os.pathsep) if not os.path.isabs(one)}
    return [one for one in sys.path if os.path.isabs(one) and os.path.realpath(one) not in untrusted]


def _entry_points(group: str | None) -> Iterator[Plugin]:
    # Late: what never asks for plug-ins starts without it.
    from importlib import metadata

    seen = set()
    for package in metadata.distributions(path=trusted_path()):
        with contextlib.suppress(Exception):  # a damaged package is not ours to complain about
            name = package.metadata["Name"] if (offers := _ours(package, group)) else None
            if name is None or name in seen:  # the first on the path is the one that would be imported
                continue
            seen.add(name)
            for one in offers:
                plugin = Plugin(one.name, one.group, one.value, name, package.version)
                yield _faulty(plugin, _static_fault(plugin))


def _ours(package: Any, group: str | None) -> list[Any]:
    return [one for one in package.entry_points if one.group in GROUPS and group in (None, one.group)]


def _static_fault(plugin: Plugin) -> str:
    if not _NAME.fullmatch(plugin.name) or plugin.name == "all":
        return "its name is not 1 to 64 letters, digits, dots, _ and -, or it is `all`"
    if not _TARGET.fullmatch(plugin.target):
        return f"its target {plugin.target!r} is not `module:name`"
    return ""


def _faulty(plugin: Plugin, fault: str) -> Plugin:
    return Plugin(plugin.name, plugin.group, plugin.target, plugin.distribution, plugin.version, fault)


def _imported(plugin: Plugin) -> Any:
    """What the entry point names. What its module prints goes to stderr: stdout belongs to answers."""
    module, _, names = plugin.target.partition(":")
    before = list(sys.path)
    sys.path[:] = trusted_path()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            value: Any = importlib.import_module(module)
            for name in names.split("."):
                value = getattr(value, name)
    finally:
        # what the plug-in added to the path stays
        sys.path[:] = before + [one for one in sys.path if one not in before]
    return value
