"""What is said of a model without loading it, and that it is what loading finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gguf_files import small_gguf
from hub_cache import add_model, model_files, weights_bytes
from llm_local.errors import ModelCorrupt
from llm_local.loaders.card import Shape, gguf_card, read_card
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.specs import ModelSpec
from llm_local.store.library import starter_folder


def with_template(template: object, **config: object) -> Path:
    return add_model(
        "org/model",
        model_files(**config) | {"tokenizer_config.json": json.dumps({"chat_template": template}).encode()},
    )


def test_the_card_of_the_starter_is_what_loading_finds() -> None:
    card = read_card(starter_folder())
    loaded = load_tokenizer_and_model(ModelSpec("starter", dtype="float32", quantization="none"))
    assert card.num_parameters == loaded.info.num_parameters
    assert card.architecture == loaded.info.architecture
    assert card.shape.context_length == loaded.info.context_length
    assert card.shape.vocab_size == loaded.info.vocab_size
    assert card.shape.num_layers == loaded.model.config.num_hidden_layers
    assert card.chat_template == loaded.tokenizer.chat_template
    assert card.generation_defaults == loaded.generation_defaults
    assert card.faults == ()
    assert (card.capabilities.chat, card.capabilities.tools, card.capabilities.embedding) == (
        True,
        True,
        False,
    )
    assert card.license == "mit"


def test_what_the_files_say_is_told() -> None:
    card = read_card(add_model("org/model"))
    assert card.shape == Shape(4096, 1, 8, 2, 64, 1000)
    assert (card.num_parameters, card.dtypes, card.quantization) == (4096, {"F32": 4096}, "none")
    assert card.generation_defaults == {"temperature": 0.7, "top_p": 0.9, "do_sample": True}
    assert card.license == ""


def test_shapes_by_other_names_and_one_floor_down() -> None:
    other = {
        "n_layer": 3,
        "n_head": 4,
        "n_embd": 32,
        "n_positions": 128,
        "vocab_size": 9,
        "model_type": "gpt2",
    }
    card = read_card(add_model("org/gpt", model_files() | {"config.json": json.dumps(other).encode()}))
    assert card.shape == Shape(128, 3, 4, None, 32, 9)
    inner = {"model_type": "x", "text_config": {"num_hidden_layers": 5, "max_position_embeddings": 64}}
    card = read_card(add_model("org/inner", model_files() | {"config.json": json.dumps(inner).encode()}))
    assert (card.shape.num_layers, card.shape.context_length) == (5, 64)


@pytest.mark.parametrize(
    ("template", "thinking"),
    [
        ("{% if enable_thinking %}<think>{% endif %}", "switchable"),
        ("{% if thinking %}x{% endif %}", "switchable"),
        ("{{ reasoning_effort }}", "switchable"),
        ("{{ messages }}<think></think>", "always or by itself"),
        ("{{ messages[0].thinking }}", ""),
        ("{% set reasoning = 1 %}{{ reasoning }}", ""),
        ("{{ messages }}", ""),
    ],
)
def test_thinking_is_what_the_template_reads(template: str, thinking: str) -> None:
    assert read_card(with_template(template)).capabilities.thinking == thinking


def test_tools_and_their_format() -> None:
    can = read_card(with_template('{% if tools %}<tool_call>\n{"name": {% endif %}')).capabilities
    assert (can.tools, can.tool_format) == (True, "hermes")
    assert not read_card(with_template("{{ messages }}")).capabilities.tools


def test_a_template_in_a_file_comes_first_and_several_are_all_told() -> None:
    folder = with_template(
        [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two tools"}, 3]
    )
    assert read_card(folder).chat_template == "one\ntwo tools"
    (folder / "chat_template.jinja").write_text("whole")
    assert read_card(folder).chat_template == "whole"


def test_models_without_chat() -> None:
    encoder = add_model("org/bert", model_files(architectures=["BertModel"], model_type="bert"))
    assert read_card(encoder).capabilities.embedding
    assert not read_card(encoder).capabilities.chat
    declared = add_model("org/declared", model_files() | {"modules.json": b"[]"})
    assert read_card(declared).capabilities.embedding
    base = add_model("org/base", model_files() | {"tokenizer_config.json": b"{}"})
    assert not read_card(base).capabilities.chat
    assert not read_card(base).capabilities.embedding


def test_vision_is_seen_though_it_is_not_supported() -> None:
    assert read_card(with_template("x", vision_config={})).capabilities.vision


def test_packed_weights_have_no_count_of_parameters() -> None:
    card = read_card(with_template("x", quantization_config={"quant_method": "gptq", "bits": 4}))
    assert (card.quantization, card.num_parameters) == ("gptq 4-bit", None)
    assert (
        read_card(with_template("x", quantization_config={"load_in_8bit": True})).quantization
        == "unknown 8-bit"
    )
    assert read_card(with_template("x", quantization_config=3)).quantization == "unknown"


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"]
)
@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b"\xff"])
def test_damage_is_told_and_the_rest_too(name: str, content: bytes) -> None:
    card = read_card(add_model("org/bad", model_files() | {name: content}))
    assert any(name in fault for fault in card.faults)
    assert card.format == "safetensors"
    if name != "model.safetensors":
        assert card.num_parameters == 4096


def test_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small_gguf())
    card = gguf_card([path])
    assert (card.format, card.architecture, card.quantization) == ("gguf", "llama", "Q4_K_M")
    assert card.shape == Shape(8192, 2, 4, 2, 256, 4)
    assert (card.num_parameters, card.dtypes) == (256 * 4 + 8, {"Q4_K": 1024, "F32": 8})
    assert (card.license, card.capabilities.tools) == ("apache-2.0", True)
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelCorrupt):
        gguf_card([path])


def test_the_license_is_in_the_head_of_the_readme() -> None:
    for text, expected in (
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# x", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: 'odd one'\n---\n", "other"),
        ("# license: mit", ""),
        ("---\nlicense:\n- mit\n---\n", ""),
    ):
        assert (
            read_card(add_model("org/model", model_files() | {"README.md": text.encode()})).license
            == expected
        )


def test_sizes_of_several_files_add_up() -> None:
    files = {name: data for name, data in model_files().items() if name != "model.safetensors"}
    index = {"weight_map": {"w.weight": "a.safetensors"}}
    files |= {"model.safetensors.index.json": json.dumps(index).encode(), "a.safetensors": weights_bytes()}
    assert read_card(add_model("org/sharded", files)).num_parameters == 4096
