"""What can be said of a model without loading it, from its files alone and without torch: for `show`.

What a file does not say is None or empty here; nothing is guessed from names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import LocalLLMError
from llm_local.loaders.configuration import context_length, generation_defaults, read_json
from llm_local.loaders.safetensors import read_weights
from llm_local.store.selection import CONFIG
from llm_local.store.summary import quantization_of

if TYPE_CHECKING:
    from llm_local.store.gguf_header import GgufHeader

__all__ = ["Capcapabilities", "ModelCard", "Shape", "gguf_card", "read_card"]

_GENERATES: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_EMBEDS: Final = ("Model", "ForMaskedLM", "ForPreTraining")
_LICENSE: Final = re.compile(r"^license(?:_name)?:[ \t]*[\"']?([^\s\"'#][^\n\"'#]*)", re.M)
_FRONT_MATTER: Final = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.S)
_MAX_README_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes, by the glossary's names; None where the files do not say."""

    context_length: int | None = None
    num_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True, slots=True)
class Capcapabilities:
    """What a model is made for, as its files tell.

    - `tools`: its template takes tools; `tool_format` is how it writes calls, "generic" where that is not known.
    - `thinking`: "switchable", "always or by itself", or "".
    - `vision`: it has a part that sees, which llm-local does not use.
    """

    chat: bool = False
    tools: bool = False
    tool_format: str = ""
    thinking: str = ""
    embedding: bool = False
    vision: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All of it. `dtypes` says how many numbers are stored in each format. `faults` are damages, in words."""

    format: str
    architecture: str = ""
    model_type: str = ""
    quantization: str = ""
    num_parameters: int | None = None
    dtypes: Mapping[str, int] = field(default_factory=dict)
    shape: Shape = Shape()
    license: str = ""
    chat_template: str = ""
    capabilities: Capcapabilities = Capcapabilities()
    generation_defaults: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def read_card(folder: Path) -> ModelCard:
    """The card of the model in a folder. What is damaged is told in `faults`, and the rest is told all the same."""
    faults: list[str] = []
    config = _readable(folder / CONFIG, faults)
    tokenizer = (
        _readable(folder / "tokenizer_config.json", faults) if _has(folder, "tokenizer_config.json") else {}
    )
    template = _chat_template(folder, tokenizer)
    quantization = quantization_of(config)
    dtypes = _dtypes(folder, faults)
    try:
        defaults = generation_defaults(folder)
    except LocalLLMError as error:
        defaults = {}
        faults.append(error.message)
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    return ModelCard(
        format="safetensors",
        architecture=architecture,
        model_type=_text(config.get("model_type")),
        quantization=quantization,
        # packed numbers hold several weights, or a part of one
        num_parameters=sum(dtypes.values()) if dtypes and quantization == "none" else None,
        dtypes=dtypes,
        shape=_shape(config),
        license=_license(folder),
        chat_template=template,
        capabilities=_capabilities(folder, config, tokenizer, template, architecture),
        generation_defaults=defaults,
        faults=tuple(faults),
    )


def gguf_card(files: Sequence[Path]) -> ModelCard:
    """The card of a GGUF model. Of several parts the first one describes it.

    Raises:
        ModelCorrupt: a file is damaged.
    """
    # Late: most models are in the other format.
    from llm_local.store.gguf_header import quantization_name, read_gguf

    headers = [read_gguf(path) for path in files]
    first = headers[0]
    dtypes: dict[str, int] = {}
    for tensor in (tensor for header in headers for tensor in header.tensors):
        dtypes[tensor.type_name] = dtypes.get(tensor.type_name, 0) + math.prod(tensor.shape)
    template = first.text("tokenizer.chat_template")
    vision = first.architecture == "clip" or any(key.startswith("clip.") for key in first.values)
    return ModelCard(
        format="gguf",
        architecture=first.architecture,
        model_type=first.architecture,
        quantization=quantization_name(first),
        num_parameters=sum(dtypes.values()) or None,
        dtypes=dtypes,
        shape=_gguf_shape(first),
        license=first.text("general.license"),
        chat_template=template,
        capabilities=_template_capabilities(
            template, frozenset(), chat=bool(template), embedding=False, vision=vision
        ),
    )


def _readable(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        return read_json(path)
    except LocalLLMError as error:
        faults.append(error.message)
        return {}


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _dtypes(folder: Path, faults: list[str]) -> dict[str, int]:
    try:
        tensors = read_weights(folder).tensors
    except LocalLLMError as error:
        faults.append(error.message)
        return {}
    found: dict[str, int] = {}
    for tensor in tensors.values():
        found[tensor.dtype] = found.get(tensor.dtype, 0) + math.prod(tensor.shape)
    return found


def _shape(config: Mapping[str, Any]) -> Shape:
    inner = config.get("text_config")
    places = [config, inner if isinstance(inner, dict) else {}]

    def first(*keys: str) -> int | None:
        values = (place.get(key) for place in places for key in keys)
        return next((one for one in values if isinstance(one, int) and not isinstance(one, bool)), None)

    return Shape(
        context_length=context_length(config, None) if config else None,
        num_layers=first("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        num_attention_heads=first("num_attention_heads", "n_head", "num_heads", "n_heads"),
        num_key_value_heads=first("num_key_value_heads"),
        hidden_size=first("hidden_size", "n_embd", "d_model", "dim"),
        vocab_size=first("vocab_size"),
    )


def _gguf_shape(header: GgufHeader) -> Shape:
    tokens = header.values.get("tokenizer.ggml.tokens")
    return Shape(
        context_length=header.number("context_length"),
        num_layers=header.number("block_count"),
        num_attention_heads=header.number("attention.head_count"),
        num_key_value_heads=header.number("attention.head_count_kv"),
        hidden_size=header.number("embedding_length"),
        vocab_size=header.number("vocab_size") or (len(tokens) if isinstance(tokens, Sized) else None),
    )


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> str:
    """The template as the model's files have it; of several, all, one after the other."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    found = tokenizer.get("chat_template")
    if isinstance(found, str):
        return found
    named = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return "\n".join(_text(one.get("template")) for one in named)


