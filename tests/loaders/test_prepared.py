"""The second start of a model needs no transformers, says the same, and believes nothing that changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from llm_local.generator import TextGenerator
from llm_local.home import cache_home
from llm_local.loaders import mapped_pages, packed_file, prepared
from llm_local.loaders.decoder_image import DecoderImage, Span
from llm_local.loaders.mapped_pages import map_file, mapped_spans
from llm_local.loaders.packed_cache import PackedCache
from llm_local.messages import Message
from llm_local.model_loader import LoadedModel, load_tokenizer_and_model, resolve_model
from llm_local.options import Constraint, GenerationOptions
from llm_local.specs import ModelSpec
from tiny_checkpoints import edit_json, save_checkpoint

GREEDY = GenerationOptions(temperature=0, max_new_tokens=24)
STARTER = ModelSpec("starter")


def start(spec: ModelSpec, path: Path | None = None) -> LoadedModel:
    """One start as the doors do it: load, and make an engine."""
    loaded = load_tokenizer_and_model(spec, path=path or resolve_model(spec, explicit=True).path, quick=True)
    TextGenerator(loaded)
    return loaded


def is_quick(loaded: LoadedModel) -> bool:
    """True when nothing of transformers is in it."""
    return isinstance(loaded.model, DecoderImage)


def reply(loaded: LoadedModel, **changes: object) -> object:
    """A greedy answer, its counts included."""
    generator = TextGenerator(loaded)
    found = generator.generate_chat([Message("user", "Who are you?")], GREEDY.replace(**changes))
    return found.text, found.finish_reason, found.usage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama of bfloat16 on the disk."""
    folder = save_checkpoint(tmp_path / "model")
    weights = folder / "model.safetensors"
    save_file({name: one.bfloat16() for name, one in load_file(weights).items()}, weights, {"format": "pt"})
    edit_json(folder / "config.json", dtype="bfloat16")
    return folder


@pytest.mark.parametrize("quantization", ["auto", "int8", "int4"])
def test_the_second_start_is_quick_and_says_the_same(quantization: str) -> None:
    spec = replace(STARTER, quantization=quantization)
    first, second = start(spec), start(spec)
    assert (is_quick(first), is_quick(second)) == (False, True)
    assert second.info == first.info
    assert (second.end_token_ids, second.generation_defaults) == (
        first.end_token_ids,
        first.generation_defaults,
    )
    assert second.notices == first.notices
    assert reply(second) == reply(first)
    choice = Constraint("choice", ("yes", "no"))
    assert reply(second, constraint=choice) == reply(first, constraint=choice)
    assert TextGenerator(second).runs_as == TextGenerator(first).runs_as


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_weights_stay_in_the_files_of_the_model(folder: Path, dtype: str) -> None:
    spec = ModelSpec(str(folder), dtype=dtype, quantization="none")
    first, second = start(spec), start(spec)
    assert is_quick(second) and second.info == first.info
    assert reply(second) == reply(first)


def test_who_asks_for_the_model_itself_gets_it() -> None:
    start(STARTER)
    loaded = load_tokenizer_and_model(STARTER)
    assert not is_quick(loaded)
    assert hasattr(loaded.model, "generate")


@pytest.mark.parametrize(
    "spec",
    [
        replace(STARTER, packed_cache_bytes=0),
        replace(STARTER, kernels="off"),
        replace(STARTER, kernels="linears"),
        replace(STARTER, packed_cache_bytes=1 << 20),  # less than a start of this model takes
    ],
    ids=["nothing kept", "no kernels", "no native step", "no room"],
)
def test_where_a_start_cannot_be_kept_every_one_goes_through_transformers(spec: ModelSpec) -> None:
    assert not is_quick(start(spec)) and not is_quick(start(spec))


