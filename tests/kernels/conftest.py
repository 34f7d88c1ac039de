"""The native library on every instruction-set variant that this CPU can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_local.kernels.library import Native, native

VARIANTS = ("amx", "avx512", "avx2", "portable")


@pytest.fixture(params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Native]:
    """The library, running one variant for the length of a test."""
    library = native()
    if library is None or request.param not in library.variants:
        pytest.skip(f"no {request.param} kernels here")
    before = library.variant
    library.use_variant(request.param)
    yield library
    library.use_variant(before)
