"""Plug-ins are found without being imported, and imported only when they are allowed."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llm_local.errors import ConfigError, InvalidRequest, PluginFailed
from llm_local.loaders.plugged import check_plugin as check_loader
from llm_local.loaders.plugged import claim_of
from llm_local.model_loader import load_tokenizer_and_model
from llm_local.plugins import (
    LOADERS,
    TOOL_FORMATS,
    TOOLS,
    allow_plugins,
    find_plugins,
    load_plugin,
    load_plugins,
    trusted_path,
)
from llm_local.specs import ModelSpec
from llm_local.text.tool_formats import generic
from llm_local.text.tool_formats.registry import FORMATS, find_format
from llm_local.tools.plugin_tools import plugin_tools
from llm_local.tools.tool import Tool
from plugin_packages import install, installed
from tiny_checkpoints import save_checkpoint
from tiny_models import tiny_model

ACME = {
    "acme_tools": '''
from llm_local.messages import ToolDefinition
from llm_local.tools.tool import Tool

def shout(text: str) -> str:
    """Say it louder"""
    return text.upper() + "!"

reverse = Tool(ToolDefinition("reverse", "", {"type": "object"}), lambda given: given["text"][::-1], "function")
''',
    "acme_format": """
from llm_local.text.tool_formats.format import ToolFormat
from llm_local.text.tool_formats.json_body import json_body

