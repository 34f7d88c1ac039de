"""run.sh, the one bootstrap, in a copy of its own with a stand-in for Python that installs nothing but writes it down.

The stand-in is a shell script: `-m venv` makes a folder with itself in it, `-m pip` appends to a log and does what
the file `pip-does` says, and everything else goes to the real Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STAND_IN = f"""#!/usr/bin/env bash
home=$FAKE_HOME
case "$1 $2" in
  "-m venv")
    echo "venv $*" >> "$home/log"
    for folder; do :; done
    rm -rf "$folder" && mkdir -p "$folder/bin" && cp "$home/python" "$folder/bin/python" ;;
  "-m pip")
    [ "$3" = --version ] && exit 0
    echo "$*" >> "$home/log"
    cat > "$home/stdin"
    echo "pip said this"
    if [ -f "$home/pip-does" ]; then source "$home/pip-does"; fi ;;
  *) exec {sys.executable!r} "$@" ;;
esac
"""


@dataclass
class Checkout:
    """A folder with run.sh and what it installs, and the stand-in beside it."""

    root: Path
    home: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self, **changes: str) -> dict[str, str]:
        """What run.sh sees: a stand-in as `PYTHON`, and nothing of ours but the search path."""
        wanted = {
            "PATH": os.environ["PATH"],
            "FAKE_HOME": str(self.home),
            "PYTHON": str(self.home / "python"),
        }
        return {**wanted, **changes}

    def start(self, *arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        """Start run.sh in the background, from the checkout or from `cwd`."""
        process = subprocess.Popen(
            [str(self.root / "run.sh"), *arguments],
            cwd=cwd or self.root,
            env=self.environment(**environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, cwd: Path | None = None, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run run.sh to its end."""
        process = self.start(*arguments, cwd=cwd, **environ)
        stdout, stderr = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def pip_does(self, script: str) -> None:
        """What the stand-in's pip does besides writing itself down; shell."""
        (self.home / "pip-does").write_text(script, encoding="utf-8")

    def installations(self) -> list[str]:
        """What was installed, in order: `venv`, `requirements`, `project`."""
        log = self.home / "log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [
            "venv" if line.startswith("venv") else "requirements" if " -r " in line else "project"
            for line in lines
        ]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    root = tmp_path / "a check out"
    home = tmp_path / "stand in"
    root.mkdir()
    home.mkdir()
    shutil.copy(ROOT / "run.sh", root)
    (root / "requirements.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    (root / "pyproject.toml").write_text('[project]\nname = "x"\n', encoding="utf-8")
    (home / "python").write_text(STAND_IN, encoding="utf-8")
    (home / "python").chmod(0o755)
    made = Checkout(root, home)
    yield made
    for process in made.started:  # what a failed test left running
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


EVERYTHING = ["venv", "requirements", "project"]


def test_it_installs_once_and_is_silent_from_then_on(checkout: Checkout) -> None:
    first = checkout.run("-c", "print('hello')")
    assert (first.returncode, first.stdout) == (0, "hello\n")
    assert "pip said this" in first.stderr
    assert checkout.installations() == EVERYTHING
    second = checkout.run("-c", "print('hello')")
    assert (second.returncode, second.stdout, second.stderr) == (0, "hello\n", "")
    assert checkout.installations() == EVERYTHING


def test_changed_requirements_are_installed_again(checkout: Checkout) -> None:
    checkout.run("-c", "")
    (checkout.root / "requirements.txt").write_text("torch==2.14.0\n", encoding="utf-8")
    assert checkout.run("-c", "").returncode == 0
    assert checkout.installations() == [*EVERYTHING, "requirements"]
    # A new date on the same words is no change.
    os.utime(checkout.root / "requirements.txt", (1, 1))
    checkout.run("-c", "")
    assert checkout.installations() == [*EVERYTHING, "requirements"]


def test_a_changed_project_file_links_the_project_again_only(checkout: Checkout) -> None:
    checkout.run("-c", "")
    (checkout.root / "pyproject.toml").write_text('[project]\nname = "y"\n', encoding="utf-8")
    checkout.run("-c", "")
    assert checkout.installations() == [*EVERYTHING, "project"]


def test_an_edit_while_pip_runs_is_installed_by_the_next_run(checkout: Checkout) -> None:
    checkout.pip_does(f"echo '# edited' >> '{checkout.root}/requirements.txt'; rm '{checkout.home}/pip-does'")
    assert checkout.run("-c", "").returncode == 0
    checkout.run("-c", "")
    assert checkout.installations() == [*EVERYTHING, "requirements"]


def test_a_moved_checkout_is_linked_again(checkout: Checkout) -> None:
    checkout.run("-c", "")
    checkout.root = checkout.root.rename(checkout.root.parent / "elsewhere")
    assert checkout.run("-c", "print(1)").stdout == "1\n"
    assert checkout.installations() == [*EVERYTHING, "project"]


def test_a_failed_installation_is_one_line_and_is_retried(checkout: Checkout) -> None:
    checkout.pip_does("echo 'no such package' >&2; exit 1")
    failed = checkout.run("-c", "print('ran')")
    assert (failed.returncode, failed.stdout) == (1, "")
    errors = [line for line in failed.stderr.splitlines() if line.startswith("run.sh: error:")]
    assert len(errors) == 1
    assert "requirements.txt could not be installed" in errors[0]
    checkout.pip_does("")
    assert checkout.run("-c", "print('ran')").stdout == "ran\n"
    assert checkout.installations() == ["venv", "requirements", "requirements", "project"]


def test_a_killed_installation_is_not_taken_for_a_finished_one(checkout: Checkout) -> None:
    checkout.pip_does(f"touch '{checkout.home}/started'; sleep 60")
    process = checkout.start("-c", "")
    _wait_for(checkout.home / "started")
    os.killpg(process.pid, signal.SIGKILL)  # the whole terminal dies: run.sh and its pip
    process.communicate(timeout=10)
    checkout.pip_does("")
    assert checkout.run("-c", "print('ran')").stdout == "ran\n"
    assert checkout.installations() == ["venv", "requirements", "requirements", "project"]


def test_ctrl_c_while_installing_ends_with_130(checkout: Checkout) -> None:
    checkout.pip_does(f"trap 'exit 1' INT; touch '{checkout.home}/started'; while :; do sleep 0.1; done")
    process = checkout.start("-c", "print('ran')")
    _wait_for(checkout.home / "started")
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=10)
    assert (process.returncode, stdout) == (130, "")


