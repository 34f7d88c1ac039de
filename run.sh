#!/usr/bin/env bash
# The one bootstrap: makes .venv on the first run, installs into it what requirements.txt and pyproject.toml ask for
# (again only when they changed), and then becomes the command it was given. Works with bash 3.2 (macOS) and later.
set -u

usage() {
  cat <<'TEXT'
usage: ./run.sh SCRIPT [ARG...]      ./run.sh scripts/run_once.py "Hello"
       ./run.sh -m MODULE [ARG...]   ./run.sh -m pytest
       ./run.sh COMMAND [ARG...]     ./run.sh llm-local config

Runs a script, a module or a command of llm-local's own Python environment (.venv), which is made on the first run.
A script is looked up from the current directory, then from the project's.
PYTHON=/path/to/python3.11 chooses the Python that .venv is made with (3.11 or newer).
TEXT
}

say() { printf 'run.sh: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# The project's folder, also when run.sh is called through a symbolic link.
find_root() {
  local source=${BASH_SOURCE[0]} folder
  while [ -L "$source" ]; do
    folder=$(cd -P -- "$(dirname -- "$source")" && pwd) || return 1
    source=$(readlink -- "$source") || return 1
    case $source in /*) ;; *) source=$folder/$source ;; esac
  done
  case $source in */*) folder=${source%/*} ;; *) folder=. ;; esac
  CDPATH='' cd -P -- "${folder:-/}" && pwd
}

root=$(find_root) || die "cannot find the project's folder."
venv=$root/.venv
stamps=$venv/.installed # copies of what was installed; each is written only after its installation succeeded
inputs="requirements.txt pyproject.toml"

# True when $1 was installed as it is now. Builtins only: this runs before every command.
is_current() { [ -f "$stamps/$1" ] && [ "$(<"$stamps/$1")" = "$(<"$root/$1")" ]; }

# True when everything is installed, and was installed here: the environment holds absolute paths, so a moved
# checkout has to be linked again.
is_ready() {
  local input made_at=''
  [ -x "$venv/bin/python" ] && [ -f "$stamps/root" ] || return 1
  IFS= read -r made_at <"$stamps/root"
  [ "$made_at" = "$root" ] || return 1
  for input in $inputs; do is_current "$input" || return 1; done
}

# Exit status of a candidate: 0 usable, 3 too old, 4 has no venv or ensurepip, anything else: does not run.
probe() {
  "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(3)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(4)' >/dev/null 2>&1
}

# Prints the Python to make .venv with, or dies with the one thing to do.
find_python() {
  local candidate status too_old='' incomplete=''
  if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3 python; fi
  for candidate; do
    command -v -- "$candidate" >/dev/null || continue
    probe "$candidate"
    status=$?
    case $status in
      0) printf '%s\n' "$candidate" && return ;;
      3) too_old=${too_old:-$candidate} ;;
      4) incomplete=${incomplete:-$candidate} ;;
    esac
  done
  [ -z "$incomplete" ] ||
    die "$incomplete has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and run this again."
  [ -z "$too_old" ] ||
    die "llm-local needs Python 3.11 or newer, but $too_old is $("$too_old" -V 2>&1); install one or set PYTHON to it."
  die "no Python found${PYTHON:+ at PYTHON=$PYTHON}; install Python 3.11 or newer, or set PYTHON to where it is."
}

# Holds the lock on file descriptor 9 until that is closed. The kernel drops it when its last holder dies, so there
# is no stale lock to clean up, and a pip that outlives a killed run.sh still keeps others away.
lock() {
  exec 9>"$root/.venv.lock" || die "cannot write in $root."
  "$1" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("run.sh: another terminal is installing; waiting for it", file=sys.stderr, flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)' || exit
}

has_pip() { "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

# pip talks on stderr: in full to a person, errors only to a log.
run_pip() {
  local quiet=''
  [ -t 2 ] || quiet=--quiet
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input ${quiet:+"$quiet"} "$@" >&2
}

# $1 an input file, $2... what pip installs for it. The copy is taken first, so that an edit made while pip runs is
# seen by the next run.
install_input() {
  local input=$1
  shift
  is_current "$input" && return
  say "installing $input"
  cp -- "$root/$input" "$stamps/$input.new" || die "cannot write in $stamps."
  run_pip "$@" || die "$input could not be installed, see above; run the same command again to retry."
  mv -- "$stamps/$input.new" "$stamps/$input"
}

# So that no run has to wait for it. Everything works without them, only slower.
build_kernels() {
  "$venv/bin/python" -m llm_local.kernels.build >/dev/null || say "continuing without native kernels"
}

bootstrap() {
  local python=$venv/bin/python made_at=''
  trap 'exit 130' INT # pip turns Ctrl-C into an ordinary failure
  has_pip || { python=$(find_python) || exit; }
  lock "$python"
  is_ready && return # somebody else did it while we waited
  if ! has_pip; then
    say "making the environment .venv with $python; the first run downloads torch and takes a few minutes"
    # What is there may be half-made, or its Python may be gone.
    "$python" -m venv --clear "$venv" >&2 || die "cannot make $venv, see above."
  fi
  probe "$venv/bin/python"
  [ $? != 3 ] || die "the Python in $venv is older than 3.11; delete that folder and run this again."
  mkdir -p "$stamps" || die "cannot write in $venv."
  [ -f "$stamps/root" ] && IFS= read -r made_at <"$stamps/root"
  [ "$made_at" = "$root" ] || rm -f -- "$stamps/pyproject.toml"
  install_input requirements.txt -r "$root/requirements.txt"
  install_input pyproject.toml --no-deps --no-build-isolation -e "$root"
  build_kernels
  printf '%s\n' "$root" >"$stamps/root"
}

case ${1-} in
  '') usage >&2 && exit 2 ;;
  -h | --help) usage && exit 0 ;;
esac

# The installation must not read what is piped to the command, nor leave it the lock.
is_ready || { bootstrap </dev/null && exec 9>&-; } || exit

# An option of Python (-m, -c, -) or a script that is where it says goes to Python as it is.
case $1 in
  -*) ;;
  *)
    if [ ! -e "$1" ] || { [ -d "$1" ] && [ -x "$venv/bin/$1" ]; }; then
      if [ -f "$root/$1" ]; then
        script=$root/$1
        shift
        set -- "$script" "$@"
      elif [ -x "$venv/bin/$1" ]; then
        command=$venv/bin/$1
        shift
        exec "$command" "$@"
      fi
    fi
    ;;
esac
exec "$venv/bin/python" "$@"