def test_a_model_outside_the_families_goes_through_transformers(tmp_path: Path) -> None:
    spec = ModelSpec(str(save_checkpoint(tmp_path / "model", "gpt2")))
    assert not is_quick(start(spec)) and not is_quick(start(spec))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_json(folder / "config.json", rms_norm_eps=1e-3),
        lambda folder: edit_json(
            folder / "tokenizer_config.json", chat_template="{{ messages[0].content }}!"
        ),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}?"),
        lambda folder: os.utime(folder / "model.safetensors", (1, 1)),
        lambda folder: edit_json(folder / "generation_config.json", temperature=0.5),
        lambda folder: (folder / "additional_chat_templates/tool_use.jinja").write_text("other"),
        lambda folder: (folder / "additional_chat_templates/plain.jinja").write_text("new"),
    ],
    ids=["config", "tokenizer", "template", "weights", "generation", "one of several", "one more"],
)
def test_a_changed_file_makes_the_kept_start_a_stranger(folder: Path, change: object) -> None:
    (folder / "generation_config.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("tools")
    spec = ModelSpec(str(folder))
    start(spec)
    change(folder)
    assert not is_quick(start(spec))
    assert is_quick(start(spec))


def test_a_renamed_link_to_the_same_contents_makes_it_a_stranger_too(folder: Path) -> None:
    """As in the hub's cache, where a file is named by its contents and links to it by what it is for."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in [*folder.iterdir()]:
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    template = folder / "chat_template.jinja"
    assert template.is_symlink()
    spec = ModelSpec(str(folder))
    start(spec)
    template.rename(folder / "chat_template.jinja.off")
    assert start(spec).tokenizer.chat_template is None


def test_other_code_of_ours_makes_it_a_stranger_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start(STARTER)
    monkeypatch.setattr(prepared, "_code_digest", lambda: "other")
    assert not is_quick(start(STARTER))


def test_another_version_of_a_library_makes_it_a_stranger_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start(STARTER)
    monkeypatch.setattr(prepared.importlib.metadata, "version", lambda name: "other")
    assert not is_quick(start(STARTER))


@pytest.mark.parametrize("which", ["start-*.pack", "int8-*.pack"])
def test_a_damaged_or_missing_part_means_a_whole_start(which: str) -> None:
    spec = replace(STARTER, quantization="int8")
    expected = reply(start(spec))
    [path] = (cache_home() / "packed").glob(which)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    again = start(spec)
    assert not is_quick(again) and reply(again) == expected
    assert is_quick(start(spec))
    path.unlink()
    assert not is_quick(start(spec))


def test_nothing_that_fails_while_keeping_harms_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tokenizer: object) -> None:
        raise RuntimeError("a component of its own cannot be written down")

    with monkeypatch.context() as patched:
        patched.setattr(prepared, "saved_state", fail)
        first = start(STARTER)
    expected = reply(first)
    assert is_quick(start(STARTER)) is True  # `reply` made another engine, and that one was kept
    assert reply(start(STARTER)) == expected


def test_what_cannot_be_kept_costs_no_look_at_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(prepared, "saved_state", looked.append)
    start(ModelSpec(str(save_checkpoint(tmp_path / "model", "gpt2"))))
    assert looked == []


def test_a_second_engine_keeps_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = start(STARTER)
    monkeypatch.setattr(prepared, "saved_state", lambda tokenizer: pytest.fail("it is kept already"))
    TextGenerator(loaded)


def test_nobody_waits_for_another_process_that_keeps_a_start() -> None:
    loaded = load_tokenizer_and_model(STARTER, quick=True)
    with PackedCache(cache_home() / "packed", 1 << 30).turn("start"):
        TextGenerator(loaded)
    assert not is_quick(start(STARTER))
    assert is_quick(start(STARTER))


def test_a_start_never_takes_the_room_of_the_weights_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each start would pack the model anew."""
    monkeypatch.setattr(packed_file, "has_large_pages", lambda: True)  # weights in use are not locked
    spec = replace(STARTER, quantization="int8")
    start(spec)
    [weights], [kept] = (list((cache_home() / "packed").glob(f"{one}-*.pack")) for one in ("int8", "start"))
    spec = replace(spec, packed_cache_bytes=weights.stat().st_size + 10_000)
    kept.unlink()
    inode = weights.stat().st_ino
    for _ in range(2):
        assert not is_quick(start(spec))
        assert weights.stat().st_ino == inode


def test_starts_leave_one_lock_file_however_many_there_are(folder: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        start(ModelSpec(str(folder), dtype=dtype, quantization="none"))
    assert [path.name for path in (cache_home() / "packed").glob("*.lock")] == ["start.lock"]


def test_a_draft_model_starts_quickly_too(folder: Path) -> None:
    spec = ModelSpec(str(folder))
    answers = []
    for _ in range(2):
        loaded, draft = (load_tokenizer_and_model(spec, quick=True) for _ in range(2))
        generator = TextGenerator(loaded, draft=draft)
        answers.append(generator.generate_text("Hello", GREEDY).text)
    assert is_quick(draft) and answers[0] == answers[1]


def test_a_model_that_only_drafts_is_kept(folder: Path, tmp_path: Path) -> None:
    large = folder.rename(tmp_path / "large")
    small = save_checkpoint(tmp_path / "small")
    for expected in (False, True):
        draft = load_tokenizer_and_model(ModelSpec(str(small)), quick=True)
        TextGenerator(load_tokenizer_and_model(ModelSpec(str(large)), quick=True), draft=draft)
        assert is_quick(draft) is expected


def test_a_quick_start_imports_no_transformers(tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, json\n"
        "from llm_local.config import load_config\n"
        "from llm_local.messages import Message\n"
        "from llm_local.terminal.asking import open_model\n"
        "model = open_model(load_config({'model_id': 'starter', 'max_new_tokens': '8'}), lambda event: None)\n"
        "text = model.generator.generate_chat([Message('user', 'Hello')]).text\n"
        "heavy = [name for name in ('transformers', 'accelerate') if name in sys.modules]\n"
        "print(json.dumps([heavy, bool(text)]))\n"
    )
    said = [
        subprocess.run([sys.executable, script], capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    heavy, answered = json.loads(said[1])
    assert "transformers" in json.loads(said[0])[0]
    assert answered
    assert heavy == []


def test_a_mapping_that_was_written_to_is_not_the_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(8192))
    tensor, changed = map_file(path), map_file(path)
    _ = int(tensor.sum()) + int(changed.sum())
    changed[5000] = 1
    [span] = mapped_spans([tmp_path / "other", path])
    assert (span.begin, span.region, span.offset) == (tensor.data_ptr(), 1, 0)
    assert path.read_bytes() == bytes(8192)


def test_the_figures_of_memory_without_a_file_say_nothing_about_the_mapping_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    listing = tmp_path / "smaps"
    listing.write_text(
        f"7f0000000000-7f0000002000 rw-p 00000000 fe:00 12    {weights}\nAnonymous:             4 kB\n"
        "7f0000002000-7f0000003000 ---p 00000000 00:00 0 \nAnonymous:             0 kB\n"
        f"7f0000004000-7f0000006000 rw-p 00001000 fe:00 12    {weights}\nAnonymous:             0 kB\n"
    )
    monkeypatch.setattr(mapped_pages, "_MAPS", listing)
    assert mapped_spans([weights]) == [Span(0x7F0000004000, 0x2000, 0, 0x1000)]
