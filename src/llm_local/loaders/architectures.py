"""Which class a model is, from transformers' own tables, without importing any other."""

from __future__ import annotations

import difflib
import importlib
from typing import Any, Final

from transformers.models.auto import configuration_auto, modeling_auto

from llm_local.errors import UnsafeWeights, UnsupportedTask
from llm_local.loaders.configuration import ModelConfig

__all__ = ["choose_class", "config_class"]

_PURPOSES: Final = {
    "ForMaskedLM": "filling in masked words",
    "ForSequenceClassification": "classifying texts",
    "ForTokenClassification": "labeling words",
    "ForQuestionAnswering": "finding answers in a text",
    "ForMultipleChoice": "choosing among answers",
    "ForConditionalGeneration": "turning one input into another (translation, summaries, speech)",
    "ForCTC": "recognizing speech",
    "ForImageClassification": "classifying images",
    "Model": "embeddings",
}


def choose_class(config: ModelConfig) -> Any:
    """The transformers class that generates text with this model.

    Raises:
        UnsafeWeights: only the model's own code can run it.
        UnsupportedTask: its type is unknown, or it is made for something else.
    """
    named = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    fitting = () if named is None else (named,) if isinstance(named, str) else tuple(named)
    architecture = config.architecture or next(iter(fitting), "")
    if architecture in fitting and not config.values.get("is_encoder_decoder"):
        return getattr(_module(config.model_type), architecture)
    if config.has_own_code and not _is_known(config.model_type, architecture):
        raise UnsafeWeights(
            f"{architecture or config.model_type} runs only with code that comes with the model, which is off.",
            "Choose another model: code that comes with one is never run.",
            file="config.json",
        )
    if config.model_type not in configuration_auto.CONFIG_MAPPING_NAMES:
        near = difflib.get_close_matches(
            config.model_type, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, n=1
        )
        raise UnsupportedTask(
            f"Models of type {config.model_type!r} are unknown to the installed transformers.",
            f"Did config.json mean {near[0]!r}?" if near else "A newer transformers may know it.",
        )
    raise UnsupportedTask(
        f"{architecture or config.model_type} is made for {_purpose(architecture)}, not for generating text.",
        "Choose a chat or text generation model.",
    )


def config_class(model_type: str) -> Any:
    """The transformers class that holds the configuration of this type of model."""
    return getattr(_module(model_type), configuration_auto.CONFIG_MAPPING_NAMES[model_type])


def _module(model_type: str) -> Any:
    """The package of one type of model; its parts are imported when they are used."""
    return importlib.import_module(
        f"transformers.models.{configuration_auto.model_type_to_module_name(model_type)}"
    )


def _is_known(model_type: str, architecture: str) -> bool:
    """True when transformers itself has the class, so that nothing of the model's own is needed to judge it."""
    return model_type in configuration_auto.CONFIG_MAPPING_NAMES and hasattr(
        _module(model_type), architecture
    )


def _purpose(architecture: str) -> str:
    return next((what for end, what in _PURPOSES.items() if architecture.endswith(end)), "something else")
