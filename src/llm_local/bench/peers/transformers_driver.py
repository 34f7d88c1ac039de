"""transformers' own `generate` on the same weights. Asked through `serving.py`, so that its memory is not ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_local.bench.subjects import Subject, open_shape, open_weights
from llm_local.specs import EngineOptions, ModelSpec

if TYPE_CHECKING:
    from llm_local.engine.reference import GenerateReference

__all__ = ["answer"]

_opened: dict[str, GenerateReference] = {}


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """`do` is "open", once, with a `shape` or a `path`, `dtype` and `device`; or "generate"."""
    if asked["do"] == "open":
        # Late: it imports torch.
        from llm_local.engine.reference import GenerateReference

        subject = _subject(asked)
        _opened["model"] = GenerateReference(subject.model)
        return {"weight_bytes": subject.info.weight_bytes, "kv_bytes_per_token": subject.kv_bytes_per_token()}
    moments: list[float] = []
    began = time.perf_counter()
    found = _opened["model"].generate(
        asked["prompts"], asked["new_tokens"], lambda: moments.append(time.perf_counter() - began)
    )
    return {"tokens_s": moments, "token_ids": found}


def _subject(asked: Mapping[str, Any]) -> Subject:
    """Never quantized, never with our kernels: the library as it comes."""
    spec = ModelSpec(
        asked["path"] or asked["shape"],
        dtype=asked["dtype"],
        device=asked["device"],
        quantization="none",
        kernels="off",
    )
    options = EngineOptions(kernels="off")
    if asked["path"]:
        return open_weights(spec, options, explicit=True, offline=True, on_progress=lambda _: None)[0]
    return open_shape(asked["shape"], spec, options)