def test_two_terminals_install_once(checkout: Checkout) -> None:
    checkout.pip_does(
        f"touch '{checkout.home}/started'; while [ ! -f '{checkout.home}/go' ]; do sleep 0.05; done"
    )
    first = checkout.start("-c", "print('first')")
    _wait_for(checkout.home / "started")
    second = checkout.start("-c", "print('second')")
    assert second.stderr is not None
    assert "another terminal is installing" in second.stderr.readline()
    (checkout.home / "go").touch()
    assert first.communicate(timeout=30)[0] == "first\n"
    stdout, stderr = second.communicate(timeout=30)
    assert (second.returncode, stdout, stderr) == (0, "second\n", "")
    assert checkout.installations() == EVERYTHING


def test_a_waiting_terminal_takes_over_from_a_killed_one(checkout: Checkout) -> None:
    checkout.pip_does(f"touch '{checkout.home}/started'; sleep 60")
    first = checkout.start("-c", "")
    _wait_for(checkout.home / "started")
    second = checkout.start("-c", "print('second')")
    assert second.stderr is not None
    assert "another terminal is installing" in second.stderr.readline()
    checkout.pip_does("")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=10)
    assert second.communicate(timeout=30)[0] == "second\n"
    assert checkout.installations() == ["venv", "requirements", "requirements", "project"]


def test_many_terminals_at_once(checkout: Checkout) -> None:
    processes = [checkout.start("-c", f"print({number})") for number in range(6)]
    results = [process.communicate(timeout=60)[0] for process in processes]
    assert results == [f"{number}\n" for number in range(6)]
    assert checkout.installations() == EVERYTHING


