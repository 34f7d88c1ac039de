"""Which files of a model are needed to run it, chosen from their names alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from llm_local.errors import ModelNotFound, UnsafeWeights, UnsupportedTask

__all__ = ["CONFIG", "INDEX", "WEIGHTS", "Selection", "has_tokenizer", "is_pickle", "select_files"]

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".joblib")
_METADATA: Final = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken)|(?:merges|vocab)\.txt|additional_chat_templates/[^/]+\.jinja"
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


def _is_other_index(name: str) -> bool:
    return name.endswith(".index.json") and name != INDEX


def _refuse(ref: str, names: Collection[str]) -> None:
    pickles = sorted(name for name in names if "/" not in name and is_pickle(name))
    if pickles:
        raise UnsafeWeights(
            f"{ref} has its weights only as pickle ({pickles[0]}), and loading that can run code hidden in it.",
            "Choose a model with safetensors weights.",
            file=pickles[0],
        )
    if "adapter_config.json" in names:
        raise UnsupportedTask(f"{ref} is an adapter, not a whole model.", "Name the model it was made for.")
    other = sorted(name for name in names if name.lower().endswith((".gguf", ".onnx", ".h5", ".msgpack")))
    if other:
        raise UnsupportedTask(
            f"{ref} has its weights in a format that is not supported ({other[0]}).",
            "Choose a model with safetensors weights.",
        )
