"""What repositories say about embeddings: all spellings are read, and nothing that is said is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_local.embedding.layout import Dense, Layout, Normalize, Pooling, read_layout
from llm_local.errors import LocalLLMError, ModelCorrupt, UnsafeWeights, UnsupportedTask
from tiny_embedders import declare, write_dense, write_json

OFF = {
    f"pooling_mode_{name}": False
    for name in (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
}


def test_a_repository_without_such_files_says_nothing(tmp_path: Path) -> None:
    assert read_layout(tmp_path) == Layout(tmp_path)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        (OFF | {"pooling_mode_mean_tokens": True}, ("mean",)),
        (OFF | {"pooling_mode_cls_token": True}, ("cls",)),
        (OFF | {"pooling_mode_max_tokens": True}, ("max",)),
        (OFF | {"pooling_mode_lasttoken": True}, ("last",)),
        (OFF | {"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        (OFF | {"pooling_mode_weightedmean_tokens": True}, ("weighted_mean",)),
        # two that are on: in the library's own order, whatever the file's
        (OFF | {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "lasttoken"}, ("last",)),
        ({"pooling_mode": "Mean"}, ("mean",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        # the newer spelling goes before switches that a file may still have
        (OFF | {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
    ],
)
def test_pooling_in_every_spelling(tmp_path: Path, config: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert read_layout(declare(tmp_path, config)).pooling == Pooling(modes)


def test_a_whole_repository(tmp_path: Path) -> None:
    declare(tmp_path, {"pooling_mode": "mean", "include_prompt": False}, "Dropout", "Dense", "Normalize")
    write_dense(
        tmp_path / "3_Dense", 32, 8, bias=False, activation_function="torch.nn.modules.linear.Identity"
    )
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": True})
    prompts = {"query": "query: ", "document": None}
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "cosine"},
    )
    assert read_layout(tmp_path) == Layout(
        tmp_path,
        Pooling(("mean",), include_prompt=False),
        (Dense(tmp_path / "3_Dense", 32, 8, False, "Identity"), Normalize()),
        has_modules=True,
        max_tokens=40,
        lower_case=True,
        prompts={"query": "query: ", "document": ""},
        default_prompt="query",
    )


def test_newer_module_types_and_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    types = {
        "0_Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "2_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    }
    write_json(tmp_path / "modules.json", [{"path": path, "type": name} for path, name in types.items()])
    write_json(tmp_path / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": "cls"})
    write_json(tmp_path / "2_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    write_json(
        tmp_path / "0_Transformer" / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    )
    found = read_layout(tmp_path)
    assert (found.folder, found.pooling, found.steps) == (
        tmp_path / "0_Transformer",
        Pooling(("cls",)),
        (Normalize(),),
    )


def test_pooling_without_a_list_of_modules_counts(tmp_path: Path) -> None:
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    found = read_layout(tmp_path)
    assert (found.pooling, found.has_modules) == (Pooling(("cls",)), False)


def module(name: str, path: str = "", package: str = "sentence_transformers.models") -> dict[str, str]:
    return {"type": f"{package}.{name}", "path": path}


FIRST = [module("Transformer"), module("Pooling", "1_Pooling")]

REFUSED: list[tuple[str, Any, type[LocalLLMError], str]] = [
    (
        "modules.json",
        [*FIRST, module("LayerNorm", "2_LayerNorm")],
        UnsupportedTask,
        "has the module LayerNorm",
    ),
    ("modules.json", [*FIRST, module("Pooling", "1_Pooling")], UnsupportedTask, "has the module Pooling"),
    ("modules.json", [module("StaticEmbedding")], UnsupportedTask, "begins with the module StaticEmbedding"),
    ("modules.json", [module("Transformer")], UnsupportedTask, "has no pooling"),
    (
        "modules.json",
        [module("Transformer"), module("Normalize")],
        UnsupportedTask,
        "has the module Normalize",
    ),
    (
        "modules.json",
        [*FIRST, module("Pool", package="custom_code")],
        UnsafeWeights,
        "'custom_code.Pool' runs only with code",
    ),
    ("modules.json", [module("Transformer"), module("Pooling", "../x")], ModelCorrupt, "not safe to use"),
    ("modules.json", [module("Transformer"), module("Pooling", "/etc")], ModelCorrupt, "not safe to use"),
    (
        "modules.json",
        [module("Transformer"), module("Pooling", "9_Pooling")],
        ModelCorrupt,
        "9_Pooling/config.json is missing",
    ),
    ("modules.json", [], ModelCorrupt, "not a list of modules"),
    ("modules.json", {"0": module("Transformer")}, ModelCorrupt, "not a list of modules"),
    ("modules.json", [{"path": ""}], ModelCorrupt, "has no type"),
    (
        "modules.json",
        [{"type": "sentence_transformers.models.Transformer", "path": 3}],
        ModelCorrupt,
        "is no text",
    ),
    ("1_Pooling/config.json", {"pooling_mode": "attention"}, UnsupportedTask, "the pooling mode 'attention'"),
    ("1_Pooling/config.json", {"pooling_mode": [3]}, UnsupportedTask, "the pooling mode '3'"),
    ("1_Pooling/config.json", {"pooling_mode": []}, ModelCorrupt, "switches every pooling mode off"),
    ("1_Pooling/config.json", OFF, ModelCorrupt, "switches every pooling mode off"),
    ("1_Pooling/config.json", {"dimension": 3}, ModelCorrupt, "does not say the pooling mode"),
    (
        "1_Pooling/config.json",
        {"pooling_mode": "cls", "include_prompt": "no"},
        ModelCorrupt,
        "include_prompt is",
    ),
    ("sentence_bert_config.json", {"query_expansion": {"length": 3}}, UnsupportedTask, "'query_expansion'"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, UnsupportedTask, "'fill-mask'"),
    (
        "sentence_bert_config.json",
        {"modality_config": {"text": {}, "message": {"method": "forward"}}},
        UnsupportedTask,
        "puts its texts into a chat template",
    ),
    (
        "sentence_bert_config.json",
        {"modality_config": {"text": {"method": "get_text_features"}}},
        UnsupportedTask,
        "does not take plain texts",
    ),
    (
        "sentence_bert_config.json",
        {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
        UnsupportedTask,
        "pools 'pooler_output'",
    ),
    ("sentence_bert_config.json", {"max_seq_length": "long"}, ModelCorrupt, "max_seq_length is no number"),
    (
        "config_sentence_transformers.json",
        {"model_type": "CrossEncoder"},
        UnsupportedTask,
        "a 'CrossEncoder'",
    ),
    ("config_sentence_transformers.json", {"prompts": ["query: "]}, ModelCorrupt, "prompts are no texts"),
    (
        "config_sentence_transformers.json",
        {"default_prompt_name": "q"},
        ModelCorrupt,
        "default prompt 'q' is none",
    ),
    ("2_Dense/config.json", {"in_features": 0, "out_features": 3}, ModelCorrupt, "in_features is no number"),
    (
        "2_Dense/config.json",
        {"in_features": 3, "out_features": 3, "activation_function": "os.system"},
        UnsupportedTask,
        "the activation function 'os.system'",
    ),
    (
        "2_Dense/config.json",
        {"in_features": 3, "out_features": 3, "module_input_name": "token_embeddings"},
        UnsupportedTask,
        "has module_input_name 'token_embeddings'",
    ),
]


@pytest.mark.parametrize(("file", "content", "error", "words"), REFUSED)
def test_what_cannot_be_done_is_refused_by_name(
    tmp_path: Path, file: str, content: Any, error: type[LocalLLMError], words: str
) -> None:
    declare(tmp_path, {"pooling_mode": "mean"}, *(["Dense"] if "Dense" in file else []))
    write_json(tmp_path / file, content)
    with pytest.raises(error) as raised:
        read_layout(tmp_path)
    assert words in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[1", "\x00", "[" * 100_000])
@pytest.mark.parametrize(
    "file", ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"]
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: str) -> None:
    declare(tmp_path, {"pooling_mode": "mean"})
    (tmp_path / file).write_text(content)
    with pytest.raises(ModelCorrupt, match=file.rpartition("/")[2]):
        read_layout(tmp_path)


def test_null_is_as_if_nothing_were_said(tmp_path: Path) -> None:
    declare(tmp_path, {"pooling_mode": "mean", "include_prompt": None})
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": None})
    write_json(
        tmp_path / "config_sentence_transformers.json",
        json.loads('{"prompts": null, "default_prompt_name": null, "model_type": null}'),
    )
    found = read_layout(tmp_path)
    assert (found.max_tokens, found.lower_case, found.prompts) == (None, False, {})
