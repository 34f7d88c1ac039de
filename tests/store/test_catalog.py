"""The list of models that ships: whole, without two of one name, and honest about sizes."""

from __future__ import annotations

import pytest

from llm_local.loaders.published_shapes import PUBLISHED_SHAPES
from llm_local.store.catalog import catalog_models, full_name
from llm_local.store.names import parse_name

# What the hub has of a weight: at least half a byte, at most four, and a copy of tied embeddings now and then.
MIN_BYTES, MAX_BYTES = 1.9, 4.5


def test_the_profiles_that_people_know_are_there() -> None:
    names = {one.name for one in catalog_models()}
    assert {"gpt2", "gpt2-medium", "distilgpt2", "llama3-1b", "llama3-3b"} <= names
    assert len(names) == len(catalog_models()) == len({one.id for one in catalog_models()})


@pytest.mark.parametrize("model", catalog_models(), ids=lambda one: one.name)
def test_a_model_of_the_list_can_be_asked_for_by_its_short_name(model) -> None:  # type: ignore[no-untyped-def]
    name = parse_name(model.name)
    assert (name.kind, name.ref) == ("hub", model.id)
    assert full_name(model.name) == full_name(model.id) == model.id
    assert MIN_BYTES < model.download_bytes / model.parameters < MAX_BYTES
    assert model.min_memory_bytes > model.parameters / 2
    assert model.license and model.context_length >= 1024
    assert model.chat_template or not (model.tools or model.thinking)


def test_the_list_and_the_shapes_of_the_benchmarks_agree() -> None:
    windows = {one.name: one.context_length for one in catalog_models()}
    assert windows["qwen2.5-0.5b"] == PUBLISHED_SHAPES["qwen2.5-0.5b"]["max_position_embeddings"]
    assert windows["llama3-1b"] == PUBLISHED_SHAPES["llama-3.2-1b"]["max_position_embeddings"]


def test_what_is_not_on_the_list_stays_as_it_is() -> None:
    assert full_name("org/model") == "org/model"
