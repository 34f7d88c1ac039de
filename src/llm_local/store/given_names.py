"""Names that people gave to models: a second name for one, or a name for a folder or a file that lies elsewhere.

    <data home>/models/<name>.json

One file a name, so that damage to one is damage to no other. A file is written whole or not at all. Names of people
come before names of the hub, so a name has no slash, and whoever gives one is told what it hides.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from llm_local.home import data_home

__all__ = [
    "GivenName",
    "find_given",
    "forget_given",
    "given_names",
    "is_givable",
    "names_folder",
    "store_given",
]

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_ENDING: Final = ".json"
_MAX_BYTES: Final = 4 << 20
_KINDS: Final = ("starter", "hub", "directory", "file")

Kind = Literal["starter", "hub", "directory", "file"]


@dataclass(frozen=True, slots=True)
class GivenName:
    """A name and what it stands for: a hub id with perhaps a revision, `starter`, or an absolute path.

    - `digests`: sha256 of the files of a folder, by name inside it, or of the one file, when the name was given.
    - `fault`: why the name cannot be used, in words; then nothing else is known.
    """

    name: str
    kind: Kind = "hub"
    target: str = ""
    revision: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


def names_folder() -> Path:
    """Where the names are kept."""
    return data_home() / "models"


def is_givable(name: str) -> bool:
    """True for what can be a name at all."""
    return bool(_NAME.fullmatch(name)) and "--" not in name and ".." not in name and not name.endswith(".git")


def find_given(name: str) -> GivenName | None:
    """What a name stands for, or None where nobody gave it."""
    if not is_givable(name):
        return None
    path = _path(name)
    try:
        if path.stat().st_size > _MAX_BYTES:
            return GivenName(name, fault=f"it has more than {_MAX_BYTES >> 20} MB")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return GivenName(name, fault=error.strerror or str(error))
    given = _read(name, data)
    # on a disk that takes `A` for `a` the file is there, and the name is another one
    return given if given.fault or given.name == name else None


def given_names() -> list[GivenName]:
    """All of them, damaged ones too, sorted."""
    try:
        files = sorted(entry.name for entry in names_folder().iterdir() if entry.name.endswith(_ENDING))
    except OSError:
        return []
    found = (find_given(file.removesuffix(_ENDING)) for file in files)
    return [given for given in found if given is not None]


def store_given(given: GivenName) -> None:
    """Keep a name, in place of what it stood for before.

    Raises:
        OSError: the disk refuses.
    """
    path = _path(given.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "name": given.name,
        "kind": given.kind,
        "target": given.target,
        "revision": given.revision,
        "digests": dict(given.digests),
    }
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(fresh, "w", encoding="utf-8") as out:
            json.dump(content, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def forget_given(name: str) -> None:
    """Have nobody given that name.

    Raises:
        OSError: the disk refuses.
    """
    with suppress(FileNotFoundError):
        _path(name).unlink()


def _path(name: str) -> Path:
    return names_folder() / f"{name}{_ENDING}"


def _read(name: str, data: bytes) -> GivenName:
    try:
        found = json.loads(data)
        given = GivenName(
            _text(found["name"]),
            found["kind"],
            _text(found["target"]),
            None if found["revision"] is None else _text(found["revision"]),
            {_text(file): _text(digest) for file, digest in found["digests"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return GivenName(name, fault="its file is not what llm-local writes")
    relative = given.kind in ("directory", "file") and not Path(given.target).is_absolute()
    if given.kind not in _KINDS or relative or "\0" in given.target:
        return GivenName(name, fault="its file says nothing that could be meant")
    return given


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
