"""Why a model's logits are not numbers: looked up when it happens, so that it costs nothing when it does not."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from torch import nn

from llm_local.errors import LocalLLMError, NumericalError
from llm_local.loaders.finite_weights import damaged_weight, find_bad_stored, find_bad_weight, weight_files
from llm_local.specs import ModelInfo

__all__ = ["NumericalFault"]

logger = logging.getLogger(__name__)


class NumericalFault:
    """Explains such failures of one model. The first question reads all its weights, later ones none.

    `model` is transformers', or whatever else an engine runs: then only its files are read.
    """

    def __init__(self, model: Any, info: ModelInfo) -> None:
        self._model = model
        self._info = info
        self._find = functools.cache(self._look)

    def explain(self, error: NumericalError) -> LocalLLMError:
        """The error to tell instead: the damaged weight where there is one, else that the computation overflowed."""
        try:
            stored, loaded = self._find()
        except Exception:  # a question about a failure must not become another one
            logger.warning("the weights cannot be looked at", exc_info=True)
            return error
        found: LocalLLMError
        if stored is not None:
            found = damaged_weight(*stored)
        else:
            what = f"{loaded} is out of range" if loaded else "computing went out of range"
            found = NumericalError(
                f"The model's logits are not finite numbers. Its stored weights are: in {self._info.dtype} {what}.",
                self._hint(),
            )
        found.__cause__ = error
        return found

    def _look(self) -> tuple[tuple[str, str] | None, str | None]:
        """A bad tensor among the stored ones, and its file; and one among the loaded ones."""
        logger.info("logits are not finite; looking for the reason in the weights")
        files = weight_files(Path(self._info.path)) if self._info.path else ()
        stored = find_bad_stored(files)
        if stored is not None or not isinstance(self._model, nn.Module):
            return stored, None
        loaded = find_bad_weight(self._model)
        # without files there is nothing else that could be damaged
        return ((loaded, ""), None) if loaded and not files else (None, loaded)

    def _hint(self) -> str:
        if self._info.quantization != "none":
            return "Try --quant none."
        if self._info.dtype != "float32":
            return "Try --dtype float32."
        return "Its weights may be damaged in a way that leaves them finite: delete its files and fetch it again."
