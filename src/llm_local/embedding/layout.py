"""How a repository wants its embeddings made: the JSON files of the Sentence Transformers library, read as data.

    modules.json                        the modules in their order: Transformer, Pooling, Dense, Normalize
    1_Pooling/config.json               which tokens become the vector
    2_Dense/config.json                 a projection of the vector, and model.safetensors with its weights
    sentence_bert_config.json           the longest text, in tokens
    config_sentence_transformers.json   prompts to put in front of texts

Whatever these files ask for and we cannot do is refused by name: a vector without it would be another vector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from llm_local.errors import ModelCorrupt, UnsafeWeights, UnsupportedTask
from llm_local.loaders.configuration import read_json
from llm_local.store.names import safe_join, shown

__all__ = [
    "ACTIVATIONS",
    "POOLING_MODES",
    "Dense",
    "Layout",
    "Normalize",
    "Pooling",
    "PoolingMode",
    "Step",
    "read_layout",
]

PoolingMode = Literal["mean", "cls", "last", "max", "mean_sqrt_len", "weighted_mean"]
POOLING_MODES: Final[tuple[PoolingMode, ...]] = get_args(PoolingMode)

ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")
"""The activation functions of a Dense module that we have, by their names in torch.nn."""

_MODULES: Final = "modules.json"
_PROMPTS: Final = "config_sentence_transformers.json"
_POOLING: Final = "1_Pooling"
_MAX_BYTES: Final = 1 << 20
# The older spelling has a switch for each mode; several that are on are put side by side in this order.
_SWITCHES: Final[Mapping[str, PoolingMode]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
_MODES: Final[Mapping[str, PoolingMode]] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_FAMILIES: Final = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Keys of the Transformer module that do not change what it computes for a text that fits.
_HARMLESS: Final = {
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "unpad_inputs",
    "query_length",
    "document_length",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """Which hidden states become the vector; several modes are put side by side.

    `include_prompt` is False where the tokens of a prompt are read and then left out.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer over the vector, with its weights in `folder`. `residual` adds what came in to what goes out."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Normalize:
    """The vector is scaled to length 1."""


Step = Dense | Normalize


@dataclass(frozen=True, slots=True)
class Layout:
    """What a repository says. `pooling` is None where it says nothing, and then there are no steps.

    - `folder`: where the configuration, the tokenizer and the weights of the transformer lie.
    - `has_modules`: the repository says which steps there are; else nobody knows whether vectors are normalized.
    - `max_tokens`: the longest text its authors want, with special tokens.
    - `prompts`: texts to put in front of a text, by name.
    """

    folder: Path
    pooling: Pooling | None = None
    steps: tuple[Step, ...] = ()
    has_modules: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_layout(folder: Path) -> Layout:
    """What the repository in `folder` says about embeddings; without such files, a layout that says nothing.

    Raises:
        ModelCorrupt: a file is damaged, or one that is named is missing.
        UnsupportedTask: it asks for something that is not supported, which is named.
        UnsafeWeights: a module runs only with code that comes with the model.
    """
    prompts, default = _read_prompts(folder)
    if not (folder / _MODULES).exists():
        pooling_file = folder / _POOLING / "config.json"
        said = _read_pooling(pooling_file) if pooling_file.exists() else None
        max_tokens, lower_case = _read_transformer(folder)
        return Layout(folder, said, (), False, max_tokens, lower_case, prompts, default)
    (first, path), *rest = _read_modules(folder)
    if first != "Transformer":
        raise _unsupported(f"begins with the module {first}")
    transformer = safe_join(folder, path) if path else folder
    max_tokens, lower_case = _read_transformer(transformer)
    pooling: Pooling | None = None
    steps: list[Step] = []
    for name, path in rest:
        place = safe_join(folder, path) if path else folder
        if name == "Pooling" and pooling is None:
            pooling = _read_pooling(place / "config.json")
        elif name == "Dense" and pooling is not None:
            steps.append(_read_dense(place))
        elif name == "Normalize" and pooling is not None:
            steps.append(_read_normalize(place))
        elif name != "Dropout":  # which does nothing outside of training
            raise _unsupported(f"has the module {name} in place {1 + len(steps)} after its transformer")
    if pooling is None:
        raise _unsupported("has no pooling: its texts become many vectors, or none")
    return Layout(transformer, pooling, tuple(steps), True, max_tokens, lower_case, prompts, default)


def _read_modules(folder: Path) -> list[tuple[str, str]]:
    """Class name and folder of each module, in order."""
    path = folder / _MODULES
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(_MODULES, f"it cannot be read ({error})") from error
    if not isinstance(found, list) or not found:
        raise _corrupt(_MODULES, "it is not a list of modules")
    modules = []
    for entry in found:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise _corrupt(_MODULES, "a module in it has no type")
        path_text = entry.get("path", "")
        if not isinstance(path_text, str):
            raise _corrupt(_MODULES, "the path of a module in it is no text")
        package, _, name = entry["type"].rpartition(".")
        if not package.startswith("sentence_transformers"):
            raise UnsafeWeights(
                f"The module {shown(entry['type'])} runs only with code that comes with the model, which is off.",
                "Choose another model: code that comes with one is never run.",
                file=_MODULES,
            )
        modules.append((name, path_text))
    return modules


