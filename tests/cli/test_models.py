"""The verbs about models on this machine, as people, pipes and scripts meet them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gguf_files import small_gguf
from hub_cache import add_model, everything_under, model_files
from llm_local.cli.main import VERBS, find_verb
from llm_local.locks import locked
from llm_local.store.library import starter_folder
from llm_local.store.snapshots import RepoCache, cache_folder

SOURCE = Path(__file__).resolve().parents[2] / "src"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command line in a process of its own, in the temporary home."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", *arguments],
        env=environ, cwd=options.pop("cwd", os.environ["HOME"]), text=True, check=False, timeout=60, **options,
    )  # fmt: skip


def on_terminal(*arguments: str) -> str:
    ours, theirs = pty.openpty()
    try:
        run(*arguments, stdout=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # Linux says EIO where the other end of a terminal is closed
            pass
    finally:
        os.close(ours)
    return shown.decode()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_words_of_others_are_understood() -> None:
    for word, verb in (
        ("ls", "list"),
        ("info", "show"),
        ("remove", "rm"),
        ("copy", "cp"),
        ("get", "pull"),
        ("download", "pull"),
    ):
        assert find_verb(word) == verb
    assert run("ls", "-q").stdout == "starter\n"


def test_a_pipe_gets_a_line_for_each_model_with_tabs_between() -> None:
    add_model("org/model")
    done = run("list")
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["starter", "org/model"]
    size = sum(map(len, model_files().values()))
    assert lines[1][1:6] == [str(size), "LlamaForCausalLM", "safetensors", "none", "5"]
    assert lines[1][7:] == ["complete", ""]


def test_a_terminal_gets_a_table() -> None:
    add_model("org/model")
    lines = on_terminal("list").splitlines()
    assert lines[0].split() == "NAME SIZE ARCHITECTURE FORMAT QUANTIZATION FILES MODIFIED NOTE".split()
    assert "just now" in lines[2]
    assert len({line.index("safetensors") for line in lines[1:]}) == 1


def test_json_has_all_and_counts_shared_contents_once() -> None:
    add_model("org/model")
    add_model("org/model", revision="v1")
    run("cp", "org/model", "mine")
    told = json.loads(run("list", "--json").stdout)
    sizes = {one["name"]: one["size_bytes"] for one in told["models"]}
    assert sizes["org/model"] == sizes["org/model@v1"] == sizes["mine"]
    assert told["total_bytes"] == sizes["starter"] + sizes["org/model"]
    assert next(one for one in told["models"] if one["name"] == "mine")["alias_of"] == "org/model"


def test_a_corrupt_model_is_listed_as_such_with_what_to_do() -> None:
    add_model("org/bad", model_files() | {"config.json": b""})
    add_model("org/good")
    told = {one["name"]: one for one in json.loads(run("list", "--json").stdout)["models"]}
    assert (told["org/bad"]["state"], told["org/good"]["state"]) == ("corrupt", "complete")
    assert "`llm-local verify --repair org/bad` or `llm-local rm org/bad`" in told["org/bad"]["note"]
    assert told["org/bad"]["runnable"] is False


def test_what_is_not_whole_is_counted_and_named_when_asked() -> None:
    add_model("org/half", {"config.json": b"{}"})
    done = run("list")
    assert "org/half" not in done.stdout
    assert "1 not here whole" in done.stderr
    assert (
        "incomplete: it is not here whole; `llm-local pull org/half` fetches the rest"
        in run("list", "--all").stdout
    )


def test_show_tells_what_a_model_is() -> None:
    shown = dict(line.split("\t") for line in run("show", "starter").stdout.splitlines())
    assert shown["architecture"] == "Qwen3ForCausalLM"
    assert shown["context length"] == "2048"
    assert shown["vision"] == "no"
    assert shown["file model.safetensors"] == "8.14 MB"
    assert "decided when it is loaded" in shown["runs"]
    told = json.loads(run("show", "starter", "--json").stdout)
    assert told["shape"]["num_layers"] == 6
    assert told["capabilities"]["chat"] is True
    assert {one["name"] for one in told["files"]} >= {"config.json", "model.safetensors"}


def test_show_prints_the_template_whole() -> None:
    expected = (starter_folder() / "chat_template.jinja").read_text()
    assert run("show", "starter", "--template").stdout.rstrip("\n") == expected.rstrip("\n")
    add_model("org/base", model_files() | {"tokenizer_config.json": b"{}"})
    done = run("show", "org/base", "--template")
    assert (done.returncode, done.stdout) == (3, "")


def test_show_of_a_gguf_file_says_that_it_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "m-Q4_K_M.gguf").write_bytes(small_gguf())
    assert run("import", "m-Q4_K_M.gguf", cwd=tmp_path).returncode == 0
    shown = dict(line.split("\t") for line in run("show", "m-Q4_K_M").stdout.splitlines())
    assert (shown["quantization"], shown["runs"]) == ("Q4_K_M", "not yet: GGUF files cannot be run")
    assert "cannot be run yet" in run("list").stdout


def test_show_of_a_damaged_model_tells_the_rest_and_exits_7() -> None:
    add_model("org/bad", model_files() | {"model.safetensors": b"garbage!" * 4})
    done = run("show", "org/bad")
    assert done.returncode == 7
    assert "context length\t4096" in done.stdout
    assert done.stderr.startswith("error: org/bad is damaged: model.safetensors")


def test_show_of_what_is_not_here_whole_says_how_to_fetch_it() -> None:
    add_model("org/half", {"config.json": b"{}"})
    done = run("show", "org/half")
    assert (done.returncode, done.stdout) == (3, "")
    assert "`llm-local pull org/half` fetches it" in done.stderr


def test_a_second_name_is_told_and_holds(tmp_path: Path) -> None:
    add_model("org/model")
    done = run("cp", "org/model", "mine")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("mine is now org/model in every command")
    assert run("list", "-q").stdout == "starter\norg/model\nmine\n"
    assert json.loads(run("show", "mine", "--json").stdout)["alias_of"] == "org/model"


def test_rm_says_what_it_freed() -> None:
    add_model("org/model")
    done = run("rm", "org/model", "--json")
    assert done.returncode == 0
    assert "removed org/model; 16.9 kB freed" in done.stderr
    assert json.loads(done.stdout)[0]["name"] == "org/model"


def test_rm_of_what_is_in_use_exits_8_and_of_nothing_3() -> None:
    add_model("org/model")
    with locked(RepoCache(cache_folder(), "org/model").lock("1" * 64)):
        done = run("rm", "org/model")
    assert (done.returncode, done.stderr.count("\n")) == (8, 1)
    assert run("rm", "org/nothing").returncode == 3
    assert run("rm", "starter").returncode == 2
    assert run("rm").returncode == 2


def test_verify_exits_7_on_damage_and_names_the_file() -> None:
    snapshot = add_model("org/model")
    assert run("verify", "org/model").returncode == 0
    flip(snapshot / "model.safetensors")
    done = run("verify", "org/model")
    assert done.returncode == 7
    assert "org/model\tmodel.safetensors\t" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: org/model is damaged: model.safetensors.")
    told = json.loads(run("verify", "--all", "--json").stdout)
    assert {one["name"]: one["ok"] for one in told} == {"starter": True, "org/model": False}


def test_verify_shows_people_only_what_is_wrong() -> None:
    snapshot = add_model("org/model")
    assert "config.json" not in on_terminal("verify", "org/model")
    flip(snapshot / "config.json")
    lines = on_terminal("verify", "org/model").splitlines()
    assert lines[0].split() == ["MODEL", "FILE", "SIZE", "STATE"]
    assert [line.split()[1] for line in lines[1:]] == ["config.json"]


def test_verify_of_what_cannot_be_verified_is_no_success(tmp_path: Path) -> None:
    for name, data in model_files().items():
        (tmp_path / name).write_bytes(data)
    assert run("verify", str(tmp_path)).returncode == 2
    assert run("verify").returncode == 2
    assert run("verify", "--all", "starter").returncode == 2


@pytest.mark.parametrize("verb", ["show", "rm", "cp", "verify", "import"])
@pytest.mark.parametrize(
    "name", ["../x", "a\x01b", "CON", "/nothing", "org/../x", "-x/y", "%2e%2e", "x" * 5000]
)
def test_hostile_names_are_one_line_and_change_nothing(verb: str, name: str, isolated_home: Path) -> None:
    add_model("org/model")
    before = everything_under(isolated_home)
    done = run(verb, "--", name, *(["new"] if verb == "cp" else []))
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    assert everything_under(isolated_home) == before


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "--json"], ["show", "starter"], ["cp", "starter", "x"], ["rm", "org/model"],
     ["verify", "starter"], ["import", "{starter}", "y"], ["completion", "bash"]],
)  # fmt: skip
def test_no_verb_imports_anything_heavy(arguments: list[str]) -> None:
    add_model("org/model")
    program = (
        "import sys; from llm_local.cli.main import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'huggingface_hub', 'numpy', 'asyncio', 'rich', 'httpx2'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or code)"
    )
    words = [word.format(starter=starter_folder()) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=os.environ["HOME"], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- completion ---


def complete(line: str) -> list[str]:
    """What bash offers after `line`."""
    script = run("completion", "bash").stdout
    driver = """
    llm-local() { "$PYTHON" -m llm_local.cli.main "$@"; }
    COMP_LINE=$LINE; COMP_POINT=${#LINE}
    read -ra COMP_WORDS <<<"$LINE"
    case $LINE in *' ') COMP_WORDS+=('') ;; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _llm_local llm-local "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHON": sys.executable, "LINE": line}
    done = subprocess.run(
        ["bash", "-c", script + driver], env=environ, cwd=os.environ["HOME"], capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs_flags_and_names(tmp_path: Path) -> None:
    add_model("org/model")
    assert set(complete("llm-local ")) >= set(VERBS) | {"ls"}
    assert complete("llm-local ver") == ["verify", "version"]
    assert complete("llm-local rm ") == ["starter", "org/model"]
    assert complete("llm-local rm --force org/") == ["org/model"]
    assert complete("llm-local info --t") == ["--template"]
    assert complete("llm-local bench --model st") == ["starter"]
    assert complete("llm-local import ") == []  # then bash offers files


def test_the_name_of_a_file_is_never_run_by_the_shell() -> None:
    add_model("org/gg", {"$(touch pwned)`touch pwned`;touch pwned-Q4_K_M.gguf": small_gguf()})
    assert any("pwned" in word for word in complete("llm-local rm org/"))
    assert not (Path(os.environ["HOME"]) / "pwned").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_and_flag_is_in_every_script(shell: str) -> None:
    script = run("completion", shell).stdout
    for name, flags in json.loads(run("completion", shell, "--json").stdout).items():
        assert name in script
        assert all((flag if shell != "fish" else flag.lstrip("-")) in script for flag in flags)


def test_an_unknown_shell_is_a_usage_mistake() -> None:
    assert run("completion", "csh").returncode == 2
