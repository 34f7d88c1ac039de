"""The defaults that keep libraries quiet on the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llm_local.privacy import PRIVACY_DEFAULTS, apply_privacy_defaults


def test_every_default_is_set_and_the_users_word_stays() -> None:
    environ = {"DO_NOT_TRACK": "0", "PATH": "/bin"}
    apply_privacy_defaults(environ)
    assert environ == {**PRIVACY_DEFAULTS, "DO_NOT_TRACK": "0", "PATH": "/bin"}


def test_the_hub_library_understands_them() -> None:
    program = (
        "import os; from llm_local.privacy import apply_privacy_defaults; apply_privacy_defaults(os.environ)\n"
        "from huggingface_hub import constants as c\n"
        "print(c.HF_HUB_DISABLE_TELEMETRY, c.HF_HUB_DISABLE_UPDATE_CHECK, c.HF_HUB_DISABLE_IMPLICIT_TOKEN)"
    )
    environ = {name: value for name, value in os.environ.items() if name not in PRIVACY_DEFAULTS}
    environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    shown = subprocess.check_output([sys.executable, "-c", program], env=environ, text=True, timeout=60)
    assert shown == "True True True\n"
