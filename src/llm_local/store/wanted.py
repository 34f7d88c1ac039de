"""What people write after `pull`: a model's name, its address on the hub, or one GGUF file of it.

    org/name   org/name@revision   org/name:Q4_K_M   org/name@revision:model-q4.gguf
    hf.co/org/name…   https://huggingface.co/org/name   …/tree/revision   …/blob/revision/model-q4.gguf

Only the hub's own addresses are understood. A name never chooses the machine that is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from llm_local.errors import InvalidRequest
from llm_local.store.endpoint import origin
from llm_local.store.names import ModelName, parse_name, shown

__all__ = ["Wanted", "parse_wanted"]

_HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_ADDRESS: Final = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)(?P<host>[^/\s]*)(?P<rest>/\S*)?")
_BARE_HOST: Final = re.compile(
    r"(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?:\.[A-Za-z0-9]{2,}|:\d+))(?P<rest>/\S+)"
)
_GGUF: Final = ".gguf"
_QUANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model on the hub. `gguf` names one of its GGUF files, or what that is quantized to; "" means the weights."""

    name: ModelName
    gguf: str = ""

    @property
    def text(self) -> str:
        """How it is written."""
        revision = f"@{self.name.revision}" if self.name.revision else ""
        return f"{self.name.ref}{revision}{':' + self.gguf if self.gguf else ''}"


def parse_wanted(text: str, endpoint: str, revision: str | None = None) -> Wanted:
    """Understand the name of a model to fetch from the hub at `endpoint`.

    Raises:
        InvalidRequest: an address on another machine, a directory, two different revisions, or no name at all.
        ModelNotFound: a name no model can have.
    """
    path = _without_host(text, endpoint)
    if path is not None:
        ref, of_address, gguf = _split_address(path)
    else:
        ref, of_address, gguf = text, None, ""
    if not gguf:
        ref, gguf = _split_file(ref)
    if of_address is not None:
        ref = f"{ref}@{of_address}"
    name = parse_name(ref, revision)
    if name.kind != "hub":
        raise InvalidRequest(
            f"{shown(text)} is not a model on the hub.",
            "It is here already: nothing is fetched.",
            param="model",
        )
    return Wanted(name, _checked(gguf, text))


def _without_host(text: str, endpoint: str) -> str | None:
    """What follows the host in an address of the hub; None when `text` is a plain name.

    Raises:
        InvalidRequest: the address is another machine's.
    """
    match = _ADDRESS.fullmatch(text) or _BARE_HOST.fullmatch(text)
    if match is None:
        return None
    scheme, rest = match.groupdict().get("scheme"), match["rest"] or ""
    is_hub = match["host"].lower() in _HUB_HOSTS | {_host_and_port(endpoint)}
    if (scheme or "https").lower() in ("http", "https") and is_hub:
        rest = rest.partition("?")[0].partition("#")[0]
        return unquote(_without_base(rest, endpoint)).strip("/")
    if scheme is None and "/" not in rest.strip("/"):
        return None  # an organization may have a dot in its name
    raise InvalidRequest(
        f"{shown(text)} is on {shown(match['host'])}, but models come from {endpoint} alone.",
        "Write org/name; another hub is chosen with --mirror or HF_ENDPOINT.",
        param="model",
    )


def _without_base(rest: str, endpoint: str) -> str:
    """A mirror may live under a path."""
    base = "/" + endpoint.partition("://")[2].partition("/")[2]
    return rest.removeprefix(base) if base != "/" else rest


def _host_and_port(endpoint: str) -> str:
    found = origin(endpoint)
    usual = {"https": 443, "http": 80}[found.scheme] == found.port
    return found.host if usual else f"{found.host}:{found.port}"


def _split_address(path: str) -> tuple[str, str | None, str]:
    """Name, revision and file of `org/name/tree/revision` or `org/name/blob/revision/file`."""
    parts = path.split("/")
    for index in (1, 2):
        if len(parts) > index + 1 and parts[index] in ("tree", "blob", "resolve"):
            return "/".join(parts[:index]), parts[index + 1], "/".join(parts[index + 2 :])
    return path, None, ""


def _split_file(text: str) -> tuple[str, str]:
    name, colon, file = text.partition(":")
    if colon and not file:
        raise InvalidRequest(
            f"{shown(text)} ends in a colon.", "Write org/name, or org/name:Q4_K_M.", param="model"
        )
    return name, file


def _checked(gguf: str, text: str) -> str:
    """The file, when it can be one.

    Raises:
        InvalidRequest: it is no GGUF file, nor what one is quantized to.
    """
    if gguf and not gguf.lower().endswith(_GGUF) and not _QUANT.fullmatch(gguf):
        raise InvalidRequest(
            f"{shown(text)} names {shown(gguf)}, which is no GGUF file.",
            "After the colon goes a .gguf file or what it is quantized to, such as Q4_K_M.",
            param="model",
        )
    return gguf