def _capabilities(
    folder: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any], template: str, architecture: str
) -> Capcapabilities:
    declared = _has(folder, "modules.json")
    generates = architecture.endswith(_GENERATES) or (not architecture and bool(template))
    added = tokenizer.get("added_tokens_decoder")
    entries = added.values() if isinstance(added, dict) else ()
    tokens = frozenset(_text(entry.get("content")) for entry in entries if isinstance(entry, dict))
    return _template_capabilities(
        template,
        tokens,
        chat=generates and bool(template),
        embedding=declared or (not generates and architecture.endswith(_EMBEDS)),
        vision="vision_config" in config or "vision_tower" in config,
    )


def _template_capabilities(
    template: str, tokens: frozenset[str], *, chat: bool, embedding: bool, vision: bool
) -> Capcapabilities:
    words = set(re.findall(r"[A-Za-z_]\w*", template))
    tools = chat and "tools" in words
    return Capcapabilities(
        chat=chat,
        tools=tools,
        tool_format=_tool_format(template) if tools else "",
        thinking=_thinking(template, words, tokens) if chat else "",
        embedding=embedding,
        vision=vision,
    )


def _tool_format(template: str) -> str:
    # Late: a dozen formats take a while to import, and many models use no tools.
    from llm_local.text.tool_formats.registry import find_format

    return find_format(template).name


def _thinking(template: str, words: set[str], tokens: frozenset[str]) -> str:
    if words & {"enable_thinking", "reasoning_effort"}:
        return "switchable"
    if words & {"thinking", "reasoning"}:
        # Late: it needs the template language, which takes a while to import, to tell a variable from a word.
        from llm_local.text.thinking import SWITCHES, template_variables

        if template_variables(template) & set(SWITCHES):
            return "switchable"
    # Late: a model whose template says it needs no more.
    from llm_local.text.channels import find_tags

    return "always or by itself" if find_tags(template, tokens) is not None else ""


def _license(folder: Path) -> str:
    """What the head of the README says, where it came along."""
    path = folder / "README.md"
    try:
        if path.stat().st_size > _MAX_README_BYTES:
            return ""
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    head = _FRONT_MATTER.match(text)
    named = _LICENSE.search(head[1]) if head else None
    return named[1].strip() if named else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
