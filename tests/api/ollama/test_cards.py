"""Models as Ollama lists them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from api.fake_service import INFO, LOADED
from llm_local.api.ollama.cards import (
    by_name,
    capabilities_of,
    details_of,
    listed_model,
    running_model,
    shown_model,
)
from llm_local.loaders.card import ModelCard, Shape
from llm_local.service import KnownModel, Loaded, ShownModel

KNOWN = KnownModel(
    "org/name", "hub", "complete", 1234, 1_700_000_000.5, "LlamaForCausalLM", 4096,
    frozenset({"chat", "completion", "tools", "embedding"}), 8_030_000_000, "BF16", "a" * 40,
)  # fmt: skip
CARD = ModelCard(
    "safetensors", "LlamaForCausalLM", "llama", "none", 8_030_000_000, {"BF16": 1}, license="mit",
    shape=Shape(4096, 32, 32, 8, 4096, 128256), chat_template="{{ messages }}",
    generation_defaults={"temperature": 0.6, "repetition_penalty": 1.05, "do_sample": True},
)  # fmt: skip


def test_a_listed_model() -> None:
    found = listed_model(KNOWN)
    assert found["name"] == found["model"] == "org/name:latest"
    assert found["modified_at"] == "2023-11-14T22:13:20.500000000Z" and found["size"] == 1234
    assert re.fullmatch("[0-9a-f]{64}", found["digest"])
    assert found["digest"] != listed_model(dataclasses.replace(KNOWN, commit="b" * 40))["digest"]
    assert found["details"] == {
        "parent_model": "", "format": "safetensors", "family": "llama", "families": ["llama"],
        "parameter_size": "8.0B", "quantization_level": "BF16", "context_length": 4096,
    }  # fmt: skip
    assert found["capabilities"] == ["completion", "tools"]


def test_only_what_does_not_write_is_an_embedding_model() -> None:
    embeds = dataclasses.replace(KNOWN, capabilities=frozenset({"embedding"}))
    assert capabilities_of(embeds) == ["embedding"]
    thinks = dataclasses.replace(KNOWN, capabilities=frozenset({"completion", "thinking"}))
    assert capabilities_of(thinks) == ["completion", "thinking"]


def test_a_shown_model() -> None:
    found = shown_model(ShownModel(KNOWN, CARD))
    info = found["model_info"]
    assert info["general.architecture"] == "llama" and info["llama.context_length"] == 4096
    assert info["llama.attention.head_count_kv"] == 8 and info["general.parameter_count"] == 8_030_000_000
    assert found["parameters"].splitlines() == [
        "temperature                    0.6", "repeat_penalty                 1.05",
    ]  # fmt: skip
    assert found["modelfile"].startswith("FROM org/name\nPARAMETER temperature")
    assert found["license"] == "mit" and found["template"] == "{{ messages }}"
    assert found["details"]["embedding_length"] == 4096


def test_what_is_loaded_tells_the_window_that_holds() -> None:
    loaded = dataclasses.replace(LOADED, info=dataclasses.replace(INFO, context_length=512))
    known = dataclasses.replace(KNOWN, loaded=loaded)
    assert shown_model(ShownModel(known, CARD))["model_info"]["llama.context_length"] == 512
    assert details_of(known)["context_length"] == 512


def test_files_that_tell_nothing_leave_it_out() -> None:
    bare = KnownModel("x", "directory", "complete", 1, 0.0)
    found = shown_model(ShownModel(bare, None))
    assert found["model_info"] == {"general.architecture": "unknown", "general.basename": "x"}
    assert found["details"]["families"] is None and found["capabilities"] == [] and "license" not in found


@pytest.mark.parametrize(("device", "vram"), [("cpu", 0), ("cuda:0", 30), ("mps", 30)])
def test_a_running_model(device: str, vram: int) -> None:
    loaded = dataclasses.replace(
        LOADED,
        info=dataclasses.replace(INFO, device=device),
        weight_bytes=20,
        kv_bytes=10,
        expires_in_s=60.0,
    )
    found = running_model(loaded, KNOWN, 1_700_000_000 * 10**9)
    assert (found["size"], found["size_vram"]) == (30, vram)
    assert found["expires_at"] == "2023-11-14T22:14:20.000000000Z"
    stays = dataclasses.replace(loaded, expires_in_s=None)
    assert running_model(stays, None, 0)["expires_at"].startswith("2318-")


def test_each_name_is_told_once_and_the_longest_lived_first() -> None:
    def loaded(name: str, ends: float | None) -> Loaded:
        return dataclasses.replace(LOADED, name=name, expires_in_s=ends, weight_bytes=20, kv_bytes=1)

    found = by_name(
        [loaded("a", 9.0), loaded("b", None), loaded("c", 60.0), loaded("a", 30.0), loaded("b", 5.0)]
    )
    assert [(one.name, one.expires_in_s, one.weight_bytes, one.kv_bytes) for one in found] == [
        ("b", None, 40, 2), ("c", 60.0, 20, 1), ("a", 30.0, 40, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("Qwen3ForCausalLM", "qwen3"),
        ("GPT2LMHeadModel", "gpt2"),
        ("BertModel", "bert"),
        ("llama", "llama"),
        ("", ""),
    ],
)
def test_families(architecture: str, family: str) -> None:
    assert details_of(dataclasses.replace(KNOWN, architecture=architecture))["family"] == family
