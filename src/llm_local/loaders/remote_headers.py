"""The headers of weights that are still on the hub: a few kilobytes of each file, judged as those on the disk are."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import ModelCorrupt
from llm_local.loaders.configuration import ModelConfig, parse_config
from llm_local.loaders.safetensors import Tensor, Weights, parse_header
from llm_local.store.download import RemoteFile
from llm_local.store.selection import CONFIG

if TYPE_CHECKING:
    from llm_local.store.destinations import Destination
    from llm_local.store.remote import RemoteModel

__all__ = ["ReadStart", "remote_config", "remote_weights", "weights_on_hub"]

ReadStart = Callable[[RemoteFile, int], bytes]
"""Gives the first bytes of a file on the hub, fewer where it is shorter."""

_USUAL_BYTES: Final = 64 << 10  # the headers of most files
_MAX_HEADER_BYTES: Final = 32 << 20
_AT_ONCE: Final = 4


def remote_weights(files: Sequence[RemoteFile], read_start: ReadStart) -> Weights:
    """All tensors of `files`.

    Raises:
        ModelCorrupt: one of them is not what its name says, or does not tell its size.
        LocalLLMError: whatever `read_start` raises.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers = list(pool.map(lambda file: _header(file, read_start), files))
    return Weights((), {name: tensor for header in headers for name, tensor in header.items()})


def weights_on_hub(files: Sequence[RemoteFile], remote: RemoteModel, goal: Destination) -> Weights:
    """All tensors of what is to be fetched: from what an earlier run left at `goal`, where that is of use.

    Raises:
        ModelCorrupt, AccessDenied, HubUnavailable: as `remote_weights` and `RemoteModel.read_start`.
    """

    def read_start(file: RemoteFile, num_bytes: int) -> bytes:
        place = goal.place(file)
        for path in (place.final, place.part):
            with contextlib.suppress(OSError), open(path, "rb") as data:
                start = data.read(num_bytes)
                if len(start) == min(num_bytes, file.size or num_bytes):
                    return start
        return remote.read_start(file, num_bytes)

    of_weights = [file for file in files if file.name.endswith(".safetensors")]
    try:
        return remote_weights(of_weights, read_start)
    except ModelCorrupt:  # a part is not verified yet
        return remote_weights(of_weights, remote.read_start)


def remote_config(data: bytes) -> ModelConfig:
    """The configuration of a model, from the contents of its `config.json`.

    Raises:
        ModelCorrupt: it is damaged. UnsupportedTask: the weights are quantized.
    """
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{CONFIG} is damaged: it is not JSON ({error}).", file=CONFIG) from error
    if not isinstance(found, dict):
        raise ModelCorrupt(f"{CONFIG} is damaged: it is not a JSON object.", file=CONFIG)
    return parse_config(found)


def _header(file: RemoteFile, read_start: ReadStart) -> dict[str, Tensor]:
    start = read_start(file, _USUAL_BYTES)
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if len(start) < 8 + length <= _MAX_HEADER_BYTES:
        start = read_start(file, 8 + length)
    if file.size is None:
        raise ModelCorrupt(f"The hub does not tell the size of {file.name}.", file=file.name)
    return parse_header(io.BytesIO(start), file.size, Path(file.name))
