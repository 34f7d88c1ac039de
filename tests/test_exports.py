"""What a module offers is what its `__all__` says, and nothing public is left out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from house_rules import Module, check_exports, read_modules

ROOT = Path(__file__).resolve().parent.parent


def test_every_module_says_what_it_offers() -> None:
    assert check_exports(read_modules(ROOT / "src" / "llm_local")) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(): ...", "no literal __all__"),
        ("__all__ = make()\ndef f(): ...", "no literal __all__"),
        ("__all__ = ['g']\ndef _f(): ...", "names g, which is not there"),
        ("__all__ = []\ndef f(): ...", "f is public but not in __all__"),
        ("__all__ = []\nclass C: ...", "C is public but not in __all__"),
        ("__all__ = ['f', 'f']\ndef f(): ...", "twice"),
    ],
)
def test_a_module_that_says_it_wrong_is_caught(source: str, message: str) -> None:
    found = check_exports([Module("text.stops", "src/llm_local/text/stops.py", source)])
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    "source",
    [
        "",
        '"""Only words."""\nfrom __future__ import annotations',
        "__all__ = ['X', 'f']\nX: int = 1\ndef f(): ...",
    ],
)
def test_a_module_that_says_it_right_passes(source: str) -> None:
    assert check_exports([Module("text.stops", "src/llm_local/text/stops.py", source)]) == []
