"""The formats there are, and which of them a model writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import PluginFailed
from llm_local.text.tool_formats import (
    cohere,
    gemma,
    generic,
    glm,
    granite,
    harmony,
    hermes,
    llama,
    mistral,
    phi,
    qwen_xml,
)
from llm_local.text.tool_formats.format import ToolFormat

if TYPE_CHECKING:
    from llm_local.plugins import Plugin

__all__ = ["FORMATS", "check_plugin", "find_format"]

# The first that fits: the more particular ones come before those that share a marker with them.
FORMATS: Final[tuple[ToolFormat, ...]] = (
    harmony.FORMAT,
    cohere.FORMAT,
    mistral.LISTS,
    mistral.NAMED,
    gemma.FUNCTION_GEMMA,
    gemma.GEMMA4,
    phi.FORMAT,
    granite.FORMAT,
    qwen_xml.FORMAT,
    glm.FORMAT,
    hermes.FORMAT,
    llama.FORMAT,
    generic.FORMAT,
)


def find_format(source: str) -> ToolFormat:
    """The format that a chat template's source belongs to: a built-in one, one of a plug-in, or the generic one.

    Raises:
        PluginFailed: a plug-in that was asked for cannot be used.
    """
    found = next(one for one in FORMATS if one.fits(source))
    if found is generic.FORMAT:
        # Late: whoever has one of the built-in formats needs no plug-ins, and `show` is to be quick.
        from llm_local.plugins import TOOL_FORMATS, load_plugins

        for plugin, one in load_plugins(TOOL_FORMATS, check_plugin):
            if _fits(plugin, one, source):
                return one
    return found


def check_plugin(plugin: Plugin, value: Any) -> ToolFormat:
    """What a plug-in offers as a format.

    Raises:
        ValueError: it is none, or has another name than the plug-in, or the name of a built-in one.
    """
    if not isinstance(value, ToolFormat):
        raise ValueError(f"it is no ToolFormat, but a {type(value).__name__}")
    if value.name != plugin.name:
        raise ValueError(f"the format calls itself {value.name!r}")
    if any(value.name == one.name for one in FORMATS):
        raise ValueError(f"the name {value.name!r} is that of a built-in format")
    return value


def _fits(plugin: Plugin, one: ToolFormat, source: str) -> bool:
    try:
        return bool(one.fits(source))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # foreign code may raise anything, SystemExit too
        raise PluginFailed(f"The {plugin} failed in `fits`: {type(error).__name__}: {error}.") from error
