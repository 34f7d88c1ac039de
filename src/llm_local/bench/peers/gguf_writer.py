"""A program for the peer's Python, not for ours: a folder with safetensors weights as a GGUF file of some format.

Asked through `serving.py`, with nothing of llm-local there: `folder`, `format` (a name of llama.cpp's, as "Q4_0"),
`path`, `threads`, and the `tokens` and `merges` of a byte-level vocabulary. Names of tensors and fields come from the
`gguf` package, formats from llama.cpp's own quantizer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["answer"]

# What transformers calls an architecture -> what llama.cpp calls it.
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert, then quantize unless the weights have the format already; the file appears when it is complete."""
    path, shape = Path(asked["path"]), json.loads(Path(asked["folder"], "config.json").read_text())
    part, plain = path.with_suffix(".part"), path.with_suffix(".plain")
    try:
        stored = _write_plain(plain, shape, asked)
        if stored == asked["format"]:
            plain.replace(part)
        else:
            _quantize(plain, part, asked["format"], asked["threads"])
        part.replace(path)
    finally:
        plain.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return {"bytes": path.stat().st_size}


def _write_plain(path: Path, shape: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The weights in their own number format, which is the result. Vectors are float32, as llama.cpp wants them."""
    # Late, as all imports of the peer's packages: what is missing is told in the reply.
    import gguf  # type: ignore[import-not-found, unused-ignore]
    import numpy

    kind = shape["model_type"]
    if kind not in _ARCHITECTURES:
        raise ValueError(f"models of type {kind!r} are not converted for llama.cpp")
    writer = gguf.GGUFWriter(path, _ARCHITECTURES[kind])
    _add_fields(writer, shape)
    _add_vocabulary(writer, gguf, asked["tokens"], asked["merges"])
    architecture = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == _ARCHITECTURES[kind])
    names = gguf.get_tensor_name_map(architecture, shape["num_hidden_layers"])
    formats = {"BF16": "BF16", "F16": "F16", "F32": "F32"}
    stored, values = "F32", []
    for name, dtype, tensor in _tensors(Path(asked["folder"])):
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None or dtype not in formats:
            raise ValueError(
                f"llama.cpp has no place for tensor {name!r} of {dtype} in models of type {kind!r}"
            )
        kept = "F32" if tensor.ndim < 2 else dtype
        stored = stored if tensor.ndim < 2 else dtype
        raw = gguf.GGMLQuantizationType[kept]
        sizes = [*tensor.shape[:-1], tensor.shape[-1] * (4 if kept == "F32" else 2)]
        count = int(tensor.size) * (4 if kept == "F32" else 2)
        writer.add_tensor_info(known, sizes, numpy.dtype(numpy.uint8), count, raw_dtype=raw)
        values.append((known, tensor, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for known, tensor, dtype in values:
        writer.write_tensor_data(_converted(known, tensor, dtype, shape))
    writer.close()
    return stored


def _tensors(folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Name, number format and values of each tensor, mapped from the files; see the safetensors format."""
    import numpy

    numbers = {"BF16": numpy.uint16, "F16": numpy.float16, "F32": numpy.float32}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        for name, found in header.items():
            if name == "__metadata__":
                continue
            kind = numbers.get(found["dtype"])
            if kind is None:
                raise ValueError(f"tensor {name!r} is {found['dtype']}")
            start = 8 + length + found["data_offsets"][0]
            yield name, found["dtype"], numpy.memmap(file, kind, "r", start, tuple(found["shape"]))


def _converted(known: str, tensor: Any, dtype: str, shape: Mapping[str, Any]) -> Any:
    """The bytes as GGUF wants them: vectors in float32, Llama's queries and keys with their halves interleaved."""
    import numpy

    values = numpy.ascontiguousarray(tensor)
    if tensor.ndim < 2 and dtype == "BF16":  # bfloat16 is the upper half of a float32
        values = (values.astype(numpy.uint32) << 16).view(numpy.float32)
    elif tensor.ndim < 2:
        values = values.astype(numpy.float32)
    if _ARCHITECTURES[shape["model_type"]] == "llama" and ("attn_q." in known or "attn_k." in known):
        heads = shape["num_attention_heads"]
        if "attn_k." in known:
            heads = shape.get("num_key_value_heads") or heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        values = numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values.view(numpy.uint8)


def _add_fields(writer: Any, shape: Mapping[str, Any]) -> None:
    heads = shape["num_attention_heads"]
    head_dim = shape.get("head_dim") or shape["hidden_size"] // heads
    rope = shape.get("rope_parameters") or {}
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shape.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(float(shape.get("rope_theta") or rope.get("rope_theta") or 10_000.0))
    writer.add_vocab_size(shape["vocab_size"])


def _add_vocabulary(writer: Any, gguf: Any, tokens: list[str], merges: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(merges)
    writer.add_eos_token_id(0)


def _quantize(source: Path, target: Path, name: str, threads: int) -> None:
    """With llama.cpp's defaults, as everybody's files are made."""
    import llama_cpp  # type: ignore[import-not-found, unused-ignore]

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{'ALL' if name == 'F32' else 'MOSTLY'}_{name}")
    params.allow_requantize = True  # from bfloat16
    params.nthread = threads
    status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params)
    if status != 0:
        raise RuntimeError(f"llama.cpp could not quantize to {name} (status {status})")
