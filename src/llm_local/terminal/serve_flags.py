"""The flags of the server, once for `llm-local serve`, for `api.sh` and for `python -m llm_local.api_server`."""

from __future__ import annotations

import argparse
from typing import Final

from llm_local.terminal.flags import add_setting_flags

__all__ = ["add_serve_flags"]

_SERVER: Final = ("api_host", "api_port", "api_keys", "ollama_port")
_MODEL: Final = ("model_id", "quantization", "torch_dtype", "device_map", "context_length", "offline")


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them. Their values stay text: `load_config` reads and checks them."""
    server = parser.add_argument_group("server")
    add_setting_flags(server, _SERVER)
    server.add_argument(
        "--insecure-no-auth",
        action="store_true",
        help="Serve an address that others can reach without any key: whoever reaches it may do everything.",
    )
    add_setting_flags(parser.add_argument_group("model"), _MODEL)