def _read_module(path: Path) -> dict[str, Any]:
    """The configuration of a module; which of several config.json is missing is said here."""
    if not path.exists():
        file = f"{path.parent.name}/{path.name}"
        raise ModelCorrupt(f"{file} is missing.", "Fetch the model again.", file=file)
    return read_json(path)


def _read_pooling(path: Path) -> Pooling:
    found = _read_module(path)
    file = f"{path.parent.name}/{path.name}"
    named = found.get("pooling_mode")
    if named is None:
        modes = tuple(mode for key, mode in _SWITCHES.items() if found.get(key) is True)
        if not any(key in found for key in _SWITCHES):
            raise _corrupt(file, "it does not say the pooling mode")
    else:
        words = named if isinstance(named, list) else [named]
        unknown = [word for word in words if not isinstance(word, str) or word.lower() not in _MODES]
        if unknown:
            raise _unsupported(f"asks for the pooling mode {shown(str(unknown[0]))}")
        modes = tuple(_MODES[word.lower()] for word in words)
    if not modes:
        raise _corrupt(file, "it switches every pooling mode off")
    return Pooling(modes, include_prompt=_switch(found, "include_prompt", True, file))


def _read_dense(folder: Path) -> Dense:
    found = _read_module(folder / "config.json")
    file = f"{folder.name}/config.json"
    for key in ("in_features", "out_features"):
        if type(found.get(key)) is not int or found[key] < 1:
            raise _corrupt(file, f"{key} is no number of features")
    _refuse_other_names(found, file)
    # The library's own default where the file says nothing.
    activation = found.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = activation.rpartition(".")[2] if isinstance(activation, str) else activation
    if name is None:
        name = "Identity"
    if name not in ACTIVATIONS:
        raise _unsupported(f"has a Dense module with the activation function {shown(str(activation))}")
    return Dense(
        folder,
        found["in_features"],
        found["out_features"],
        bias=_switch(found, "bias", True, file),
        activation=str(name),
        residual=_switch(found, "use_residual", False, file),
    )


def _read_normalize(folder: Path) -> Normalize:
    path = folder / "config.json"
    if path.exists() and folder.name.endswith("Normalize"):  # older repositories have no such file
        _refuse_other_names(read_json(path), f"{folder.name}/config.json")
    return Normalize()


def _refuse_other_names(found: Mapping[str, Any], file: str) -> None:
    for key in ("module_input_name", "module_output_name"):
        if found.get(key) not in (None, "sentence_embedding"):
            raise _unsupported(f"has {key} {shown(str(found[key]))} in {file}")


def _read_transformer(folder: Path) -> tuple[int | None, bool]:
    """The longest text in tokens, and whether texts become lower case."""
    names = [f"sentence_{family}_config.json" for family in _FAMILIES]
    name = next((name for name in names if (folder / name).exists()), None)
    if name is None:
        return None, False
    found = read_json(folder / name)
    if found.get("transformer_task") not in (None, "feature-extraction"):
        raise _unsupported(f"is made for {shown(str(found['transformer_task']))}")
    modalities = found.get("modality_config")
    if isinstance(modalities, dict):
        if "message" in modalities:
            raise _unsupported("puts its texts into a chat template")
        text = modalities.get("text")
        if not isinstance(text, dict) or text.get("method") not in (None, "forward"):
            raise _unsupported("does not take plain texts")
        if text.get("method_output_name") not in (None, "last_hidden_state"):
            raise _unsupported(f"pools {shown(str(text['method_output_name']))}")
    other = sorted(key for key, value in found.items() if key not in _HARMLESS and value)
    if other:
        raise _unsupported(f"has {shown(other[0])} in {name}")
    longest = found.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise _corrupt(name, "max_seq_length is no number of tokens")
    return longest, _switch(found, "do_lower_case", False, name)


def _read_prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    path = folder / _PROMPTS
    if not path.exists():
        return {}, None
    found = read_json(path)
    kind = found.get("model_type")
    if kind not in (None, "SentenceTransformer"):
        raise _unsupported(f"is made as a {shown(str(kind))}, not for one vector a text")
    prompts = found.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(one, str | None) for one in prompts.values()):
        raise _corrupt(_PROMPTS, "prompts are no texts by name")
    default = found.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise _corrupt(_PROMPTS, f"the default prompt {shown(str(default))} is none of its prompts")
    return {name: text or "" for name, text in prompts.items()}, default


def _switch(found: Mapping[str, Any], key: str, default: bool, file: str) -> bool:
    value = found.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _corrupt(file, f"{key} is neither true nor false")
    return value


def _unsupported(what: str) -> UnsupportedTask:
    return UnsupportedTask(
        f"The repository {what}, which is not supported for embeddings.",
        "Choose an embedding model of modules Transformer, Pooling, Dense and Normalize.",
    )


def _corrupt(file: str, reason: str) -> ModelCorrupt:
    return ModelCorrupt(f"{file} is damaged: {reason}.", "Fetch the model again.", file=file)
