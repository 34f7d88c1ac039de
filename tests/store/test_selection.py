"""Which files of a repository make up a model."""

from __future__ import annotations

import pytest

from llm_local.errors import InvalidRequest, ModelNotFound, UnsafeWeights, UnsupportedTask
from llm_local.store.selection import gguf_variants, select_files, select_gguf

NAMES = [
    "README.md",
    "model-Q4_K_M.gguf",
    "model-Q4_K_S.gguf",
    "model.Q8_0.gguf",
    "Q6_K/model-Q6_K-00001-of-00002.gguf",
    "Q6_K/model-Q6_K-00002-of-00002.gguf",
    "BF16/model-BF16-00001-of-00002.gguf",
    "mmproj-model-f16.gguf",
]


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ("Q4_K_M", ["model-Q4_K_M.gguf"]),
        ("q4_k_m", ["model-Q4_K_M.gguf"]),
        ("Q8_0", ["model.Q8_0.gguf"]),
        ("Q6_K", ["Q6_K/model-Q6_K-00001-of-00002.gguf", "Q6_K/model-Q6_K-00002-of-00002.gguf"]),
        ("Q6_K/model-Q6_K-00002-of-00002.gguf", [
            "Q6_K/model-Q6_K-00001-of-00002.gguf", "Q6_K/model-Q6_K-00002-of-00002.gguf"]),
        ("model-Q4_K_S.gguf", ["model-Q4_K_S.gguf"]),
        ("f16", ["mmproj-model-f16.gguf"]),
    ],
)  # fmt: skip
def test_a_gguf_file_by_its_name_or_what_it_is_quantized_to(wanted: str, files: list[str]) -> None:
    assert list(select_gguf("org/name", NAMES, wanted)) == files


def test_a_gguf_file_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ModelNotFound, match="model-Q4_K_M") as caught:
        select_gguf("org/name", NAMES, "Q5_K_M")
    assert caught.value.kind == "file_not_found"
    with pytest.raises(ModelNotFound, match="no GGUF file at all"):
        select_gguf("org/name", ["model.safetensors"], "Q4_K_M")


def test_parts_that_are_missing_and_names_that_fit_twice() -> None:
    with pytest.raises(ModelNotFound, match="1 of the 2 parts"):
        select_gguf("org/name", NAMES, "BF16")
    with pytest.raises(InvalidRequest, match=r"a-Q4_0\.gguf, b-Q4_0\.gguf"):
        select_gguf("org/name", ["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0")


def test_every_variant_has_its_parts() -> None:
    assert len(gguf_variants(NAMES)) == 6
    assert len(gguf_variants(NAMES)["Q6_K/model-Q6_K"]) == 2


def test_repositories_without_what_can_be_loaded_say_what_they_have() -> None:
    with pytest.raises(UnsafeWeights, match=r"only as pickle \(a.bin, b.bin, c.pt and 1 more\)"):
        select_files("org/name", ["config.json", "a.bin", "b.bin", "c.pt", "d.pth"])
    with pytest.raises(UnsupportedTask, match=r"org/name:FILE; it has BF16/.* model-Q4_K_M\.gguf"):
        select_files("org/name", ["config.json", *NAMES])


def test_the_modules_of_an_embedding_model_come_with_it() -> None:
    root = ["config.json", "model.safetensors", "modules.json", "tokenizer.json"]
    modules = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    others = ["2_Dense/pytorch_model.bin", "onnx/config.json", "onnx/model.safetensors", "1_Pooling/code.py"]
    found = select_files("org/name", [*root, *modules, *others])
    assert found.weights == "model.safetensors"
    assert set(found.metadata) == {"config.json", "modules.json", "tokenizer.json", *modules}
