"""The menu of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_local.repl import choosing
from llm_local.repl.choosing import model_choices
from llm_local.store.library import StoredModel, list_models


def test_what_is_here_is_offered_and_the_one_in_use_marked() -> None:
    starter = next(one for one in model_choices("starter") if one.value == "starter")
    assert starter.is_current and starter.cells[0] == "starter" and starter.cells[1].endswith("MB")
    assert sum(one.is_current for one in model_choices("starter")) == 1


def test_the_one_in_use_is_offered_though_it_is_not_here() -> None:
    choices = model_choices("org/elsewhere")
    assert [one.value for one in choices if one.is_current] == ["org/elsewhere"]
    assert choices[-1].value == "org/elsewhere"


def test_the_list_that_ships_is_offered_by_its_short_names() -> None:
    gpt2 = next(one for one in model_choices("gpt2") if one.value == "gpt2")
    assert gpt2.is_current and "to be fetched" in gpt2.cells[2] and gpt2.cells[1].startswith("about ")


def test_what_is_not_here_whole_or_is_gone_meanwhile_spoils_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = next(model for model in list_models() if model.name == "starter")
    half = StoredModel(name="half", kind="directory", folder=tmp_path, state="incomplete")
    gone = StoredModel(name="gone", kind="directory", folder=tmp_path / "gone")
    monkeypatch.setattr(choosing, "list_models", lambda: [whole, half, gone])
    assert [one.value for one in model_choices("starter")][:2] == ["starter", "gone"]
    assert "half" not in [one.value for one in model_choices("starter")]
