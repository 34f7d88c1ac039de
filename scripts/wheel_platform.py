"""Hatchling's hook: a wheel that carries the compiled library is for this platform only, and its name must say so."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelPlatform(BuildHookInterface):  # type: ignore[type-arg]
    """Found by hatchling as the one hook of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Set the wheel's tag; a wheel of sources alone keeps the one for every platform."""
        prebuilt = Path(self.root, "src", "llm_local", "kernels", "_prebuilt")
        if version == "standard" and any(prebuilt.glob("libllm_local.*")):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
