"""The collector rests while a large library is imported, and only then."""

from __future__ import annotations

import gc
import importlib
import sys
import weakref

import pytest

from llm_local.loaders.first_import import first_import


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A module that nobody has imported yet; the collector is as it was afterwards."""
    (tmp_path / "some_large_library.py").write_text("THINGS = [[n] for n in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_large_library"
    for name in ("some_large_library", "library_with_an_error"):
        sys.modules.pop(name, None)
    gc.unfreeze()
    gc.enable()


def test_what_is_imported_first_is_out_of_the_collectors_sight(library):
    frozen_before = gc.get_freeze_count()
    with first_import(library):
        assert not gc.isenabled()
        things = importlib.import_module(library).THINGS
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen_before + 1000
    assert not any(one is things for one in gc.get_objects())


def test_a_second_time_nothing_is_done(library):
    importlib.import_module(library)
    frozen_before = gc.get_freeze_count()
    with first_import(library):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen_before


def test_garbage_of_before_is_not_kept(library):
    class Node:
        pass

    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    with first_import(library):
        assert gone() is None


def test_a_failed_import_leaves_the_collector_on(library):
    with pytest.raises(ModuleNotFoundError), first_import("llm_local.there_is_no_such_module"):
        importlib.import_module("llm_local.there_is_no_such_module")
    assert gc.isenabled()


def test_a_program_without_a_collector_stays_without(library):
    gc.disable()
    with first_import(library):
        pass
    assert not gc.isenabled()


def test_what_a_library_remembers_of_its_import_holds_nothing_of_who_asked(library, tmp_path):
    """An error kept by the library keeps its stack, and the stack all variables."""
    name = "library_with_an_error"
    (tmp_path / f"{name}.py").write_text(
        "try:\n    import there_is_no_such_module\nexcept ImportError as error:\n    MISSING = error\n"
    )

    class Model:
        pass

    def load():
        with first_import(name):
            found = importlib.import_module(name)
        model = Model()
        assert found.MISSING
        return weakref.ref(model)

    gone = load()
    gc.collect()
    assert gone() is None
