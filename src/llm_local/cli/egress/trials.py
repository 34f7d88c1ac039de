"""What is run under watch and is no verb of its own: a whole load, and an attempt on purpose.

python -m llm_local.cli.egress.trials load MODEL
python -m llm_local.cli.egress.trials attempt
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from llm_local.config import load_config
from llm_local.errors import HubUnavailable
from llm_local.terminal.process import prepare_process

__all__ = ["NOBODY", "attempt", "load"]

NOBODY: Final = "192.0.2.1"
"""An address that is nobody's, reserved for examples."""


def load(model: str) -> None:
    """Load `model` through transformers, also where an earlier start left what makes it unnecessary.

    Raises:
        LocalLLMError: it cannot be found, read or held in memory.
    """
    config = load_config({"model_id": model})
    prepare_process(config)
    # Late: it imports torch, and libraries must not be imported before the lines above.
    from llm_local.model_loader import load_tokenizer_and_model, resolve_model

    resolved = resolve_model(config.model_spec(), explicit=True, offline=config.offline)
    load_tokenizer_and_model(resolved.spec, path=resolved.path)


def attempt() -> None:
    """Try to leave this machine, through the one door that may, and fail."""
    # Late: nothing else here needs the network's libraries.
    from llm_local.store.hub import probe

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    with suppress(HubUnavailable):
        probe(f"http://{NOBODY}")


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2])
    else:
        attempt()