def test_the_command_does_not_inherit_the_lock(checkout: Checkout) -> None:
    listed = "import os; print(sorted(int(n) for n in os.listdir('/dev/fd'))[:4])"
    # The fourth is the listing itself.
    assert checkout.run("-c", listed).stdout == "[0, 1, 2, 3]\n"


def test_an_environment_whose_python_is_gone_is_made_again(checkout: Checkout) -> None:
    checkout.run("-c", "")
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert checkout.run("-c", "print(1)").stdout == "1\n"
    assert checkout.installations() == EVERYTHING * 2


def test_what_is_piped_in_reaches_the_command_not_the_installation(checkout: Checkout) -> None:
    done = checkout.run("-c", "import sys; print(sys.stdin.read())", stdin="a diff")
    assert done.stdout == "a diff\n"
    assert (checkout.home / "stdin").read_text(encoding="utf-8") == ""


def test_exit_status_arguments_and_signals_pass_through(checkout: Checkout) -> None:
    assert checkout.run("-c", "raise SystemExit(42)").returncode == 42
    spoken = checkout.run("-c", "import sys; print(sys.argv[1:])", "two words", "", "*", "$HOME", "--help")
    assert spoken.stdout == "['two words', '', '*', '$HOME', '--help']\n"
    process = checkout.start("-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid  # it became the command: no shell in between
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


def test_a_script_is_found_from_here_then_in_the_project(checkout: Checkout, tmp_path: Path) -> None:
    here = tmp_path / "somewhere else"
    for folder, word in (
        (here, "here"),
        (checkout.root / "scripts", "project"),
        (here / "scripts", "nearest"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / "x.py").write_text(f"import os; print({word!r}, os.getcwd())", encoding="utf-8")
    assert checkout.run("x.py", cwd=here).stdout == f"here {here}\n"
    assert checkout.run("scripts/x.py", cwd=here).stdout == f"nearest {here}\n"
    (here / "scripts" / "x.py").unlink()
    assert checkout.run("scripts/x.py", cwd=here).stdout == f"project {here}\n"
    assert checkout.run(str(checkout.root / "scripts" / "x.py"), cwd=here).stdout == f"project {here}\n"
    missing = checkout.run("scripts/none.py", cwd=here)
    assert missing.returncode == 2
    assert "none.py" in missing.stderr


def test_a_command_of_the_environment_is_found_last(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("-c", "")
    command = checkout.root / ".venv" / "bin" / "llm-local"
    command.write_text('#!/bin/sh\necho "llm-local $*"\n', encoding="utf-8")
    command.chmod(0o755)
    assert checkout.run("llm-local", "config", "a b").stdout == "llm-local config a b\n"
    (tmp_path / "llm-local").mkdir()  # the usual name of a checkout must not hide it
    assert checkout.run("llm-local", "config", cwd=tmp_path).stdout == "llm-local config\n"


def test_it_works_through_symbolic_links(checkout: Checkout, tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "llm").symlink_to(checkout.root / "run.sh")
    (tmp_path / "again").symlink_to("bin/llm")
    done = subprocess.run(
        [tmp_path / "again", "-c", "print('linked')"],
        cwd=bin_folder,
        env=checkout.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "linked\n", done.stderr
    assert (checkout.root / ".venv").is_dir()
    assert not (bin_folder / ".venv").exists()


@pytest.mark.parametrize("arguments", [(), ("",)])
def test_without_a_command_it_prints_its_usage_and_installs_nothing(
    checkout: Checkout, arguments: tuple[str, ...]
) -> None:
    done = checkout.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ./run.sh")
    assert checkout.installations() == []


def test_help_is_for_run_sh_itself(checkout: Checkout) -> None:
    done = checkout.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ./run.sh")


def _one_line_failure(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("run.sh: error: ")
    return lines[0]


def _fake_python(path: Path, *, probe_status: int, version: str = "Python 3.9.18") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && echo "{version}" && exit\nexit {probe_status}\n', encoding="utf-8"
    )
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old_is_named(checkout: Checkout, tmp_path: Path) -> None:
    old = _fake_python(tmp_path / "old" / "python3", probe_status=3)
    line = _one_line_failure(checkout.run("-c", "", PYTHON=old))
    assert "needs Python 3.11 or newer" in line
    assert "3.9.18" in line
    assert not (checkout.root / ".venv").exists()


def test_a_python_without_venv_is_told_how_to_get_it(checkout: Checkout, tmp_path: Path) -> None:
    bare = _fake_python(tmp_path / "bare" / "python3", probe_status=4)
    line = _one_line_failure(checkout.run("-c", "", PYTHON=bare))
    assert "apt install python3-venv" in line
    assert not (checkout.root / ".venv").exists()


def test_no_python_at_all(checkout: Checkout) -> None:
    line = _one_line_failure(checkout.run("-c", "", PYTHON="/nowhere/python3"))
    assert "no Python found at PYTHON=/nowhere/python3" in line


def test_the_probe_tells_a_real_old_python_and_a_missing_module() -> None:
    probe = (
        (ROOT / "run.sh").read_text(encoding="utf-8").partition('"$1" -c \'')[2].partition("' >/dev/null")[0]
    )
    assert "version_info" in probe
    pretend_old = f"import sys; sys.version_info = (3, 10)\n{probe}"
    pretend_bare = f"import sys; sys.modules['ensurepip'] = None\n{probe}"
    for code, status in ((probe, 0), (pretend_old, 3), (pretend_bare, 4)):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status


def test_the_first_python_that_serves_is_taken_from_the_path(checkout: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "on the path"
    _fake_python(
        folder / "python3.13", probe_status=127
    )  # a version manager's stub for a version that is not there
    _fake_python(folder / "python3.12", probe_status=4)
    _fake_python(folder / "python3.11", probe_status=3)
    shutil.copy(checkout.home / "python", folder / "python3")
    done = checkout.run("-c", "print(1)", PYTHON="", PATH=f"{folder}:/usr/bin:/bin")
    assert done.stdout == "1\n", done.stderr
    assert "with python3;" in done.stderr


def test_a_real_environment(tmp_path: Path) -> None:
    """The whole way once with the real Python, venv, pip and build backend interface, but without a download."""
    root = tmp_path / "real"
    (root / "src" / "llm_local").mkdir(parents=True)
    (root / "src" / "llm_local" / "__init__.py").write_text("", encoding="utf-8")
    shutil.copy(ROOT / "run.sh", root)
    (root / "requirements.txt").write_text("# nothing\n", encoding="utf-8")
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n', encoding="utf-8"
    )
    (root / "backend.py").write_text(_BACKEND, encoding="utf-8")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
    }
    for expected in ("run.sh: installing", ""):
        done = subprocess.run(
            [root / "run.sh", "-c", "import llm_local, sys; print(llm_local.__file__, sys.prefix)"],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{root / 'src/llm_local/__init__.py'} {root / '.venv'}\n", done.stderr
        assert expected in done.stderr
        assert bool(expected) == bool(done.stderr)


# The smallest build backend that can link a project: a wheel with one .pth line.
_BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "llm_local-0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("_llm_local.pth", str(pathlib.Path("src").resolve()))
        wheel.writestr("llm_local-0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: llm-local\\nVersion: 0\\n")
        wheel.writestr("llm_local-0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("llm_local-0.dist-info/RECORD", "")
    return name
"""


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("chat.sh", ["-m", "llm_local.chat_cli"]),
        ("chat-rich.sh", ["-m", "llm_local.chat_cli_rich"]),
        ("api.sh", ["llm-local", "serve"]),
    ],
)
def test_a_launcher_hands_its_door_and_all_words_to_run_sh(
    tmp_path: Path, launcher: str, words: list[str]
) -> None:
    shutil.copy(ROOT / launcher, tmp_path)
    run_sh = tmp_path / "run.sh"
    run_sh.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    run_sh.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(tmp_path / launcher)
    done = subprocess.run(
        [link, "--flag", "two words"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [*words, "--flag", "two words"]
    if words[0] == "-m":
        assert (ROOT / "src" / f"{words[1].replace('.', '/')}.py").is_file()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
