"""The index of a model whose weights lie in several files: which tensor is in which shard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from llm_local.errors import ModelCorrupt, UnsafeWeights
from llm_local.store.names import safe_join, shown
from llm_local.store.selection import is_pickle

__all__ = ["parse_index", "read_index", "shard_names"]

_MAX_BYTES: Final = 64 << 20


def read_index(path: Path) -> dict[str, str]:
    """Tensor name to shard name, from a file such as `model.safetensors.index.json`.

    Raises:
        ModelCorrupt: it is no index, or a shard's name leaves the folder. UnsafeWeights: a shard is a pickle file.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise _corrupt(path, f"it is larger than {_MAX_BYTES >> 20} MB")
    return parse_index(path, path.read_bytes())


def parse_index(path: Path, data: bytes) -> dict[str, str]:
    """As `read_index`, of contents that do not lie at `path` yet."""
    try:
        index = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"it is not JSON ({error})") from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise _corrupt(path, "it has no weight_map")
    for shard in set(map(str, shards.values())):
        safe_join(path.parent, shard)
        if is_pickle(shard):
            raise UnsafeWeights(
                f"{path.name} names the pickle file {shard}, which is not loaded.", file=path.name
            )
        if not shard.endswith(".safetensors") or "/" in shard:
            raise _corrupt(path, f"it names {shown(shard)}, which is no safetensors file beside it")
    return {str(tensor): str(shard) for tensor, shard in shards.items()}


def shard_names(path: Path) -> list[str]:
    """The shards of an index, each once, sorted. Raises as `read_index` does."""
    return sorted(set(read_index(path).values()))


def _corrupt(path: Path, reason: str) -> ModelCorrupt:
    return ModelCorrupt(
        f"{path.name} is damaged: {reason}.", "Delete the file and fetch the model again.", file=path.name
    )
