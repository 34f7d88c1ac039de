"""Sees what a Python process asks of the network, denies all that is not this machine, and writes it down.

The interpreter announces sockets and name lookups before they happen ("audit events"). A hook cannot be taken away
again, so this is for a process that does nothing else. Native code that makes its own system calls is not announced.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

__all__ = ["is_this_machine", "watch"]

_UNIX: Final = 1  # AF_UNIX, wherever there is one; AF_INET6 has another number on every system
_MAX_LINES: Final = 1000
_MAX_CHARS: Final = 300
_STDLIB: Final = sysconfig.get_path("stdlib") + os.sep
_INSTALLED: Final = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))

_Said = Mapping[str, object]


def watch(report: int) -> None:
    """From now on, write a JSON line to the open file `report` for each thing asked, and deny what would lead out.

    The first line says that the watch has begun. What is denied fails with a PermissionError. Of a flood the beginning
    is written, and that it was one.
    """
    lines = 0

    def tell(said: _Said) -> None:
        nonlocal lines
        lines += 1
        if lines == _MAX_LINES:
            said = {"event": "flooded"}
        if lines <= _MAX_LINES:
            os.write(report, json.dumps(said).encode() + b"\n")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        read = _READERS.get(event)
        if read is None:
            return
        said = read(*arguments)
        if said is None:
            return
        tell({"event": event, **said, "by": _caller(sys._getframe(1))})
        if said.get("denied"):
            raise PermissionError(errno.EACCES, f"denied while egress is watched: {said['target']}")

    tell({"event": "watching"})
    sys.addaudithook(hook)


def is_this_machine(host: object) -> bool:
    """True for loopback addresses, and for the name that always means them."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name.lower() == "localhost":
        return True
    address = _address(name)
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _made(made: object, family: int, *_: object) -> _Said | None:
    """A socket by itself asks nothing of anybody; it is told because its next step might not be seen."""
    return None if family in (_UNIX, -1) or _is_accepted(sys._getframe(2)) else {"socket": id(made)}


def _is_accepted(frame: FrameType | None) -> bool:
    """True for the socket of a connection that came in, which is from this machine: nothing else can be listened at."""
    accept = sys.modules["socket"].socket.accept.__code__ if "socket" in sys.modules else None
    return frame is not None and frame.f_back is not None and frame.f_back.f_code is accept


def _addressed(used: object, address: object) -> _Said | None:
    if address is None:  # sendmsg over what is connected already
        return None
    if not isinstance(address, tuple):  # the path of a Unix socket, which is on this machine
        return {"socket": id(used), "target": _text(address), "denied": False}
    host = address[0] if address else ""
    port = address[1] if len(address) > 1 else ""
    said = {"socket": id(used), "target": f"{_text(host)} port {port}"}
    return {**said, "denied": not is_this_machine(host)}


def _looked_up(host: object, *_: object) -> _Said | None:
    """The lookup of a name goes to a name server; an address is its own name."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not name or is_this_machine(name) or _address(str(name)) is not None:
        return None
    return {"target": _text(name), "denied": True}


def _looked_back(host: object, *_: object) -> _Said | None:
    """The name of an address comes from a name server too."""
    host = host[0] if isinstance(host, tuple) else host
    return None if is_this_machine(host) else {"target": _text(host), "denied": True}


def _started(program: object, *_: object) -> _Said:
    """Another program is not watched by a hook in this one."""
    return {"program": os.path.basename(_text(program))}


def _popened(executable: object, words: Any, *_: object) -> _Said:
    first = words if isinstance(words, str | bytes) or not words else words[0]
    return _started(executable or first)


_READERS: Final[Mapping[str, Callable[..., _Said | None]]] = {
    "socket.__new__": _made,
    **dict.fromkeys(("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"), _addressed),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyname"), _looked_up),
    **dict.fromkeys(("socket.gethostbyaddr", "socket.getnameinfo"), _looked_back),
    "subprocess.Popen": _popened,
    **dict.fromkeys(("os.exec", "os.posix_spawn", "os.spawn", "os.system"), _started),
}


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _caller(frame: FrameType | None) -> str:
    """The innermost code that is not Python's own library: who is behind it."""
    while frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith(_STDLIB) and not file.startswith(_INSTALLED)
        if not (own or file.startswith("<frozen") or file == __file__):
            spec = frame.f_globals.get("__spec__")  # what runs as a program has a name too
            module = getattr(spec, "name", "") or frame.f_globals.get("__name__") or file
            return _text(f"{module}, line {frame.f_lineno}")
        frame = frame.f_back
    return "Python itself"


def _text(value: object) -> str:
    text = os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)
    return text[:_MAX_CHARS]
