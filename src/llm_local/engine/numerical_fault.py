"""Why a model's logits are not numbers: looked up when it happens, so that it costs nothing when it does not."""

from __future__ import annotations

import functools
import logging
from typing import Any

from llm_local.errors import LocalLLMError, NumericalError
from llm_local.kernels.linear import is_quantized
from llm_local.loaders.finite_weights import damaged_weight, find_bad_weight, weight_files

__all__ = ["NumericalFault"]

logger = logging.getLogger(__name__)


class NumericalFault:
    """Explains such failures of one model. The first question reads all its weights, later ones none."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._bad_weight = functools.cache(lambda: find_bad_weight(model))

    def explain(self, error: NumericalError) -> LocalLLMError:
        """The error to tell instead: the damaged weight where there is one, else that the computation overflowed."""
        logger.info("logits are not finite; looking for the reason in the weights")
        try:
            name = self._bad_weight()
        except Exception:  # a question about a failure must not become another one
            logger.warning("the weights cannot be looked at", exc_info=True)
            return error
        if name is not None:
            found: LocalLLMError = damaged_weight(name, weight_files(self._model))
        else:
            found = NumericalError(
                f"The model's logits are not finite numbers, and all its weights are: computing in {self._dtype} "
                "went out of range.",
                self._hint(),
            )
        found.__cause__ = error
        return found

    @property
    def _dtype(self) -> str:
        return str(self._model.dtype).removeprefix("torch.")

    def _hint(self) -> str:
        if is_quantized(self._model):
            return "Try --quant none."
        if self._dtype != "float32":
            return "Try --dtype float32."
        return "Its weights may be damaged in a way that leaves them finite: delete its files and fetch it again."
