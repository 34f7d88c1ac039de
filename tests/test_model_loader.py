"""The loader door: which model a name leads to, and that what is loaded is what lies on the disk."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fakehub import FakeHub, chosen_hub, hang, status, web_page
from llm_local import model_loader
from llm_local.errors import (
    AccessDenied,
    HubUnavailable,
    InsufficientMemory,
    InvalidRequest,
    LocalLLMError,
    ModelCorrupt,
    ModelNotFound,
    UnsafeWeights,
    UnsupportedTask,
)
from llm_local.events import Progress
from llm_local.kernels.linear import release_linears
from llm_local.loaders import before_fetch, devices
from llm_local.model_loader import get_model_info, load_tokenizer_and_model, resolve_model
from llm_local.specs import ModelSpec
from llm_local.store.snapshots import RepoCache, cache_folder
from tiny_checkpoints import END_TOKEN, TEMPLATE, VOCAB_SIZE, edit_json, save_checkpoint, tiny_tokenizer
from tiny_models import ARCHITECTURES, CONTEXT_LENGTH, random_prompt, tiny_config, tiny_model

REF = "org/model"
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny llama on the disk."""
    return save_checkpoint(tmp_path / "llama")


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in the place of the one that ships with the package."""
    folder = save_checkpoint(tmp_path / "package" / "starter", "qwen2")
    monkeypatch.setattr(model_loader, "__file__", str(folder.parent / "model_loader.py"))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[FakeHub]:
    """A hub that has the tiny llama as `org/model`."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with chosen_hub(monkeypatch, REF, files) as hub:
        yield hub


def logits(model: Any, prompt: tuple[int, ...]) -> torch.Tensor:
    model.set_attn_implementation("eager")  # an engine of another test may have given it another,
    release_linears(model)  # and native linear layers
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt]), use_cache=False).logits


# Resolving


def test_the_starter_and_a_directory_are_where_they_are(starter: Path, checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    for explicit in (True, False):
        for offline in (True, False):
            resolved = resolve_model(ModelSpec("starter"), explicit=explicit, offline=offline)
            assert (resolved.path, resolved.notice) == (starter, "")
            resolved = resolve_model(ModelSpec(str(checkpoint)), explicit=explicit, offline=offline)
            assert (resolved.path, resolved.notice) == (checkpoint, "")


def test_a_hub_model_is_downloaded_once_and_then_found_offline(hub: FakeHub, monkeypatch) -> None:
    seen: list[Progress] = []
    first = resolve_model(ModelSpec(REF), explicit=True, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    count = len(hub.requests)
    for explicit in (True, False):
        again = resolve_model(ModelSpec(f"{REF}@main"), explicit=explicit, offline=True)
        assert again.path == first.path
        assert again.notice == ""
    assert len(hub.requests) == count
    assert again.spec == ModelSpec(REF, revision="main")
    assert load_tokenizer_and_model(again.spec, path=again.path).info.ref == REF


def asked_for_weights(hub: FakeHub) -> list[str]:
    """What was asked of the weights: the ranges, or "all"."""
    return [one.headers.get("range", "all") for one in hub.asked("model.safetensors")]


def test_a_model_that_does_not_fit_in_memory_is_refused_before_it_is_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "host_bytes", lambda: 10**6)
    with pytest.raises(InsufficientMemory, match=r"org/model needs .* but 0\.0 GB are free on cpu") as caught:
        resolve_model(ModelSpec(REF, device="cpu"), explicit=True)
    assert caught.value.have_bytes == 10**6 < caught.value.need_bytes
    assert asked_for_weights(hub) == ["bytes=0-65535"]  # the header, and no more
    assert not RepoCache(cache_folder(), REF).root.exists()


def test_a_window_that_the_model_does_not_have_is_refused_before_it_is_fetched(hub: FakeHub) -> None:
    with pytest.raises(InvalidRequest, match="context"):
        resolve_model(ModelSpec(REF, context_length=10**6), explicit=True)
    assert asked_for_weights(hub) == []
    assert not RepoCache(cache_folder(), REF).root.exists()


def test_what_a_plug_in_may_load_is_not_judged_before_it_is_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before_fetch, "load_plugins", lambda *_: [(object(), object())])
    monkeypatch.setattr(devices, "host_bytes", lambda: 10**6)
    assert resolve_model(ModelSpec(REF), explicit=True).path.is_dir()


