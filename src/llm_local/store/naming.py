"""Giving names: a second one to a model that is here, or one to a folder or GGUF file that lies elsewhere.

Nothing is copied. What is named by its path stays where it is, and is read there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from llm_local.errors import InvalidRequest, ModelCorrupt, ModelNotFound, StorageError
from llm_local.events import Progress
from llm_local.store.catalog import catalog_models
from llm_local.store.digests import file_digest
from llm_local.store.gguf_header import read_gguf
from llm_local.store.given_names import GivenName, given_names, is_givable, store_given
from llm_local.store.library import StoredModel, files_of, find_model, parts_of
from llm_local.store.names import STARTER, safe_join, shown
from llm_local.store.selection import CONFIG
from llm_local.store.snapshots import is_complete, local_models

__all__ = ["copy_model", "import_model", "proposed_name"]

# Ids of the hub that have no slash and that everybody knows: nobody is to mistake another model for one of these.
_KNOWN_IDS: Final = frozenset("gpt2-large gpt2-xl bert-base-uncased".split())


def copy_model(source: str, name: str, *, force: bool = False) -> StoredModel:
    """Give a model that is here a second name, and return it under that name. With `force`, also a name in use.

    Raises:
        InvalidRequest: no name, or taken. ModelNotFound: `source` is not here. StorageError: the disk refuses.
    """
    _check_name(name, force=force)
    model = find_model(source)
    if model.state != "complete":
        raise ModelNotFound(f"{source} cannot be given a name: {model.fault}.")
    given = model.given
    if given is not None:  # a name for what it stands for, not for the name
        _store(GivenName(name, given.kind, given.target, given.revision, given.digests))
    elif model.kind == "directory":
        return import_model(model.folder, name, force=force)
    elif model.kind == "starter":
        _store(GivenName(name, "starter", STARTER))
    else:
        file = f":{model.gguf[0]}" if model.gguf else ""
        revision = model.revision if "@" in model.name else None
        _store(GivenName(name, "hub", model.ref + file, revision))
    return find_model(name)


def import_model(
    path: Path,
    name: str,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda event: None,
) -> StoredModel:
    """Give a name to the model in a folder, or to a GGUF file. Its files are read once, to know them again.

    Raises:
        InvalidRequest: no name, or taken. ModelNotFound: no model is there. ModelCorrupt: it is damaged.
        StorageError: the disk refuses.
    """
    _check_name(name, force=force)
    place = _place(path)
    is_file = place.is_file()
    model = StoredModel(name, "file" if is_file else "directory", place.parent if is_file else place)
    if is_file:
        read_gguf(place)
        model = StoredModel(name, "file", place.parent, parts_of(place))
    elif not is_complete(place):
        raise ModelNotFound(
            f"{shown(str(path))} holds no whole model.",
            f"A folder needs {CONFIG}, a tokenizer and safetensors weights.",
        )
    _store(GivenName(name, model.kind, str(place), digests=_digests(model, on_progress)))
    return find_model(name)


def proposed_name(path: Path) -> str:
    """The name that a folder or a file suggests; "" where it suggests none."""
    stem = path.name.removesuffix(".gguf")
    name = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in stem)
    while "--" in name:
        name = name.replace("--", "-")
    name = name.strip(".-")[:96].strip(".-")
    return name if is_givable(name) else ""


def _check_name(name: str, *, force: bool) -> None:
    if not is_givable(name):
        raise InvalidRequest(
            f"{shown(name)} cannot be the name of a model.",
            "A name has up to 96 letters, digits, dots, dashes and underscores, and no slash.",
            param="name",
        )
    try:
        safe_join(Path(), name)
    except ModelCorrupt as error:
        raise InvalidRequest(f"{shown(name)} means something else on some systems.", param="name") from error
    listed = (one.name for one in catalog_models())
    if name in (STARTER, *listed, *_KNOWN_IDS) or name in local_models():
        raise InvalidRequest(f"{name} is the name of another model.", "Choose another name.", param="name")
    taken = next((one for one in given_names() if one.name.lower() == name.lower()), None)
    if taken is not None and (taken.name != name or not force):
        hint = f"Take it away with `llm-local rm {taken.name}`, or replace it with --force."
        raise InvalidRequest(f"{taken.name} is the name of a model already.", hint, param="name")


def _place(path: Path) -> Path:
    try:
        place = path.expanduser().resolve()
        there = place.is_file() or place.is_dir()
    except (OSError, RuntimeError, ValueError):
        there = False
    if not there:
        raise ModelNotFound(f"There is no file or folder {shown(str(path))}.")
    if place.is_file() and place.suffix.lower() != ".gguf":
        raise ModelNotFound(
            f"{shown(str(path))} is no GGUF file.",
            "Name the folder of a model, or a .gguf file.",
            kind="file_not_found",
        )
    return place


def _digests(model: StoredModel, on_progress: Callable[[Progress], None]) -> dict[str, str]:
    try:
        files = [file for file in files_of(model) if file.size is not None and not file.is_hidden]
        total, done, found = sum(file.size or 0 for file in files), 0, {}
        for file in files:

            def report(have: int, label: str = file.name, before: int = done) -> None:
                on_progress(Progress("verifying", before + have, total, label))

            found[file.name] = file_digest(file.path, report)
            done += file.size or 0
    except OSError as error:
        raise StorageError(
            f"{model.folder} cannot be read: {error.strerror or error} ({error.filename})."
        ) from error
    return found


def _store(given: GivenName) -> None:
    try:
        store_given(given)
    except OSError as error:
        raise StorageError(
            f"The name {given.name} cannot be kept: {error.strerror or error} ({error.filename}).",
            "Point LLM_LOCAL_HOME at a folder you can write.",
        ) from error
