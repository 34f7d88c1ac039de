"""Reading a model's small JSON files, and deciding from them what it is and whether we run it. Data, never orders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_local.errors import InvalidRequest, ModelCorrupt, ModelNotFound, UnsupportedTask
from llm_local.options import BOUNDS
from llm_local.store.names import shown
from llm_local.store.selection import CONFIG

__all__ = [
    "ModelConfig",
    "check_layers",
    "context_length",
    "end_token_ids",
    "generation_defaults",
    "parse_config",
    "read_config",
    "read_json",
]

_MAX_BYTES: Final = 256 << 20
# Keys by which a data file could choose code: private switches, kernels and attention from elsewhere, remote modules.
_ORDERS: Final = re.compile(
    r"_(?!name_or_path$).*|.*attn_implementation.*|.*experts_implementation.*|trust_remote_code|custom_\w+"
    r"|auto_map|use_kernels|kernel_config|transformers_weights|device_map|output_\w*(?:attentions|hidden_states)"
)
_SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
_WINDOWS: Final = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_NO_WINDOW: Final = (
    32768  # for models whose architecture has no limit (recurrent, alibi without a stated one)
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Raises:
        ModelCorrupt: it is missing, no JSON, or no object.
    """
    hint = "Delete the file and fetch the model again."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelCorrupt(f"{path.name} is larger than {_MAX_BYTES >> 20} MB.", hint, file=path.name)
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelCorrupt(
            f"{path.name} cannot be read: {error.strerror or error}.", hint, file=path.name
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(
            f"{path.name} is damaged: it is not JSON ({error}).", hint, file=path.name
        ) from error
    if not isinstance(found, dict):
        raise ModelCorrupt(f"{path.name} is damaged: it is not a JSON object.", hint, file=path.name)
    return found


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What `config.json` says, without the keys by which it could choose code, and whether it had remote modules."""

    values: Mapping[str, Any]
    has_own_code: bool

    @property
    def model_type(self) -> str:
        """The family, as transformers calls it."""
        return str(self.values["model_type"])

    @property
    def architecture(self) -> str:
        """The class the weights were saved from, or "" where that is not said."""
        named = self.values.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""


def read_config(folder: Path) -> ModelConfig:
    """Read `config.json` and scrub it, at any depth.

    Raises:
        ModelNotFound: the folder has none, so it holds no model.
        ModelCorrupt: it is damaged.
        UnsupportedTask: the weights are quantized.
    """
    path = folder / CONFIG
    if not (path.exists() or path.is_symlink()):
        raise ModelNotFound(
            f"The directory {shown(str(folder))} holds no model: it has no {CONFIG}.",
            "Name the folder that the model's files lie in.",
        )
    return parse_config(read_json(path))


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """As `read_config`, of what a `config.json` holds.

    Raises:
        ModelCorrupt: it is damaged.
        UnsupportedTask: the weights are quantized.
    """
    config: dict[str, Any] = _scrubbed(raw)
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise UnsupportedTask(
            f"The weights are quantized ({method or 'unknown method'}), which is not supported yet.",
            "Choose the model in its full precision.",
        )
    if not isinstance(config.get("model_type"), str):
        raise ModelCorrupt(f"{CONFIG} is damaged: it does not say the model_type.", file=CONFIG)
    return ModelConfig(config, has_own_code="auto_map" in raw)


def check_layers(config: ModelConfig, num_tensors: int) -> None:
    """Refuse a configuration with more layers than there are tensors: building it would take for ever.

    Raises:
        ModelCorrupt: naming `config.json`.
    """
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        layers = config.values.get(key)
        if isinstance(layers, int) and layers > num_tensors:
            raise ModelCorrupt(
                f"config.json is damaged: it has {key} {layers}, but the weights hold only {num_tensors} tensors.",
                "Fetch the model again.",
                file="config.json",
            )


def generation_defaults(folder: Path) -> dict[str, Any]:
    """How the model's authors want it sampled: the part of `generation_config.json` that we know and that is in bounds.

    Raises:
        ModelCorrupt: the file is damaged.
    """
    path = folder / "generation_config.json"
    found = read_json(path) if path.exists() else {}
    defaults: dict[str, Any] = {
        name: found[name] for name in _SAMPLING if name in found and BOUNDS[name].allows(found[name])
    }
    if isinstance(found.get("do_sample"), bool):
        defaults["do_sample"] = found["do_sample"]
    return defaults


def end_token_ids(folder: Path, config: Mapping[str, Any], tokenizer: Any, vocab_size: int) -> frozenset[int]:
    """Every token that ends a reply, by any of the model's files, as far as the model can produce it."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    text_config = config.get("text_config")
    found = (
        _ids(generation.get("eos_token_id"))
        | _ids(config.get("eos_token_id"))
        | _ids(text_config.get("eos_token_id") if isinstance(text_config, dict) else None)
        | _ids(tokenizer.eos_token_id)
    )
    return frozenset(one for one in found if 0 <= one < vocab_size)


def context_length(config: Mapping[str, Any], asked: int | None) -> int:
    """The window for prompt and reply, in tokens: what the model declares, or less where `asked`.

    Raises:
        InvalidRequest: more was asked for than the model declares.
    """
    text_config = config.get("text_config")
    places = [config, text_config if isinstance(text_config, dict) else {}]
    declared = [place[name] for place in places for name in _WINDOWS if _is_length(place.get(name))]
    window = int(declared[0]) if declared else _NO_WINDOW
    if asked is None:
        return window
    if asked > window:
        raise InvalidRequest(
            f"A context length of {asked} tokens is asked for, but the model has {window}.",
            param="context_length",
        )
    return asked


def _ids(value: Any) -> set[int]:
    """The token ids in a value that may be one id, a list of them, or anything else."""
    several = value if isinstance(value, list | tuple) else [value]
    return {one for one in several if isinstance(one, int) and not isinstance(one, bool)}


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:  # how transformers writes the numbers that JSON has no word for
            return {"Infinity": math.inf, "-Infinity": -math.inf}.get(str(value["__float__"]), math.nan)
        return {key: _scrubbed(inner) for key, inner in value.items() if not _ORDERS.fullmatch(key)}
    if isinstance(value, list):
        return [_scrubbed(inner) for inner in value]
    return value
