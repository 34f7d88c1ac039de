"""The ports that servers of models use here: free, or whose. Nothing is connected to, to find out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llm_local.cli.checks.check import Check
from llm_local.config import Config
from llm_local.store.servers import running_servers

__all__ = ["Listener", "check_ports", "listeners"]

_KNOWN: Final = {8000: "", 11434: ", where Ollama listens"}
_LOOPBACK: Final = ("localhost", "::1")


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens at `host`; `pid` is None where the system does not tell us."""

    host: str
    pid: int | None

    @property
    def words(self) -> str:
        """Who it is, in words."""
        if self.pid is None:
            return f"another user's process at {self.host}"
        # Late: it was asked for this listener, so it is there.
        import psutil  # type: ignore[import-untyped]

        try:
            return f"{psutil.Process(self.pid).name()} (process {self.pid}) at {self.host}"
        except psutil.Error:
            return f"process {self.pid} at {self.host}"


def check_ports(config: Config) -> Iterator[Check]:
    """The port of our API, and those that clients try by themselves."""
    yield _address(config)
    ours = {one.port: one for one in running_servers()}
    for port in dict.fromkeys((config.api_port, *_KNOWN)):
        name = f"port {port}"
        use = ", API_PORT" if port == config.api_port else _KNOWN[port]
        try:
            found = listeners(port)
        except PermissionError:
            yield Check(name, f"this system tells only its administrator who listens{use}")
            continue
        if port in ours:
            yield Check(name, f"our own server, with {ours[port].model or 'no model'}{use}")
        elif not found:
            yield Check(name, f"free{use}")
        else:
            taken = f"taken by {', '.join(one.words for one in found)}{use}"
            mend = "Stop that program, or set API_PORT to another port."
            yield Check(name, taken, "warn", mend) if port == config.api_port else Check(name, taken)


def listeners(port: int) -> list[Listener]:
    """Who listens at a TCP port of this machine.

    Raises:
        PermissionError: this system does not tell.
    """
    # Late: the verbs that do not look at the machine start without it.
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        raise PermissionError("the list of connections") from None
    pairs = {
        (one.laddr.ip, one.pid)
        for one in found
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    return [Listener(host, pid) for host, pid in sorted(pairs, key=str)]


def _address(config: Config) -> Check:
    host = config.api_host
    if host in _LOOPBACK or host.startswith("127."):
        return Check("API address", f"{host}, which only this machine reaches")
    found = f"{host} (from {config.origin('api_host')}), which other machines may reach"
    return Check("API address", found, "warn", "Set API_HOST to 127.0.0.1 unless that is what you want.")