def test_a_default_that_can_be_reached_is_downloaded_not_replaced(hub: FakeHub, starter: Path) -> None:
    resolved = resolve_model(ModelSpec(REF), explicit=False)
    assert resolved.spec.ref == REF
    assert resolved.notice == ""


def test_a_default_out_of_reach_gives_way_to_the_starter_and_says_so(starter: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    began = time.monotonic()
    resolved = resolve_model(ModelSpec(REF, dtype="float32"), explicit=False)
    assert time.monotonic() - began < 6  # the promise is 3, on a machine with time
    assert resolved.path == starter
    assert resolved.spec == ModelSpec("starter", dtype="float32")
    for words in (REF, "starter", "cannot be reached", CLOSED):
        assert words in resolved.notice
    assert "\n" not in resolved.notice
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path)
    assert loaded.info.architecture == "Qwen2ForCausalLM"


@pytest.mark.parametrize("fault", [hang, web_page, status(503)])
def test_a_default_behind_a_broken_hub_gives_way_within_three_seconds(
    hub: FakeHub, starter: Path, fault
) -> None:
    hub.faults["api"] += [fault] * 9
    began = time.monotonic()
    resolved = resolve_model(ModelSpec(REF), explicit=False)
    assert time.monotonic() - began < 6  # the promise is 3, on a machine with time
    assert resolved.spec.ref == "starter"


