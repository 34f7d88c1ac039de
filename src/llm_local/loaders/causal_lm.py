"""Tokenizer and weights into memory, through transformers' own classes.

transformers builds the model on the meta device and gives each parameter the tensor of the memory-mapped file: where
nothing has to be converted, there is no copy and no random initialization. It also knows every renamed weight.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llm_local.errors import EngineError, InsufficientMemory, ModelCorrupt, UnsafeWeights
from llm_local.loaders.architectures import choose_class, config_class
from llm_local.loaders.configuration import ModelConfig, read_json
from llm_local.loaders.devices import Placement
from llm_local.loaders.safetensors import Weights
from llm_local.store.selection import CONFIG, has_tokenizer

__all__ = ["Checkpoint", "load_tokenizer", "load_weights", "make_config"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files, judged. `made` is transformers' configuration, None where only the model's code reads it.

    `cls` is the class to make of it and `arguments` what its constructor takes besides; without, one that generates.
    """

    folder: Path
    config: ModelConfig
    made: Any
    weights: Weights
    cls: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def make_config(
    config: ModelConfig,
    folder: Path,
    *,
    trust_remote_code: bool,
    judge: Callable[[ModelConfig], Any] = choose_class,
) -> Any:
    """The transformers configuration; None when the model's own code has to read it. `judge` refuses wrong kinds.

    Raises:
        ModelCorrupt: the values make no sense to its class. UnsafeWeights, UnsupportedTask: see `choose_class`.
    """
    if trust_remote_code and config.has_own_code:
        return None
    judge(config)
    try:
        made = config_class(config.model_type).from_dict(dict(config.values))
    except Exception as error:  # each class checks its values in its own way
        raise _corrupt(CONFIG, error) from error
    made.name_or_path = str(folder)
    return made


def load_tokenizer(folder: Path, config: Any, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer, exactly as AutoTokenizer makes it.

    Raises:
        ModelCorrupt: its files are missing or damaged. UnsafeWeights: it runs only with its own code.
    """
    names = {path.name for path in folder.iterdir()}
    if not has_tokenizer(names):
        raise ModelCorrupt(
            "tokenizer.json is missing, and so is every other vocabulary.",
            "Fetch the model again, or copy the tokenizer's files beside the weights.",
            file="tokenizer.json",
        )
    for name in sorted(
        names & {"tokenizer.json", "tokenizer_config.json", "vocab.json", "special_tokens_map.json"}
    ):
        read_json(folder / name)  # its error names the file, which the library's does not
    try:
        with _silence():
            return AutoTokenizer.from_pretrained(
                folder, config=config, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UnsafeWeights(
                "This model's tokenizer runs only with code that comes with it, which is off.",
                "Choose another model: code that comes with one is never run.",
                file="tokenizer_config.json",
            ) from error
        raise _corrupt(
            "tokenizer.json" if "tokenizer.json" in names else "tokenizer_config.json", error
        ) from error


def load_weights(checkpoint: Checkpoint, placement: Placement, *, trust: bool) -> PreTrainedModel:
    """The model, ready for inference, on its device.

    Raises:
        ModelCorrupt: weights are missing or have other shapes than the configuration says.
        InsufficientMemory: the memory went while loading.
    """
    made = checkpoint.made
    cls = checkpoint.cls or (AutoModelForCausalLM if made is None else choose_class(checkpoint.config))
    options: dict[str, Any] = {"config": made} if made is not None else {"trust_remote_code": trust}
    options |= checkpoint.arguments
    if placement.spread:
        options["device_map"] = "auto"  # the one case that needs accelerate's hooks
    try:
        with _silence():
            model, report = cls.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=placement.dtype,
                output_loading_info=True,
                **options,
            )
            if not placement.spread:
                model = model.to(placement.device)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise InsufficientMemory(
            f"The memory ran out while the model was loaded on {placement.device}.",
            "Choose a smaller model, or close other programs.",
            need_bytes=placement.need_bytes,
            have_bytes=0,
        ) from error
    except Exception as error:  # the headers are sound, so weights and configuration do not fit
        raise _corrupt(CONFIG, error) from error
    _refuse_gaps(report)
    return model.eval().requires_grad_(False)


def _refuse_gaps(report: dict[str, Any]) -> None:
    """A parameter without a stored tensor would be random, and the model would talk nonsense without a word."""
    for key, what in (
        ("missing_keys", "is missing from the weights"),
        ("mismatched_keys", "has another shape"),
    ):
        found = sorted(str(name) for name in report.get(key) or ())
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ModelCorrupt(
                f"The weights do not fit {CONFIG}: {found[0]} {what}{more}.",
                "The files come from different models; fetch the model again.",
                file=CONFIG,
            )
    if report.get("error_msgs"):
        raise ModelCorrupt(f"The weights cannot be read: {report['error_msgs'][0]}", file=CONFIG)


def _corrupt(file: str, error: Exception) -> ModelCorrupt | EngineError:
    reason = " ".join((str(error) or type(error).__name__).split())[:300]
    if isinstance(error, ImportError):
        return EngineError(f"A library that this model needs is not installed: {reason}")
    return ModelCorrupt(f"{file} cannot be used: {reason.rstrip('.')}.", "Fetch the model again.", file=file)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers' bars, advice and warnings off the terminal; what matters becomes an error of ours."""
    logger = transformers_logging.get_logger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
