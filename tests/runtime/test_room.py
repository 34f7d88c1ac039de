"""Who has to go for one more model: arithmetic that never looks at a real machine."""

from __future__ import annotations

import pytest

from llm_local.runtime.room import Held, Room, RoomLimits
from llm_local.runtime.wanted import ModelKey

FREE = 100


def held(name, taken, *, growth=0, busy=False, used=0, device="cpu"):
    return Held(ModelKey(name), device, taken, growth, busy, used)


def room(*models, free=FREE, most=9, budget=None):
    return Room(RoomLimits(most, budget), models, lambda device: free)


def gone(found):
    return None if found is None else [one.key.ref for one in found]


def test_nobody_goes_where_there_is_room():
    assert gone(room().victims("cpu", FREE)) == []
    assert gone(room(held("a", 500)).victims("cpu", FREE)) == []


def test_the_least_recently_used_go_first_and_no_more_than_needed():
    models = (held("a", 50, used=3), held("b", 50, used=1), held("c", 50, used=2))
    assert gone(room(*models).victims("cpu", 101)) == ["b"]
    assert gone(room(*models).victims("cpu", 151)) == ["b", "c"]
    assert gone(room(*models, most=3).victims("cpu", 1)) == ["b"]


def test_what_a_model_may_still_take_for_keys_and_values_is_its_own():
    full = room(held("a", 50, growth=60))
    assert full.reserved_bytes("cpu") == 60
    assert gone(full.victims("cpu", 40)) == []
    assert gone(full.victims("cpu", 41)) == ["a"]
    assert gone(room(held("a", 50, growth=60, busy=True)).victims("cpu", 41)) is None


def test_models_in_use_are_waited_for_where_that_helps():
    busy = held("a", 50, busy=True)
    assert gone(room(busy).victims("cpu", 150)) is None
    assert gone(room(busy, most=1).victims("cpu", 1)) is None
    # nobody is in the way: the loader measures, and says so if it does not fit
    assert gone(room(held("b", 50)).victims("cpu", 1000)) == ["b"]
    assert gone(room(held("a", 50, busy=True, device="cuda")).victims("cpu", 1000)) == []


@pytest.mark.parametrize("budget, expected", [(200, 150), (60, 60), (None, 150)])
def test_the_most_that_a_model_could_have(budget, expected):
    models = (held("a", 50, growth=20, busy=True), held("b", 70, device="cuda"))
    assert room(*models, budget=budget).most_bytes("cpu") == expected


def test_a_budget_counts_models_on_all_devices():
    models = (held("a", 50, used=1), held("b", 50, device="cuda", used=2))
    assert gone(room(*models, budget=130).victims("cpu", 30)) == []
    assert gone(room(*models, budget=130).victims("cpu", 31)) == ["a"]
    assert gone(room(*models, budget=130).victims("cpu", 90)) == ["a", "b"]
    assert room(*models, budget=130).reserved_bytes("cpu") == FREE - 30
