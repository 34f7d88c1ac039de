"""Making the settings hold for the whole process, before it imports the libraries that they are about."""

from __future__ import annotations

import os

from llm_local.config import Config
from llm_local.logs import configure_logging
from llm_local.plugins import allow_plugins
from llm_local.privacy import apply_privacy_defaults

__all__ = ["prepare_process"]


def prepare_process(config: Config) -> None:
    """Switch off what libraries would send, say where the hub is, set up the log, and allow the plug-ins of `config`.

    Raises:
        ConfigError: an address or a token cannot be used.
    """
    apply_privacy_defaults(os.environ)
    os.environ.update(config.hub_environment())
    configure_logging(config.log_level, secrets=config.secrets)
    allow_plugins(config.plugins)
