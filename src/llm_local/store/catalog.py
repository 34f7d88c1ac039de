"""The models that ship as a list: short names, and what to know of each before anything is downloaded.

The list is data (`catalog.json`); nothing of it is needed to run any other model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["CatalogModel", "catalog_models", "full_name"]

_FILE: Final = Path(__file__).with_name("catalog.json")

# With 4 bits a weight and 8 for embeddings, and what torch and transformers take (docs/performance.md).
_BYTES_PER_PARAMETER: Final = 0.7
_PROGRAM_BYTES: Final = 500_000_000


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model of the list. `name` is what people may type, `id` what the hub calls it.

    - `parameters`: how many, tied ones once; `download_bytes` is rounded.
    - `chat_template`: without one it continues texts, and a chat with it uses the fallback template.
    - `tools`, `thinking`: whether its chat template knows them.
    """

    name: str
    id: str
    parameters: int
    download_bytes: int
    license: str
    gated: bool
    context_length: int
    chat_template: bool
    tools: bool
    thinking: bool

    @property
    def min_memory_bytes(self) -> int:
        """About what the process takes at 4 bits a weight and with a short context: an estimate."""
        return round(self.parameters * _BYTES_PER_PARAMETER) + _PROGRAM_BYTES

    @property
    def note(self) -> str:
        """What else to know, in words."""
        words = (
            ("gated: its license must be accepted on the hub first", self.gated),
            ("continues texts, was not trained to chat", not self.chat_template),
            ("thinking", self.thinking),
            ("tools", self.tools),
        )
        return "; ".join(word for word, said in words if said)


@cache
def catalog_models() -> tuple[CatalogModel, ...]:
    """All models of the list, as it orders them."""
    return tuple(CatalogModel(**one) for one in json.loads(_FILE.read_bytes())["models"])


def full_name(name: str) -> str:
    """The id on the hub that a short name of the list stands for; any other text is its own."""
    return next((one.id for one in catalog_models() if one.name == name), name)
