"""The embedder against plain transformers and pooling by hand: every vector is a function of its text alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    T5Config,
    T5EncoderModel,
)

from llm_local.embedder import EmbedOptions, TextEmbedder
from llm_local.errors import (
    InvalidRequest,
    LocalLLMError,
    ModelCorrupt,
    NumericalError,
    UnsafeWeights,
    UnsupportedTask,
)
from llm_local.events import Progress
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.specs import ModelSpec
from tiny_checkpoints import edit_json, save_checkpoint
from tiny_embedders import (
    PLACES,
    SHAPES,
    SIZE,
    TEXTS,
    declare,
    reference,
    reference_states,
    save_embedder,
    write_dense,
    write_json,
)

CLOSE = 1e-5


def load(folder: Path, **options: Any) -> TextEmbedder:
    return TextEmbedder.load(ModelSpec(str(folder), device="cpu"), **options)


def distance(first: Any, second: Any) -> float:
    assert np.shape(first) == np.shape(second)
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


@pytest.mark.parametrize("kind", SHAPES)
def test_vectors_are_those_of_plain_transformers(tmp_path: Path, kind: str) -> None:
    embedder = load(save_embedder(tmp_path, kind))
    found = embedder.embed(TEXTS)
    last = kind == "qwen3"
    wanted = reference(tmp_path, TEXTS, lambda states: states[-1] if last else states.mean(0), normalize=True)
    assert found.vectors.dtype == np.float32
    assert distance(found.vectors, wanted) < CLOSE
    # the reference tells texts apart, so the comparison means something
    assert distance(wanted[0], wanted[1]) > 0.05
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert found.token_counts == tuple(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert found.prompt_tokens == sum(found.token_counts)
    assert embedder.pooling == ("last" if last else "mean")
    assert embedder.normalized
    [notice] = embedder.notices
    assert ("the last token" if last else "the mean over all tokens") in notice
    assert "normalized to length 1" in notice


def test_the_encoder_of_t5_has_no_positions_to_run_out_of(tmp_path: Path) -> None:
    folder = save_embedder(tmp_path, "roberta")  # for its tokenizer
    config = T5Config(vocab_size=430, d_model=SIZE, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)
    embedder = load(folder)
    wanted = reference(folder, TEXTS, BY_HAND["mean"], normalize=True, load=T5EncoderModel)
    assert distance(embedder.embed(TEXTS).vectors, wanted) < CLOSE
    assert embedder.embed([LONG]).token_counts[0] > PLACES


@pytest.mark.parametrize("kind", ["bert", "roberta", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 100, 4096])
def test_a_text_alone_is_as_in_any_batch(tmp_path: Path, kind: str, batch_tokens: int) -> None:
    folder = save_embedder(tmp_path, kind)
    texts = [*TEXTS, *TEXTS[::-1]]
    together = load(folder, batch_tokens=batch_tokens).embed(texts).vectors
    alone = load(folder)
    for text, vector in zip(texts, together, strict=True):
        assert distance(alone.embed([text]).vectors[0], vector) < CLOSE


def weighted_mean(states: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(1, len(states) + 1).float()
    return (states * weights[:, None]).sum(0) / weights.sum()


BY_HAND = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
    "max": lambda states: states.max(0).values,
    "mean_sqrt_len": lambda states: states.sum(0) / len(states) ** 0.5,
    "weighted_mean": weighted_mean,
}
SPELLED = {"last": "lasttoken", "mean_sqrt_len": "mean_sqrt_len_tokens", "weighted_mean": "weightedmean"}


@pytest.mark.parametrize("mode", BY_HAND)
def test_the_repository_chooses_the_pooling_and_so_may_the_caller(tmp_path: Path, mode: Any) -> None:
    folder = declare(save_embedder(tmp_path), {"pooling_mode": SPELLED.get(mode, mode)})
    wanted = reference(folder, TEXTS, BY_HAND[mode])
    said = load(folder)
    assert (said.pooling, said.normalized, said.notices) == (mode, False, ())
    assert distance(said.embed(TEXTS).vectors, wanted) < 1e-5 * max(1.0, float(np.abs(wanted).max()))
    declare(folder, {"pooling_mode": "cls" if mode == "mean" else "mean"})
    chosen = load(folder, pooling=mode)
    assert distance(chosen.embed(TEXTS).vectors, wanted) < 1e-5 * max(1.0, float(np.abs(wanted).max()))


def test_several_modes_stand_side_by_side(tmp_path: Path) -> None:
    folder = declare(
        save_embedder(tmp_path),
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        "Normalize",
    )
    embedder = load(folder)
    wanted = reference(folder, TEXTS, lambda states: torch.cat([states[0], states.mean(0)]), normalize=True)
    assert (embedder.pooling, embedder.dimensions) == ("cls+mean", 2 * SIZE)
    assert distance(embedder.embed(TEXTS).vectors, wanted) < CLOSE


@pytest.mark.parametrize("normalize", [None, True, False])
def test_normalization_is_the_repository_s_or_the_caller_s(tmp_path: Path, normalize: bool | None) -> None:
    plain = declare(save_embedder(tmp_path / "plain"), {"pooling_mode": "mean"})
    scaled = declare(save_embedder(tmp_path / "scaled"), {"pooling_mode": "mean"}, "Normalize")
    silent = save_embedder(tmp_path / "silent")
    lengths = [
        float(np.linalg.norm(load(folder, normalize=normalize).embed(TEXTS[:1]).vectors))
        for folder in (plain, scaled, silent)
    ]
    wanted = {None: (False, True, True), True: (True,) * 3, False: (False,) * 3}[normalize]
    assert [abs(length - 1) < CLOSE for length in lengths] == list(wanted)


ACTIVATIONS = {"Tanh": torch.tanh, "Identity": lambda value: value, "GELU": torch.nn.functional.gelu}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"use_residual": True}])
def test_projections_are_applied(tmp_path: Path, activation: str, options: dict[str, Any]) -> None:
    folder = declare(save_embedder(tmp_path), {"pooling_mode": "mean"}, "Dense", "Dense", "Normalize")
    name = f"torch.nn.modules.activation.{activation}"
    first = write_dense(folder / "2_Dense", SIZE, SIZE, activation_function=name, **options)
    second = write_dense(folder / "3_Dense", SIZE, 8, activation_function="torch.nn.modules.linear.Identity")

    def by_hand(states: torch.Tensor) -> torch.Tensor:
        vector = states.mean(0)
        out = ACTIVATIONS[activation](first["linear.weight"] @ vector + first.get("linear.bias", 0))
        if options.get("use_residual"):
            out = out + vector
        return second["linear.weight"] @ out + second["linear.bias"]

    embedder = load(folder)
    assert embedder.dimensions == 8
    assert distance(embedder.embed(TEXTS).vectors, reference(folder, TEXTS, by_hand, normalize=True)) < CLOSE


def test_a_projection_that_is_missing_or_of_another_shape_is_an_error(tmp_path: Path) -> None:
    folder = declare(save_embedder(tmp_path), {"pooling_mode": "mean"}, "Dense")
    write_dense(folder / "2_Dense", SIZE, 8)
    edit_json(folder / "2_Dense" / "config.json", out_features=9)
    with pytest.raises(ModelCorrupt, match=r"2_Dense/model\.safetensors do not fit"):
        load(folder)
    edit_json(folder / "2_Dense" / "config.json", in_features=7)
    with pytest.raises(ModelCorrupt, match=f"takes vectors of 7 numbers, but gets {SIZE}"):
        load(folder)
    edit_json(folder / "2_Dense" / "config.json", in_features=SIZE, out_features=8)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"pytorch_model\.bin"):
        load(folder)
    (
        folder / "2_Dense" / "pytorch_model.bin"
    ).unlink()  # as the hub's client leaves it: pickle is never fetched
    with pytest.raises(ModelCorrupt, match=r"2_Dense/model\.safetensors is missing.*only as pickle"):
        load(folder)


@pytest.mark.parametrize("dimensions", [1, 7, SIZE])
def test_fewer_dimensions_are_cut_and_scaled_again(tmp_path: Path, dimensions: int) -> None:
    folder = save_embedder(tmp_path)
    whole = load(folder).embed(TEXTS).vectors
    wanted = whole[:, :dimensions] / np.linalg.norm(whole[:, :dimensions], axis=1, keepdims=True)
    assert distance(load(folder).embed(TEXTS, dimensions=dimensions).vectors, wanted) < CLOSE
    raw = load(folder, normalize=False)
    assert (
        distance(raw.embed(TEXTS, dimensions=dimensions).vectors, raw.embed(TEXTS).vectors[:, :dimensions])
        == 0
    )


@pytest.mark.parametrize("dimensions", [0, -1, SIZE + 1, 2.5])
def test_dimensions_that_there_are_not(tmp_path: Path, dimensions: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"but the model's have {SIZE}") as raised:
        load(save_embedder(tmp_path)).embed(TEXTS, dimensions=dimensions)
    assert raised.value.param == "dimensions"


def prompted(folder: Path, **config: Any) -> Path:
    declare(folder, {"pooling_mode": "mean"} | config.pop("pooling", {}))
    prompts = {"query": "the user asks: ", "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts} | config)
    return folder


def test_prompts_come_by_name_by_text_and_by_default(tmp_path: Path) -> None:
    folder = prompted(save_embedder(tmp_path, "roberta"))
    embedder = load(folder)
    plain = reference(folder, TEXTS, BY_HAND["mean"])
    asked = reference(folder, [f"the user asks: {text}" for text in TEXTS], BY_HAND["mean"])
    assert distance(plain, asked) > 0.01
    assert distance(embedder.embed(TEXTS).vectors, plain) < CLOSE
    assert distance(embedder.embed(TEXTS, prompt_name="document").vectors, plain) < CLOSE
    assert distance(embedder.embed(TEXTS, prompt_name="query").vectors, asked) < CLOSE
    assert distance(embedder.embed(TEXTS, prompt="the user asks: ").vectors, asked) < CLOSE
    usual = load(prompted(folder, default_prompt_name="query"))
    assert distance(usual.embed(TEXTS).vectors, asked) < CLOSE
    assert distance(usual.embed(TEXTS, prompt="").vectors, plain) < CLOSE


def test_prompts_that_are_read_and_not_pooled(tmp_path: Path) -> None:
    folder = prompted(save_embedder(tmp_path), pooling={"include_prompt": False})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    skipped = len(tokenizer("the user asks: ")["input_ids"]) - 1  # what stands behind a text is no part of it
    texts = ["a dog", "it is the user"]
    states = reference_states(folder, [f"the user asks: {text}" for text in texts])
    wanted = [one[skipped:].mean(0).numpy() for one in states]
    assert distance(load(folder).embed(texts, prompt_name="query").vectors, wanted) < CLOSE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_name": "quer"}, "no prompt 'quer'. Did you mean query?"),
        ({"prompt_name": "xyz"}, "Its prompts are: document, query."),
        ({"prompt_name": "query", "prompt": "x"}, "exclude each other"),
    ],
)
def test_wrong_prompts(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load(prompted(save_embedder(tmp_path))).embed(TEXTS, **options)


def test_a_model_without_prompts_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="the model has none"):
        load(save_embedder(tmp_path)).embed(TEXTS, prompt_name="query")


def test_texts_become_lower_case_where_the_repository_says_so(tmp_path: Path) -> None:
    folder = declare(save_embedder(tmp_path), {"pooling_mode": "mean"})
    assert distance(*load(folder).embed(["HELLO", "hello"]).vectors) > 0.01
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})
    assert distance(*load(folder).embed(["HELLO", "hello"]).vectors) < CLOSE


LONG = " ".join(["world"] * 100)


def test_long_texts_are_refused_and_named(tmp_path: Path) -> None:
    embedder = load(save_embedder(tmp_path))
    tokens = len(AutoTokenizer.from_pretrained(tmp_path)(LONG)["input_ids"])
    with pytest.raises(InvalidRequest) as raised:
        embedder.embed(["a", LONG, LONG])
    assert f"Text 2 has {tokens} tokens, but the model takes {PLACES}. 1 more are too long." in str(
        raised.value
    )
    assert raised.value.kind == "context_length_exceeded"


@pytest.mark.parametrize("kind", ["bert", "roberta", "qwen3"])
def test_a_cut_text_says_how_much_is_left_out_and_keeps_its_last_token(tmp_path: Path, kind: str) -> None:
    folder = save_embedder(tmp_path, kind)
    found = load(folder).embed(["a", LONG], truncate=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = len(tokenizer(LONG)["input_ids"])
    assert found.token_counts[1] == PLACES
    assert found.truncated_tokens == (0, whole - PLACES)
    ids = tokenizer(LONG, truncation=True, max_length=PLACES)["input_ids"]
    assert ids[-1] == tokenizer(LONG)["input_ids"][-1]


def test_the_window_is_the_least_of_all_that_say_one(tmp_path: Path) -> None:
    folder = save_embedder(tmp_path, "roberta")  # 66 rows of positions, two of which no token gets
    assert load(folder).info.context_length == PLACES
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})
    assert load(folder).info.context_length == 20
    edit_json(folder / "tokenizer_config.json", model_max_length=10)
    assert load(folder).info.context_length == 10
    spec = ModelSpec(str(folder), device="cpu", context_length=PLACES)
    assert TextEmbedder.load(spec).info.context_length == PLACES
    with pytest.raises(InvalidRequest, match=f"has places for {PLACES}"):
        TextEmbedder.load(ModelSpec(str(folder), device="cpu", context_length=PLACES + 1))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "There is no text"),
        (["a", " \n"], "Text 2 is empty"),
        (["a", ""], "Text 2 is empty"),
        ("abc", "are one text"),
        (["a", 3], "Text 2 is no text but int"),
        (["\ud800"], "Text 1 is not valid Unicode"),
    ],
)
def test_texts_that_cannot_be_embedded(tmp_path: Path, texts: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load(save_embedder(tmp_path)).embed(texts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_give_float32_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save_embedder(tmp_path, dtype=dtype)
    exact = load(folder)
    assert exact.info.dtype == "float32"  # a small model is exact
    assert (
        distance(exact.embed(TEXTS).vectors, reference(folder, TEXTS, BY_HAND["mean"], normalize=True))
        < CLOSE
    )
    half = TextEmbedder.load(ModelSpec(str(folder), device="cpu", dtype="bfloat16"))
    found = half.embed(TEXTS).vectors
    assert half.info.dtype == "bfloat16"
    assert found.dtype == np.float32
    assert distance(found, exact.embed(TEXTS).vectors) < 0.05


def test_quantization_is_not_for_embeddings(tmp_path: Path) -> None:
    found = TextEmbedder.load(ModelSpec(str(save_embedder(tmp_path)), device="cpu", quantization="int8"))
    assert (found.info.quantization, found.info.dtype) == ("none", "float32")


def test_a_head_for_another_task_is_left_out_where_the_states_are_worth_pooling(tmp_path: Path) -> None:
    base = save_embedder(tmp_path / "base")
    config = AutoConfig.from_pretrained(base)
    masked = AutoModelForMaskedLM.from_config(config)
    masked.bert.load_state_dict(load_bert(base))
    save_embedder(tmp_path / "masked")
    masked.save_pretrained(tmp_path / "masked")
    assert json.loads((tmp_path / "masked" / "config.json").read_text())["architectures"] == [
        "BertForMaskedLM"
    ]
    assert distance(load(tmp_path / "masked").embed(TEXTS).vectors, load(base).embed(TEXTS).vectors) < CLOSE


def load_bert(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in stored.items() if not name.startswith("pooler.")}


def test_a_causal_model_is_pooled_over_its_last_token(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, "qwen3")  # with its head, and no word about embeddings
    embedder = load(folder)
    assert embedder.pooling == "last"
    texts = ["Hello", "Hi you"]
    wanted = reference(folder, texts, BY_HAND["last"], normalize=True)
    assert distance(embedder.embed(texts).vectors, wanted) < CLOSE
    assert "since it is a decoder" in embedder.notices[0]


def test_a_classifier_is_told_what_it_is(tmp_path: Path) -> None:
    folder = save_embedder(tmp_path)
    AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(UnsupportedTask) as raised:
        load(folder)
    what = "BertForSequenceClassification is made for classifying or ranking texts, not for embeddings."
    assert raised.value.message == what
    declare(folder, {"pooling_mode": "cls"})  # a repository that says how to pool means it
    assert load(folder).pooling == "cls"


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "distilbert", "qwen3"])
def test_an_encoder_that_is_asked_to_generate_is_told_what_it_can(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedTask, match="is made for embeddings, not for generating text") as raised:
        load_tokenizer_and_model(ModelSpec(str(save_embedder(tmp_path, kind)), device="cpu"))
    assert "`llm-local embed` makes embeddings with this one." in raised.value.hint


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"architectures": ["ViTModel"], "model_type": "vit"},
            UnsupportedTask,
            "ViTModel is made for something else",
        ),
        (
            {"architectures": ["BartModel"], "model_type": "bart", "is_encoder_decoder": True},
            UnsupportedTask,
            "BartModel is made for turning one input into another",
        ),
        (
            {"architectures": ["NovelModel"]},
            UnsupportedTask,
            "NovelModel is unknown to the installed transformers",
        ),
        (
            {"architectures": ["NovelModel"], "auto_map": {"AutoModel": "m.N"}},
            UnsafeWeights,
            "only with code",
        ),
        ({"model_type": "brt"}, UnsupportedTask, "of type 'brt' are unknown"),
        ({"num_hidden_layers": 900}, ModelCorrupt, "num_hidden_layers 900"),
        ({"hidden_size": 64}, ModelCorrupt, "config.json cannot be used"),
    ],
)
def test_wrong_models(
    tmp_path: Path, changes: dict[str, Any], error: type[LocalLLMError], words: str
) -> None:
    folder = save_embedder(tmp_path)
    edit_json(folder / "config.json", **changes)
    with pytest.raises(error) as raised:
        load(folder)
    assert words in str(raised.value)


def test_code_that_comes_with_a_known_model_is_not_run_and_that_is_said(tmp_path: Path) -> None:
    folder = declare(save_embedder(tmp_path), {"pooling_mode": "mean"})
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Own"})
    [notice] = load(folder).notices
    assert "code of its own, which is never run" in notice


def test_weights_that_are_not_numbers_are_an_error(tmp_path: Path) -> None:
    folder = save_embedder(tmp_path)
    embedder = load(folder)
    with torch.no_grad():
        next(embedder._loaded.model.parameters())[:, 0] = float("nan")
    with pytest.raises(NumericalError, match="embedding of text 1 is not finite"):
        embedder.embed(["a"])


def test_the_stream_comes_in_order_and_can_be_stopped(tmp_path: Path) -> None:
    embedder = load(save_embedder(tmp_path), batch_tokens=12)
    texts = [*TEXTS] * 20
    options = EmbedOptions()
    prepared = embedder.prepare(texts, options)
    seen: list[Progress] = []
    found = []
    for one in embedder.stream(prepared, options, on_progress=seen.append, stopped=lambda: len(found) >= 30):
        found.append(one)
    assert [one.index for one in found] == list(range(len(found)))
    assert 30 <= len(found) < len(texts)
    assert all(progress.total == prepared.num_tokens for progress in seen)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].done < prepared.num_tokens
    whole = embedder.embed(texts).vectors
    assert distance([one.vector for one in found], whole[: len(found)]) < CLOSE


@pytest.mark.parametrize(
    ("options", "param"), [({"pooling": "median"}, "pooling"), ({"batch_tokens": 0}, "batch_tokens")]
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        load(save_embedder(tmp_path), **options)
    assert raised.value.param == param