FORMAT = ToolFormat(
    name="acme", fits=lambda source: "[ACME]" in source, make_body=json_body(), starts=("[ACME]",)
)
""",
    "acme_loader": '''
import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

class _Archives:
    """Weights in one NumPy archive."""

    def claims(self, path):
        return (path / "weights.npz").is_file()

    def load(self, path, spec):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
        with numpy.load(path / "weights.npz") as found:
            model.load_state_dict({name: torch.from_numpy(found[name]) for name in found})
        return AutoTokenizer.from_pretrained(path), model

LOADER = _Archives()
''',
}
OFFERED = {
    TOOLS: {"shout": "acme_tools:shout", "reverse": "acme_tools:reverse"},
    TOOL_FORMATS: {"acme": "acme_format:FORMAT"},
    LOADERS: {"archives": "acme_loader:LOADER"},
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    with installed(folder):
        yield folder


@pytest.fixture
def acme(site: Path) -> Path:
    return install(site, "acme-pack", OFFERED, ACME)


def ours() -> list[tuple[str, str, str]]:
    return [(one.name, one.group, one.fault) for one in find_plugins()]


# --- found, allowed, loaded ---


def test_finding_imports_nothing(acme: Path) -> None:
    assert ours() == [
        ("reverse", TOOLS, ""),
        ("shout", TOOLS, ""),
        ("acme", TOOL_FORMATS, ""),
        ("archives", LOADERS, ""),
    ]
    assert [(one.distribution, one.version) for one in find_plugins(LOADERS)] == [("acme-pack", "1.0")]
    assert not {"acme_tools", "acme_format", "acme_loader"} & set(sys.modules)


def test_nothing_is_loaded_unless_it_is_allowed(acme: Path, tmp_path: Path) -> None:
    folder = save_archive(tmp_path / "model")
    for setting in (None, "", "acme-pack"[:0]):
        allow_plugins(setting)
        assert plugin_tools() == ()
        assert find_format("a [ACME] template") is generic.FORMAT
        assert claim_of(folder) is None
    assert not {"acme_tools", "acme_format", "acme_loader"} & set(sys.modules)
    with pytest.raises(PluginFailed, match=r"plug-in acme of acme-pack 1\.0 is off.*PLUGINS=acme"):
        load_plugin(find_plugins(TOOL_FORMATS)[0], lambda plugin, value: value)


def test_only_what_is_named_is_loaded(acme: Path) -> None:
    allow_plugins(" shout , acme")
    (tool,) = plugin_tools()
    assert (tool.name, tool.source, tool.definition.description) == (
        "shout",
        "plug-in:shout",
        "Say it louder",
    )
    assert tool.run({"text": "hi"}) == "HI!"
    assert find_format("a [ACME] template").name == "acme"
    assert "acme_loader" not in sys.modules


def test_all_are_loaded_where_all_are_allowed(acme: Path) -> None:
    allow_plugins("all")
    assert [(tool.name, tool.source) for tool in plugin_tools()] == [
        ("reverse", "plug-in:reverse"),
        ("shout", "plug-in:shout"),
    ]
    assert [tool.name for tool in plugin_tools(["reverse"])] == ["reverse"]


def test_a_name_that_nobody_offers_is_a_mistake(acme: Path) -> None:
    with pytest.raises(ConfigError, match="PLUGINS names 'archive', 'shouts', which no installed package"):
        allow_plugins("shouts,acme,archive")


def test_a_module_is_imported_once(site: Path) -> None:
    install(
        site,
        "counted",
        {TOOLS: {"one": "counted:one"}},
        {"counted": "def one() -> str:\n    'Count'\n    return ''\n"},
    )
    allow_plugins("all")
    assert plugin_tools() == plugin_tools()
    assert plugin_tools()[0] is plugin_tools()[0]


# --- seams ---


def test_a_format_comes_before_the_generic_one_and_after_the_built_in_ones(acme: Path) -> None:
    allow_plugins("acme")
    assert find_format("nothing known") is generic.FORMAT
    assert find_format("<tool_call> and [ACME]").name == "hermes"
    (body,) = (find_format("[ACME]").make_body([]),)
    assert body.state == "open"


def save_archive(folder: Path) -> Path:
    """A tiny model whose weights lie in a file that llm-local does not read."""
    import numpy

    save_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    numpy.savez(
        folder / "weights.npz",
        **{name: one.numpy() for name, one in tiny_model("llama").state_dict().items()},
    )
    return folder


def test_a_loader_loads_what_llm_local_cannot(acme: Path, tmp_path: Path) -> None:
    folder = save_archive(tmp_path / "model")
    spec = ModelSpec(str(folder), dtype="float32", device="cpu")
    with pytest.raises(Exception, match="safetensors"):
        load_tokenizer_and_model(spec, path=folder)
    allow_plugins("archives")
    loaded = load_tokenizer_and_model(spec, path=folder)
    assert loaded.notices == ("Loaded by the plug-in archives of acme-pack 1.0.",)
    assert (loaded.info.architecture, loaded.info.dtype, loaded.info.quantization) == (
        "LlamaForCausalLM",
        "float32",
        "none",
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        # other tests may have given the shared model other linear layers
        assert torch.allclose(loaded.model(ids).logits, tiny_model("llama")(ids).logits, atol=1e-4)

    from llm_local.generator import TextGenerator
    from llm_local.options import GenerationOptions

    reply = TextGenerator(loaded).generate_text("abc", GenerationOptions(temperature=0, max_new_tokens=5))
    assert reply.usage.completion_tokens == 5


def test_a_loader_leaves_other_folders_to_llm_local(acme: Path, tmp_path: Path) -> None:
    allow_plugins("archives")
    loaded = load_tokenizer_and_model(
        ModelSpec("x", dtype="float32"), path=save_checkpoint(tmp_path / "plain")
    )
    assert not any("plug-in" in notice for notice in loaded.notices)


def test_no_option_is_ignored_by_a_loader(acme: Path, tmp_path: Path) -> None:
    folder = save_archive(tmp_path / "model")
    allow_plugins("archives")
    with pytest.raises(InvalidRequest, match="cannot be packed to int8"):
        load_tokenizer_and_model(ModelSpec("x", quantization="int8"), path=folder)
    with pytest.raises(PluginFailed, match="gave a model of dtype float32, but bfloat16 was asked for"):
        load_tokenizer_and_model(ModelSpec("x", dtype="bfloat16"), path=folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def claims(path): raise OSError('no disk')", "failed: OSError: no disk"),
        ("def claims(path): return True\ndef load(path, spec): 1 / 0", "failed: ZeroDivisionError"),
        ("def claims(path): raise SystemExit(3)", "failed: SystemExit: 3"),
        (
            "class B:\n    def __bool__(self): 1 / 0\ndef claims(path): return B()",
            "failed: ZeroDivisionError",
        ),
        ("def claims(path): return True\ndef load(path, spec): raise SystemExit", "failed: SystemExit"),
        ("def claims(path): return True\ndef load(path, spec): return 5", "gave no tokenizer and model"),
        ("def claims(path): return True\ndef load(path, spec): return 1, 2", "failed: AttributeError"),
        ("claims = 5", "cannot be used: it has no method claims and no method load"),
    ],
)
def test_a_loader_that_fails_is_named(site: Path, tmp_path: Path, source: str, message: str) -> None:
    install(
        site,
        "bad",
        {LOADERS: {"bad": "bad_holder:bad_loader"}},
        {"bad_holder": "import bad_loader", "bad_loader": source},
    )
    if "def load" not in source and "= 5" not in source:
        (site / "bad_loader.py").write_text(source + "\ndef load(path, spec): ...")
    allow_plugins("bad")
    with pytest.raises(PluginFailed, match=f"plug-in bad of bad 1.0 {message}"):
        load_tokenizer_and_model(ModelSpec("x"), path=save_checkpoint(tmp_path / "model"))


def test_two_loaders_that_claim_one_folder_are_both_named(site: Path, tmp_path: Path) -> None:
    greedy = "def claims(path): return True\ndef load(path, spec): ..."
    for name in ("one", "two"):
        install(
            site,
            name,
            {LOADERS: {name: f"holder_{name}:{name}"}},
            {name: greedy, f"holder_{name}": f"import {name}"},
        )
    allow_plugins("all")
    with pytest.raises(PluginFailed, match=r"Both the plug-in one .* and the plug-in two .* claim the model"):
        claim_of(tmp_path)


# --- broken ones ---

BROKEN = [
    ("gone", TOOLS, "no_such_module:f", "", "ModuleNotFoundError: No module named 'no_such_module'"),
    ("bare", TOOLS, "broken:f", "", r"AttributeError: .*has no attribute 'f'"),
    ("syntax", TOOLS, "broken:f", "def f(:", "SyntaxError"),
    ("quits", TOOLS, "broken:f", "raise SystemExit(3)", "SystemExit: 3"),
    ("number", TOOLS, "broken:f", "f = 5", "it is neither a Tool nor a function, but a int"),
    ("untyped", TOOLS, "broken:f", "def f(x): ...", "no type hint"),
    ("odd", TOOL_FORMATS, "broken:f", "f = 'text'", "it is no ToolFormat, but a str"),
    ("klass", LOADERS, "broken:f", "class f: ...", "it is a class"),
    ("target", TOOLS, "broken", "", "its target 'broken' is not `module:name`"),
    ("a b", TOOLS, "broken:f", "", "its name is not 1 to 64 letters"),
]


def ask(group: str) -> None:
    if group == TOOLS:
        plugin_tools()
    elif group == TOOL_FORMATS:
        find_format("nothing known")
    else:
        load_plugins(LOADERS, check_loader)


@pytest.mark.parametrize(("name", "group", "target", "source", "reason"), BROKEN)
def test_a_broken_plug_in_fails_who_asked_for_it_and_nobody_else(
    acme: Path, caplog: pytest.LogCaptureFixture, name: str, group: str, target: str, source: str, reason: str
) -> None:
    install(acme, "bad", {group: {name: target}}, {"broken": source})
    allow_plugins(f"{name},shout")
    with pytest.raises(PluginFailed, match=f"The plug-in {name} of bad 1.0 cannot be used: .*({reason})"):
        ask(group)
    allow_plugins("all")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ask(group)
    assert len([one for one in caplog.messages if f"plug-in {name} of bad" in one]) == 1, (
        "told, and told once"
    )
    assert {"shout", "reverse"} <= {tool.name for tool in plugin_tools()}, "the others go on"


def test_a_name_that_two_packages_offer_is_nobodys(acme: Path) -> None:
    install(acme, "rival", {TOOLS: {"shout": "acme_tools:shout"}}, {})
    faults = [one.fault for one in find_plugins(TOOLS) if one.name == "shout"]
    assert faults == ["2 packages offer this name; uninstall all but one"] * 2
    allow_plugins("shout")
    with pytest.raises(PluginFailed, match="2 packages offer this name"):
        plugin_tools()


def test_a_built_in_format_cannot_be_replaced(site: Path) -> None:
    source = ACME["acme_format"].replace('"acme"', '"hermes"')
    install(site, "thief", {TOOL_FORMATS: {"hermes": "thief:FORMAT"}}, {"thief": source})
    allow_plugins("hermes")
    with pytest.raises(PluginFailed, match="the name 'hermes' is that of a built-in format"):
        find_format("nothing known")
    assert find_format("<tool_call>") is next(one for one in FORMATS if one.name == "hermes")


@pytest.mark.parametrize(("act", "error"), [("1 / 0", "ZeroDivisionError"), ("exit(3)", "SystemExit")])
def test_a_format_that_fails_over_a_template_is_named(site: Path, act: str, error: str) -> None:
    source = ACME["acme_format"].replace('"[ACME]" in source', act)
    install(site, "acme-pack", {TOOL_FORMATS: {"acme": "acme_format:FORMAT"}}, {"acme_format": source})
    allow_plugins("acme")
    with pytest.raises(PluginFailed, match=f"failed in `fits`: {error}"):
        find_format("nothing known")


def test_what_a_plug_in_prints_on_import_is_not_an_answer(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "print('hello')\ndef f() -> str:\n    'F'\n    return ''\n"
    install(site, "loud", {TOOLS: {"f": "loud:f"}}, {"loud": source})
    allow_plugins("f")
    assert [tool.name for tool in plugin_tools()] == ["f"]
    assert capsys.readouterr() == ("", "hello\n")


def test_damaged_metadata_are_passed_over(acme: Path) -> None:
    (acme / "damaged-1.0.dist-info").mkdir()
    (acme / "damaged-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[llm_local.tools]\nx = \xff\xfe\n[broken"
    )
    assert {one.name for one in find_plugins()} == {"shout", "reverse", "acme", "archives"}


# --- the current directory ---


def test_the_current_directory_does_not_count(
    acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(acme) in trusted_path()
    monkeypatch.chdir(acme)
    assert find_plugins() == ()
    assert str(acme) not in trusted_path()
    assert "" not in trusted_path()


def test_a_module_beside_us_does_not_stand_in_for_a_plug_in(
    acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "acme_tools.py").write_text("raise SystemExit('imported from the current directory')")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", str(here), *sys.path])
    allow_plugins("shout")
    (tool,) = plugin_tools()
    assert isinstance(tool, Tool)
    assert sys.path[:2] == ["", str(here)], "and the path is as it was"


@pytest.mark.parametrize("pythonpath", [None, ".", "", "sub/..", "AWAY"])
def test_no_process_finds_plug_ins_where_it_stands(tmp_path: Path, pythonpath: str | None) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    install(here, "acme-pack", OFFERED, ACME)
    source = Path(__file__).resolve().parent.parent / "src"
    given = str(here) if pythonpath == "AWAY" else pythonpath
    paths = [str(source), *([] if given is None else [given])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", "plugins", "--json"],
        cwd=tmp_path if pythonpath == "AWAY" else here,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = {one["name"] for one in json.loads(done.stdout)}
    assert found == ({"shout", "reverse", "acme", "archives"} if pythonpath == "AWAY" else set())


# --- the page ---


def test_the_package_of_the_page_can_be_built_installed_and_used(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", page, re.M | re.S)
    assert [name for name, _ in blocks] == ["pyproject.toml", "src/llm_local_word_count/__init__.py"]
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    with installed(site):
        allow_plugins("word_count")
        (tool,) = plugin_tools()
        assert (tool.name, tool.definition.description) == ("word_count", "Count the words of a text.")
        assert tool.definition.parameters["properties"]["text"] == {
            "type": "string",
            "description": "The text.",
        }
        assert tool.run({"text": "one two three"}) == "3"
