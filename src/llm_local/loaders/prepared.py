"""What one start of a model leaves for the next: its tokenizer and its decoder as data, beside the packed weights.

Reading a model through transformers takes two seconds of importing before anything is read. All that it finds out is
kept in a file of the packed cache, under a key made of the model's files, the settings and all code that decides; the
weights stay where they are. The next start needs neither transformers nor the model's configuration class.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from llm_local.loaders.decoder_image import DecoderImage, Span
from llm_local.loaders.devices import Placement, no_native
from llm_local.loaders.mapped_pages import map_file, mapped_spans
from llm_local.loaders.packed_cache import CacheUnusable, PackedCache
from llm_local.loaders.packed_keys import file_identity, pack_key, packed_folder
from llm_local.loaders.packing import Layout, Part
from llm_local.loaders.safetensors import Weights
from llm_local.loaders.saved_tokenizer import SavedTokenizer, saved_state
from llm_local.specs import ModelInfo, ModelSpec

__all__ = ["Describe", "Preparation", "Start", "prepare"]

logger = logging.getLogger(__name__)

Describe = Callable[[Sequence[Span]], tuple[dict[str, Any], torch.Tensor] | None]
"""Makes facts and bytes of the engine that runs a model, given where its weights lie; None where there are none."""

_LIBRARIES: Final = ("tokenizers", "torch", "transformers")
_CODE: Final = ("engine", "kernels", "loaders")  # the rooms that decide what is kept, and read it


@dataclass(frozen=True, slots=True)
class Start:
    """A model in memory: tokenizer and weights of transformers, or a saved tokenizer and an image from `Preparation`.

    `notices` are lines that people should see; `stored` the packed weights, where a file has them; `keep` keeps this
    start for the next one, given what describes its engine.
    """

    tokenizer: Any
    model: Any
    info: ModelInfo
    notices: tuple[str, ...]
    stored: torch.Tensor | None = None
    keep: Callable[[Describe], None] | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """Where the start of one model, in one form, is kept. `packed` is the key of its packed weights, or empty."""

    cache: PackedCache
    key: str
    packed: str
    files: tuple[Path, ...]

    def find(self, spec: ModelSpec, path: Path, context_length: int) -> Start | None:
        """What an earlier start kept, if it can be used now."""
        kept = self.cache.find(self.key)
        regions = None if kept is None else self._weights()
        if kept is None or regions is None:
            return None
        facts = kept.facts
        info = facts["info"] | {"ref": spec.ref, "path": str(path), "context_length": context_length}
        return Start(
            SavedTokenizer(facts["tokenizer"]),
            DecoderImage(facts["decoder"], (*regions, kept.storage)),
            ModelInfo(**info),
            tuple(facts["notices"]),
        )

    def keep(self, start: Start, describe: Describe) -> None:
        """Keep a start that went through transformers, where that is possible. Nothing fails if it is not."""
        stored = start.stored
        spans = mapped_spans(self.files) if stored is None else [Span(stored.data_ptr(), stored.nbytes)]
        try:
            described, state = describe(spans), saved_state(start.tokenizer)
            if described is None or state is None:
                logger.info("the start of this model cannot be kept: %s", "decoder" if state else "tokenizer")
                return
            decoder, kept = described
            facts = {
                "decoder": decoder,
                "tokenizer": state,
                "info": asdict(start.info),
                "notices": list(start.notices),
            }
            layout = Layout((Part(("kept",), "uint8", (kept.numel(),)),))
            with self.cache.turn(self.key):
                self.cache.store(self.key, layout, lambda write: write(0, kept), facts)
        except CacheUnusable as error:
            logger.info("the start of this model is not kept: %s", error)

    def _weights(self) -> tuple[torch.Tensor, ...] | None:
        if not self.packed:
            return tuple(map_file(path) for path in self.files)
        found = self.cache.find(self.packed)
        return None if found is None else (found.storage,)


def prepare(
    spec: ModelSpec, path: Path, config: Mapping[str, Any], weights: Weights, placement: Placement
) -> Preparation | None:
    """Where the start of a model may be kept; None where it goes through transformers every time.

    That is on a GPU, without native code, with code of the model's own, or where nothing may be kept.
    """
    plain_cpu = placement.device == "cpu" and not placement.spread
    if not plain_cpu or spec.trust_remote_code or not spec.packed_cache_bytes:
        return None
    if spec.kernels != "auto" or no_native(spec.kernels):
        return None
    packed = pack_key(config, weights, placement.bits)
    others = sorted(one for one in path.iterdir() if one.is_file() and one not in weights.files)
    asked = [spec.quantization, spec.dtype, str(placement.dtype)]
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    text = json.dumps([packed, asked, [file_identity(one) for one in others], versions, _code_digest()])
    return Preparation(
        PackedCache(packed_folder(), spec.packed_cache_bytes),
        f"start-{hashlib.sha256(text.encode()).hexdigest()[:32]}",
        "" if placement.bits == "none" else packed,
        weights.files,
    )


@functools.cache
def _code_digest() -> str:
    """Of all our code that decides what is kept: a change of it makes every kept start a stranger."""
    package = Path(__file__).parent.parent
    found = hashlib.sha256()
    for room in _CODE:
        for path in sorted((package / room).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()
