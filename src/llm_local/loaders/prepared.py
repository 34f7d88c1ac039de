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
from llm_local.loaders.packed_file import Write
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
# What decides what is kept, and reads it.
_CODE: Final = ("engine/**/*.py", "kernels/**/*.py", "loaders/**/*.py", "model_loader.py", "specs.py")
# The one folder beside the weights that a tokenizer is made of.
_TEMPLATES: Final = "additional_chat_templates"


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
        facts, parts = kept.facts, {part.names[0]: tensor for part, tensor in kept}
        tokenizer = facts["tokenizer"] | {"backend": parts["backend"].numpy().tobytes().decode()}
        info = facts["info"] | {"ref": spec.ref, "path": str(path), "context_length": context_length}
        return Start(
            SavedTokenizer(tokenizer),
            DecoderImage(facts["decoder"], (*regions, parts["decoder"].clone())),  # the file may go
            ModelInfo(**info),
            tuple(facts["notices"]),
        )

    def keep(self, start: Start, describe: Describe) -> None:
        """Keep a start that went through transformers, where that is possible. Nothing fails if it is not."""
        if self.cache.has(self.key):  # of another process, or of an engine before this one
            return
        try:
            self._keep(start, describe)
        except CacheUnusable as error:
            logger.info("the start of this model is not kept: %s", error)
        except Exception:  # it is a favor to the next start, and must not harm this one
            logger.info("the start of this model cannot be kept", exc_info=True)

    def _keep(self, start: Start, describe: Describe) -> None:
        stored = start.stored
        described = describe(
            mapped_spans(self.files) if stored is None else [Span(stored.data_ptr(), stored.nbytes)]
        )
        state = None if described is None else saved_state(start.tokenizer)
        if described is None or state is None:
            what = "decoder" if described is None else "tokenizer"
            logger.info("the start of this model cannot be kept: its %s cannot", what)
            return
        decoder, computed = described
        backend = torch.frombuffer(bytearray(state.pop("backend").encode()), dtype=torch.uint8)
        parts = {"backend": backend, "decoder": computed}
        facts = {
            "decoder": decoder,
            "tokenizer": state,
            "info": asdict(start.info),
            "notices": list(start.notices),
        }
        layout = Layout(tuple(Part((name,), "uint8", (one.numel(),)) for name, one in parts.items()))

        def fill(write: Write) -> None:
            for offset, one in zip(layout.offsets, parts.values(), strict=True):
                write(offset, one)

        # one lock for all: nobody waits for it, and a lock file for each of them would stay for ever
        with self.cache.turn("start", waits=False):
            self.cache.store(self.key, layout, fill, facts, spared=self.packed)

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
    others = [one for one in _files(path) if one not in weights.files]
    asked = [spec.quantization, spec.dtype, str(placement.dtype)]
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    named = [[str(one.relative_to(path)), *file_identity(one)] for one in others]
    text = json.dumps([packed, asked, named, versions, _code_digest()])
    return Preparation(
        PackedCache(packed_folder(), spec.packed_cache_bytes),
        f"start-{hashlib.sha256(text.encode()).hexdigest()[:32]}",
        "" if placement.bits == "none" else packed,
        weights.files,
    )


def _files(folder: Path) -> list[Path]:
    """All that a model's configuration, tokenizer and templates may be read from."""
    found = [*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]
    return sorted(one for one in found if one.is_file())


@functools.cache
def _code_digest() -> str:
    """Of all our code that decides what is kept: a change of it makes every kept start a stranger."""
    package = Path(__file__).parent.parent
    found = hashlib.sha256()
    for pattern in _CODE:
        for path in sorted(package.glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()
