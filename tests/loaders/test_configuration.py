"""What the small files of a model say, and what they may not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_local.errors import InvalidRequest, ModelCorrupt, ModelNotFound, UnsupportedTask
from llm_local.loaders.configuration import (
    context_length,
    end_token_ids,
    generation_defaults,
    read_config,
    read_json,
)


def write(folder: Path, name: str = "config.json", **values: object) -> Path:
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\ufffe", "[" * 100_000, '{"a": 1,}'])
def test_damaged_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-16" if text == "\ufffe" else "utf-8")
    with pytest.raises(ModelCorrupt, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert caught.value.file == "config.json"


def test_a_folder_without_config_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        read_config(tmp_path)


def test_a_dangling_config_is_damage_not_absence(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelCorrupt, match="cannot be read"):
        read_config(tmp_path)


def test_a_config_without_a_type_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="model_type"):
        read_config(write(tmp_path, hidden_size=3))


def test_quantized_weights_are_refused_by_their_method(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTask, match="gptq"):
        read_config(write(tmp_path, model_type="llama", quantization_config={"quant_method": "gptq"}))


ORDERS = {
    "auto_map": {"AutoModelForCausalLM": "evil--repo.Model"},
    "_attn_implementation": "evil/kernel",
    "_attn_implementation_internal": "evil/kernel",
    "attn_implementation": "evil/kernel",
    "_experts_implementation": "evil/kernel",
    "experts_implementation": "evil/kernel",
    "trust_remote_code": True,
    "custom_generate": "evil/repo",
    "custom_pipelines": {"x": {"impl": "evil.Pipe"}},
    "use_kernels": True,
    "kernel_config": {"RMSNorm": "evil/kernel"},
    "transformers_weights": "pytorch_model.bin",
    "device_map": "auto",
    "_commit_hash": "x",
}


def test_no_key_of_a_data_file_can_choose_code(tmp_path: Path) -> None:
    nested = {"text_config": {**ORDERS, "hidden_size": 3, "list": [{**ORDERS, "kept": 1}]}}
    config = read_config(write(tmp_path, model_type="llama", **ORDERS, **nested, _name_or_path="org/x"))
    assert config.values == {
        "model_type": "llama",
        "text_config": {"hidden_size": 3, "list": [{"kept": 1}]},
        "_name_or_path": "org/x",
    }
    assert config.has_own_code


def test_generation_defaults_are_what_is_known_and_in_bounds(tmp_path: Path) -> None:
    assert generation_defaults(tmp_path) == {}
    write(
        tmp_path,
        "generation_config.json",
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.05,
        typical_p=-1,
        min_p="0.1",
        max_new_tokens=5,
        eos_token_id=3,
        trust_remote_code=True,
    )
    assert generation_defaults(tmp_path) == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repetition_penalty": 1.05,
    }
    assert generation_defaults(write(tmp_path, "generation_config.json", do_sample=False)) == {
        "do_sample": False
    }
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelCorrupt, match=r"generation_config\.json"):
        generation_defaults(tmp_path)


def test_every_file_may_name_an_end_and_none_beyond_the_vocabulary_counts(tmp_path: Path) -> None:
    write(tmp_path, "generation_config.json", eos_token_id=[3, 4, 999, -1, "5", True, None])
    config = {"eos_token_id": 6, "text_config": {"eos_token_id": [7]}}
    assert end_token_ids(tmp_path, config, SimpleNamespace(eos_token_id=8), 100) == {3, 4, 6, 7, 8}
    assert end_token_ids(tmp_path / "none", {}, SimpleNamespace(eos_token_id=None), 100) == frozenset()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"max_seq_len": 512}, 512),
        ({"text_config": {"max_position_embeddings": 64}}, 64),
        ({"max_position_embeddings": 131072, "rope_scaling": {"factor": 4.0}}, 131072),
        ({"max_position_embeddings": True, "n_positions": 9}, 9),
    ],
)
def test_the_window_is_what_the_model_declares(config: dict[str, object], expected: int) -> None:
    assert context_length(config, None) == expected
    assert context_length(config, expected) == expected
    assert context_length(config, 3) == 3
    with pytest.raises(InvalidRequest, match=f"{expected + 1} .* {expected}") as caught:
        context_length(config, expected + 1)
    assert caught.value.param == "context_length"


def test_read_json_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="tokenizer.json cannot be read"):
        read_json(tmp_path / "tokenizer.json")