def test_a_default_that_is_switched_off_asks_nobody(hub: FakeHub, starter: Path, monkeypatch) -> None:
    assert resolve_model(ModelSpec(REF), explicit=False, offline=True).spec.ref == "starter"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(ModelSpec(REF), explicit=False).spec.ref == "starter"
    assert hub.requests == []


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_that_was_named_is_never_replaced(starter: Path, offline: bool, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    with pytest.raises(HubUnavailable):
        resolve_model(ModelSpec(REF), explicit=True, offline=offline)


def test_a_typing_error_is_hinted_at_while_the_hub_is_away(monkeypatch) -> None:
    with pytest.raises(HubUnavailable, match="Did you mean starter") as caught:
        resolve_model(ModelSpec("strater"), explicit=True, offline=True)
    assert "--model starter" in caught.value.hint


def test_only_a_hub_out_of_reach_excuses_the_starter(hub: FakeHub, starter: Path) -> None:
    hub.faults["api"].append(status(403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(AccessDenied):
        resolve_model(ModelSpec(REF), explicit=False)
    with pytest.raises(ModelNotFound):
        resolve_model(ModelSpec("org/other"), explicit=False)


def test_a_window_chosen_for_another_model_is_cut_to_the_starters(starter: Path) -> None:
    for asked, expected in ((None, None), (100, 100), (10**6, CONTEXT_LENGTH)):
        spec = ModelSpec(REF, context_length=asked)
        assert resolve_model(spec, explicit=False, offline=True).spec.context_length == expected


def test_an_installation_without_the_starter_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(model_loader, "__file__", str(tmp_path / "model_loader.py"))
    with pytest.raises(ModelNotFound, match="starter"):
        resolve_model(ModelSpec("starter"), explicit=True)


# Loading


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_every_architecture_is_loaded_as_it_was_saved(model_type: str, tmp_path: Path) -> None:
    loaded = load_tokenizer_and_model(ModelSpec(str(save_checkpoint(tmp_path, model_type))))
    prompt = random_prompt(24)
    torch.testing.assert_close(
        logits(loaded.model, prompt), logits(tiny_model(model_type), prompt), rtol=1e-5, atol=1e-5
    )
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any(parameter.is_meta for parameter in (*loaded.model.parameters(), *loaded.model.buffers()))
    assert not hasattr(loaded.model, "_hf_hook")


def test_the_facts_are_those_of_the_files(checkpoint: Path) -> None:
    loaded = load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    info = get_model_info(loaded)
    assert (info.ref, info.path, info.architecture) == (str(checkpoint), str(checkpoint), "LlamaForCausalLM")
    assert info.num_parameters == sum(one.numel() for one in tiny_model("llama").parameters())
    assert info.weight_bytes == 4 * info.num_parameters
    assert (info.dtype, info.device, info.vocab_size) == ("float32", "cpu", VOCAB_SIZE)
    assert (info.context_length, info.has_chat_template) == (CONTEXT_LENGTH, True)
    assert loaded.end_token_ids == {END_TOKEN}
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert loaded.load_s > 0
    assert loaded.notices == ()


def test_the_authors_sampling_and_a_lower_window_arrive(checkpoint: Path) -> None:
    edit_json(checkpoint / "generation_config.json", temperature=0.6, eos_token_id=[2, 5])
    loaded = load_tokenizer_and_model(ModelSpec(str(checkpoint), context_length=99))
    assert loaded.generation_defaults == {"temperature": 0.6}
    assert loaded.end_token_ids == {2, 5}
    assert loaded.info.context_length == 99
    with pytest.raises(InvalidRequest, match=str(CONTEXT_LENGTH)):
        load_tokenizer_and_model(ModelSpec(str(checkpoint), context_length=CONTEXT_LENGTH + 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_format_asked_for_is_the_format_of_every_weight(dtype: str, checkpoint: Path) -> None:
    loaded = load_tokenizer_and_model(ModelSpec(str(checkpoint), dtype=dtype))
    assert {str(one.dtype) for one in loaded.model.parameters()} == {f"torch.{dtype}"}
    assert loaded.info.dtype == dtype


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_that_need_no_conversion_are_the_mapped_file_itself(checkpoint: Path) -> None:
    loaded = load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(checkpoint / "model.safetensors")):
            low, high = line.split()[0].split("-")
            spans.append(range(int(low, 16), int(high, 16)))
    assert spans
    for name, parameter in loaded.model.named_parameters():
        assert any(parameter.data_ptr() in span for span in spans), name


def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    config = tiny_config("gpt2")
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_tokenizer_and_model(ModelSpec(str(tmp_path))).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_shards_are_loaded_like_a_single_file(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    loaded = load_tokenizer_and_model(ModelSpec(str(folder)))
    prompt = random_prompt(9)
    torch.testing.assert_close(logits(loaded.model, prompt), logits(tiny_model("llama"), prompt))


def test_the_tokenizer_is_the_one_transformers_makes(checkpoint: Path) -> None:
    ours = load_tokenizer_and_model(ModelSpec(str(checkpoint))).tokenizer
    theirs = AutoTokenizer.from_pretrained(checkpoint)
    text = "Hello, w\u00f6rld! \U0001f600 <s> x\n"
    assert ours(text).input_ids == theirs(text).input_ids
    assert type(ours) is type(theirs)


def test_progress_goes_from_nothing_to_all_bytes(checkpoint: Path) -> None:
    seen: list[Progress] = []
    load_tokenizer_and_model(ModelSpec(str(checkpoint)), on_progress=seen.append)
    assert [event.stage for event in seen] == ["loading", "loading"]
    assert seen[0].done == 0
    assert seen[1].done == seen[1].total > 100_000


def test_loading_is_silent_and_asks_no_network(checkpoint: Path, monkeypatch, capfd) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loading opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    edit_json(
        checkpoint / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "odd": 1}
    )
    load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level < logging.CRITICAL


def test_the_door_costs_no_torch() -> None:
    code = (
        "import sys, llm_local.model_loader; print({'torch', 'transformers', 'httpx2'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout == "set()\n", done.stderr


# Refusals


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_tokenizer_and_model(ModelSpec("x"), path=tmp_path / "nope")


DAMAGE = {
    "config.json": lambda path: path.write_text("{"),
    "tokenizer.json": lambda path: path.write_text("{"),
    "tokenizer_config.json": lambda path: path.write_bytes(b"\xff\xff"),
    "generation_config.json": lambda path: path.write_text("[]"),
    "model.safetensors": lambda path: path.write_bytes(path.read_bytes()[:-100]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(name: str, checkpoint: Path) -> None:
    DAMAGE[name](checkpoint / name)
    with pytest.raises(ModelCorrupt, match=name) as caught:
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    assert caught.value.file == name


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    with pytest.raises(LocalLLMError, match=name) as caught:
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    assert isinstance(caught.value, ModelNotFound if name == "config.json" else ModelCorrupt)


def test_a_tokenizer_of_json_that_is_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json"):
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))


def test_pickle_weights_beside_a_config_are_refused_and_never_opened(
    checkpoint: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    with pytest.raises(UnsafeWeights, match=r"pytorch_model\.bin"):
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    assert not canary.exists()


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 4}, {"vocab_size": 300}, {"hidden_size": 128}])
def test_weights_that_do_not_fit_the_config_are_never_filled_with_noise(
    changes: dict[str, int], checkpoint: Path
) -> None:
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(ModelCorrupt) as caught:
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    assert caught.value.file == "config.json"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": "many"}, {"num_attention_heads": 0}, {"hidden_act": "evil"}]
)
def test_a_config_that_makes_no_sense_is_corrupt(changes: dict[str, object], checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(ModelCorrupt, match=r"config\.json"):
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "filling in masked words"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
            "turning one input into another",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "classifying"),
        ({"architectures": ["LlamaModel"]}, "embeddings"),
        ({"model_type": "lama", "architectures": ["LamaForCausalLM"]}, "'lama'"),
    ],
)
def test_a_model_for_something_else_is_named_for_what_it_is(changes, words: str, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(UnsupportedTask, match=words):
        load_tokenizer_and_model(ModelSpec(str(checkpoint)))


def test_a_config_without_architectures_is_taken_by_its_type(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", architectures=None)
    assert load_tokenizer_and_model(ModelSpec(str(checkpoint))).info.architecture == "LlamaForCausalLM"


def test_a_model_larger_than_the_memory_is_refused_before_loading(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr(devices, "host_bytes", lambda: 10_000_000)
    seen: list[Progress] = []
    with pytest.raises(InsufficientMemory) as caught:
        load_tokenizer_and_model(ModelSpec(str(checkpoint)), on_progress=seen.append)
    assert caught.value.need_bytes > caught.value.have_bytes == 10_000_000
    assert seen == []


# Code that comes with a model

EVIL = "from pathlib import Path\nPath({canary!r}).touch()\nraise RuntimeError('ran')\n"
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.T", "evil.T"],
}
ATTACKS: dict[str, tuple[str, dict[str, object]]] = {
    "own architecture": ("config.json", {"architectures": ["EvilForCausalLM"], "auto_map": AUTO_MAP}),
    "own type": (
        "config.json",
        {"model_type": "evil", "architectures": ["EvilForCausalLM"], "auto_map": AUTO_MAP},
    ),
    "known architecture": ("config.json", {"auto_map": AUTO_MAP}),
    "told to trust": ("config.json", {"auto_map": AUTO_MAP, "trust_remote_code": True}),
    "kernel": (
        "config.json",
        {"_attn_implementation_internal": "evil/kernel", "_attn_implementation": "evil/kernel"},
    ),
    "kernel by name": ("config.json", {"attn_implementation": "evil/kernel"}),
    "nested": ("config.json", {"audio_config": {"trust_remote_code": True, "auto_map": AUTO_MAP}}),
    "other weights": ("config.json", {"transformers_weights": "pytorch_model.bin"}),
    "generation": (
        "generation_config.json",
        {"custom_generate": ".", "trust_remote_code": True, "auto_map": AUTO_MAP},
    ),
    "tokenizer": ("tokenizer_config.json", {"auto_map": AUTO_MAP, "trust_remote_code": True}),
    "own tokenizer": ("tokenizer_config.json", {"tokenizer_class": "EvilTokenizer", "auto_map": AUTO_MAP}),
}
REFUSED = {"own architecture", "own type"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_file_of_a_model_makes_its_code_run(attack: str, checkpoint: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (checkpoint / "evil.py").write_text(EVIL.format(canary=str(canary)))
    (checkpoint / "custom_generate").mkdir()
    (checkpoint / "custom_generate" / "generate.py").write_text(EVIL.format(canary=str(canary)))
    name, changes = ATTACKS[attack]
    edit_json(checkpoint / name, **changes)
    try:
        loaded = load_tokenizer_and_model(ModelSpec(str(checkpoint)))
    except UnsafeWeights as error:
        assert attack in REFUSED | {"own tokenizer"}, error
        assert "code" in error.message
    else:
        assert attack not in REFUSED
        prompt = random_prompt(5)
        torch.testing.assert_close(logits(loaded.model, prompt), logits(tiny_model("llama"), prompt))
        assert loaded.model.config._attn_implementation in ("sdpa", "eager")
    assert not canary.exists()


def test_code_runs_when_it_is_trusted_for_this_model(checkpoint: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (checkpoint / "evil.py").write_text(EVIL.format(canary=str(canary)))
    edit_json(checkpoint / "config.json", model_type="evil", auto_map=AUTO_MAP)
    with pytest.raises(LocalLLMError):
        load_tokenizer_and_model(ModelSpec(str(checkpoint), trust_remote_code=True))
    assert canary.exists()


def test_the_edits_of_these_tests_reach_the_disk(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", auto_map=AUTO_MAP)
    assert json.loads((checkpoint / "config.json").read_text())["auto_map"] == AUTO_MAP


def test_more_layers_than_tensors_is_a_damaged_configuration(tmp_path: Path) -> None:
    """Refused at once, instead of building millions of layers."""
    folder = save_checkpoint(tmp_path, "llama")
    edit_json(folder / "config.json", num_hidden_layers=3_000_000)
    with pytest.raises(ModelCorrupt, match="3000000") as caught:
        load_tokenizer_and_model(ModelSpec(str(folder)))
    assert caught.value.file == "config.json"


def test_the_weights_that_are_judged_are_those_that_are_loaded(tmp_path: Path) -> None:
    """With a single file and an index side by side transformers takes the single file, and so do we."""
    folder = save_checkpoint(tmp_path, "llama")
    shutil.copy(folder / "model.safetensors", folder / "model-1.safetensors")
    names = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_tokenizer_and_model(ModelSpec(str(folder))).info.num_parameters > 0
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelCorrupt, match="truncated") as caught:
        load_tokenizer_and_model(ModelSpec(str(folder)))
    assert caught.value.file == "model.safetensors"


def test_the_first_model_of_a_process_can_be_let_go():
    """What transformers remembers of its own import once held the first model for ever."""
    script = (
        "import gc, weakref\n"
        "from llm_local.model_loader import load_tokenizer_and_model\n"
        "from llm_local.specs import ModelSpec\n"
        "loaded = load_tokenizer_and_model(ModelSpec('starter'))\n"
        "gone = weakref.ref(loaded.model)\n"
        "del loaded\n"
        "gc.collect()\n"
        "assert gone() is None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
