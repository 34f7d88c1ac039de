"""Which files of a model are needed to run it, chosen from their names alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from llm_local.errors import InvalidRequest, ModelNotFound, UnsafeWeights, UnsupportedTask

__all__ = [
    "CONFIG",
    "INDEX",
    "WEIGHTS",
    "Selection",
    "gguf_variants",
    "has_tokenizer",
    "is_pickle",
    "select_files",
    "select_gguf",
]

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".joblib")
_METADATA: Final = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken)|(?:merges|vocab)\.txt|additional_chat_templates/[^/]+\.jinja"
    r"|\d_[A-Za-z]+/(?:config\.json|model\.safetensors)"  # the modules of an embedding model
)
_GGUF: Final = re.compile(
    r"(?P<stem>.+?)(?:-(?P<part>\d{5})-of-(?P<parts>\d{5}))?\.gguf", re.IGNORECASE | re.DOTALL
)
_TOKENIZERS: Final = frozenset(
    "tokenizer.json tokenizer.model spiece.model sentencepiece.bpe.model vocab.json vocab.txt".split()
)


@dataclass(frozen=True, slots=True)
class Selection:
    """File names: small ones first to fetch, and either the index that names the shards or the one weight file."""

    metadata: tuple[str, ...]
    weights: str


def is_pickle(name: str) -> bool:
    """True for a file whose loading can run code that came with it."""
    return name.lower().endswith(_PICKLES)


def has_tokenizer(names: Collection[str]) -> bool:
    """True when one of `names` holds a vocabulary."""
    return any(name in _TOKENIZERS or name.endswith(".tiktoken") for name in names)


def select_files(ref: str, names: Collection[str]) -> Selection:
    """What to fetch of a repository; never pickle files, never code.

    Raises:
        UnsafeWeights: the weights are offered as pickle only.
        UnsupportedTask: the weights are in a format that cannot be loaded.
        ModelNotFound: there is no model in it.
    """
    weights = next((name for name in (INDEX, WEIGHTS) if name in names), None)
    if weights is None:
        _refuse(ref, names)
    elif CONFIG in names:
        metadata = sorted(name for name in names if _METADATA.fullmatch(name) and not _is_other_index(name))
        return Selection(tuple(metadata), weights)
    raise ModelNotFound(f"{ref} holds no language model: it has no {CONFIG} with weights beside it.")


def gguf_variants(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The GGUF models among `names`: what each is called, without its ending, and the files it consists of."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if match := _GGUF.fullmatch(name):
            found.setdefault(match["stem"], []).append(name)
    return {stem: tuple(files) for stem, files in found.items()}


def select_gguf(ref: str, names: Collection[str], wanted: str) -> tuple[str, ...]:
    """The files of one GGUF model: `wanted` is one of its files, or what it is quantized to, such as Q4_K_M.

    Raises:
        ModelNotFound: there is none (kind `file_not_found`), or some of its parts are not there.
        InvalidRequest: there are several.
    """
    variants = gguf_variants(names)
    if wanted.lower().endswith(".gguf"):
        found = [files for files in variants.values() if wanted in files]
    else:
        ending = re.compile(rf"(?:.*[-._/])?{re.escape(wanted)}", re.IGNORECASE | re.DOTALL)
        found = [files for stem, files in variants.items() if ending.fullmatch(stem)]
    if not found:
        there = ", ".join(variants) or "no GGUF file at all"
        raise ModelNotFound(
            f"{ref} has no GGUF file for {wanted!r}.", f"It has {there}.", kind="file_not_found"
        )
    if len(found) > 1:
        raise InvalidRequest(
            f"{wanted!r} fits several GGUF files of {ref}.",
            f"Name one of {', '.join(files[0] for files in found)}.",
            param="model",
        )
    _check_parts(ref, found[0])
    return found[0]


def _check_parts(ref: str, files: tuple[str, ...]) -> None:
    match = _GGUF.fullmatch(files[0])
    if match is not None and match["parts"] is not None and int(match["parts"]) != len(files):
        raise ModelNotFound(
            f"{ref} has {len(files)} of the {int(match['parts'])} parts of {match['stem']}.",
            kind="file_not_found",
        )


def _is_other_index(name: str) -> bool:
    return name.endswith(".index.json") and name != INDEX


def _refuse(ref: str, names: Collection[str]) -> None:
    pickles = sorted(name for name in names if "/" not in name and is_pickle(name))
    if pickles:
        more = f" and {len(pickles) - 3} more" if len(pickles) > 3 else ""
        raise UnsafeWeights(
            f"{ref} has its weights only as pickle ({', '.join(pickles[:3])}{more}), "
            "and loading that can run code hidden in it.",
            "Choose a model with safetensors weights.",
            file=pickles[0],
        )
    if "adapter_config.json" in names:
        raise UnsupportedTask(f"{ref} is an adapter, not a whole model.", "Name the model it was made for.")
    if variants := gguf_variants(names):
        raise UnsupportedTask(
            f"{ref} has its weights only as GGUF, which cannot be run yet.",
            f"To fetch one anyway write {ref}:FILE; it has {', '.join(files[0] for files in variants.values())}.",
        )
    other = sorted(name for name in names if name.lower().endswith((".onnx", ".h5", ".msgpack")))
    if other:
        raise UnsupportedTask(
            f"{ref} has its weights in a format that is not supported ({other[0]}).",
            "Choose a model with safetensors weights.",
        )
