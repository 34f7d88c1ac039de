"""A model that is fetched because somebody wants to run it now: refused before the first byte, where loading would
refuse it after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_local.loaders.configuration import context_length
from llm_local.loaders.first_import import first_import
from llm_local.loaders.plugged import check_plugin
from llm_local.loaders.remote_headers import remote_config, weights_on_hub
from llm_local.plugins import LOADERS, load_plugins
from llm_local.specs import ModelSpec
from llm_local.store.selection import CONFIG

if TYPE_CHECKING:
    from llm_local.store.destinations import Destination
    from llm_local.store.download import RemoteFile
    from llm_local.store.remote import RemoteModel

__all__ = ["check_before_fetch"]


def check_before_fetch(
    spec: ModelSpec, remote: RemoteModel, files: Sequence[RemoteFile], goal: Destination
) -> None:
    """See by its configuration and the headers of its weights that a model will load here. Nothing is written.

    Raises:
        InsufficientMemory: it does not fit; both numbers are in the message.
        InvalidRequest: a longer context than the model has, or what this machine does not have.
        UnsupportedTask, ModelCorrupt: it cannot be loaded. AccessDenied, HubUnavailable: the hub refuses.
    """
    if load_plugins(
        LOADERS, check_plugin
    ):  # one of them may load what we cannot, and they look at folders only
        return
    named = {file.name: file for file in files}
    context_length(remote_config(remote.read_whole(named[CONFIG])).values, spec.context_length)
    weights = weights_on_hub(files, remote, goal)
    # Late: torch takes a second to import, and what has no use for it is known by now. Loading needs it next.
    with first_import("torch"):
        from llm_local.loaders.devices import place

    place(spec, weights)
