"""Which class a model is, from transformers' own tables, without importing any other."""

from __future__ import annotations

import difflib
import importlib
from typing import Any, Final

from transformers.models.auto import configuration_auto, modeling_auto

from llm_local.errors import UnsafeWeights, UnsupportedTask
from llm_local.loaders.configuration import ModelConfig

__all__ = ["choose_class", "choose_encoder", "config_class"]

_PURPOSES: Final = {
    "ForMaskedLM": "filling in masked words",
    "ForSequenceClassification": "classifying or ranking texts",
    "ForTokenClassification": "labeling words",
    "ForQuestionAnswering": "finding answers in a text",
    "ForMultipleChoice": "choosing among answers",
    "ForConditionalGeneration": "turning one input into another (translation, summaries, speech)",
    "ForCTC": "recognizing speech",
    "ForImageClassification": "classifying images",
    "EncoderModel": "embeddings",
    "Model": "embeddings",
}
# Heads over a transformer whose hidden states are worth pooling: the head is left out.
_POOLABLE: Final = (
    "Model",
    "EncoderModel",
    "ForMaskedLM",
    "ForPreTraining",
    "ForCausalLM",
    "LMHeadModel",
    "LMHead",
)


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
    _refuse_unknown(config, architecture)
    embeds = " `llm-local embed` makes embeddings with this one." if _is_encoder(config, architecture) else ""
    raise UnsupportedTask(
        f"{architecture or config.model_type} is made for {_purpose(config, architecture)}, not for generating text.",
        f"Choose a chat or text generation model.{embeds}",
    )


def choose_encoder(config: ModelConfig, *, declared: bool) -> tuple[Any, bool]:
    """The transformers class that gives the hidden states of a text, and whether it reads from left to right only.

    `declared`: the repository says itself how its texts become vectors, whatever head its weights were saved with.

    Raises:
        UnsafeWeights: only the model's own code can run it.
        UnsupportedTask: its type is unknown, or it is made for something else.
    """
    kind = config.model_type
    named = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(
        kind
    ) or modeling_auto.MODEL_MAPPING_NAMES.get(kind)
    name = named if isinstance(named, str) or not named else str(named[0])
    architecture = config.architecture or name or ""
    _refuse_unknown(config, architecture)
    if not name or not _reads_text(config) or not (declared or architecture.endswith(_POOLABLE)):
        raise UnsupportedTask(
            f"{architecture or kind} is made for {_purpose(config, architecture)}, not for embeddings.",
            "Choose an embedding model, or an encoder or decoder without such a head.",
        )
    if not _is_known(kind, architecture):
        raise UnsupportedTask(
            f"{architecture} is unknown to the installed transformers, which has {name} for models of type {kind!r}.",
            "A newer transformers may know it.",
        )
    return getattr(_module(kind), name), _is_causal(config)


def config_class(model_type: str) -> Any:
    """The transformers class that holds the configuration of this type of model."""
    return getattr(_module(model_type), configuration_auto.CONFIG_MAPPING_NAMES[model_type])


def _refuse_unknown(config: ModelConfig, architecture: str) -> None:
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


def _is_encoder(config: ModelConfig, architecture: str) -> bool:
    return _reads_text(config) and architecture.endswith(_POOLABLE)


def _reads_text(config: ModelConfig) -> bool:
    """Texts go in, and hidden states of these very texts come out."""
    kind = config.model_type
    if kind in modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        return True
    return not config.values.get("is_encoder_decoder") and (
        kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )


def _is_causal(config: ModelConfig) -> bool:
    kind, values = config.model_type, config.values
    if values.get("is_causal") is False or values.get("use_bidirectional_attention"):
        return False
    return bool(values.get("is_decoder")) or (
        kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


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


def _purpose(config: ModelConfig, architecture: str) -> str:
    if architecture.endswith(_POOLABLE) and not _reads_text(config):  # a base model of another kind
        kind = "ForConditionalGeneration" if config.values.get("is_encoder_decoder") else ""
        return _PURPOSES.get(kind, "something else")
    return next((what for end, what in _PURPOSES.items() if architecture.endswith(end)), "something else")
