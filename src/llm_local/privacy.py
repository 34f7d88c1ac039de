"""What keeps libraries from talking to anybody on their own account."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Final

__all__ = ["PRIVACY_DEFAULTS", "apply_privacy_defaults"]

PRIVACY_DEFAULTS: Final[Mapping[str, str]] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # The hub gets a token only when a call says so, never because one lies on the disk.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # The SDK of MCP makes traces with the names of tools; where OpenTelemetry is installed, it could send them away.
    "OTEL_SDK_DISABLED": "true",
}


def apply_privacy_defaults(environ: MutableMapping[str, str]) -> None:
    """Set each of `PRIVACY_DEFAULTS` in `environ`; what the user set stays.

    A door calls this with `os.environ` before any library is imported: they read these on import.
    """
    for name, value in PRIVACY_DEFAULTS.items():
        environ.setdefault(name, value)
