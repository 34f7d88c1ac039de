"""`llm-local completion`: what makes a shell complete verbs, flags and the names of models.

Verbs and flags are written into the script; names are asked for when they are needed. No name is ever expanded by the
shell: a model's file may be called anything.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_local.cli.main import VERBS, verb_parser
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["SHELLS", "add_flags", "run"]

_NAMES: Final = "llm-local list --quiet 2>/dev/null"
# How flags and arguments are called that take the name of a model.
_MODEL_METAVARS: Final = frozenset({"MODEL", "NAME"})


@dataclass(frozen=True, slots=True)
class _Words:
    """What can follow a verb. `help` is of each flag; `model_flags` are followed by the name of a model."""

    words: tuple[str, ...]
    help: str
    flags: Mapping[str, str]
    model_flags: tuple[str, ...]
    takes_models: bool


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help="bash, zsh or fish")
    parser.add_argument(
        "--json", action="store_true", help="print the verbs and their flags as one JSON object"
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the script.

    Raises:
        StorageError: stdout refused.
    """
    verbs = [_words(name) for name in VERBS]
    if args.json:
        answer.write(json.dumps({verb.words[0]: list(verb.flags) for verb in verbs}, indent=2) + "\n")
    else:
        answer.write(SHELLS[args.shell](verbs))


def _words(name: str) -> _Words:
    flags: dict[str, str] = {}
    model_flags: list[str] = []
    takes_models = False
    for action in verb_parser(name)._actions:
        named = isinstance(action.metavar, str) and action.metavar in _MODEL_METAVARS
        if not action.option_strings:
            takes_models = takes_models or named
        for flag in action.option_strings:
            flags[flag] = (action.help or "").replace("%%", "%").split(". ")[0].rstrip(".")
            if named:
                model_flags.append(flag)
    verb = VERBS[name]
    return _Words((name, *verb.synonyms), verb.help, flags, tuple(model_flags), takes_models)


def _bash(verbs: Sequence[_Words]) -> str:
    lines = [
        "# llm-local completion for bash: source this file, or put it where bash-completion looks.",
        "_llm_local_add() {",
        "  local word",
        "  while IFS= read -r word; do",
        '    case $word in "$1"*) COMPREPLY[${#COMPREPLY[@]}]=$word ;; esac',
        "  done",
        "}",
        "_llm_local() {",
        "  local current=$2 before=$3 verb='' word index",
        "  COMPREPLY=()",
        "  # a name with a colon is several words to bash",
        "  local line=${COMP_LINE:0:COMP_POINT}; current=${line##*[ ]}",
        "  for ((index = 1; index < COMP_CWORD; index++)); do",
        "    word=${COMP_WORDS[index]}",
        "    case $word in -*) ;; *) verb=$word; break ;; esac",
        "  done",
        "  case $verb in",
        f"    '') {_bash_words(word for verb in verbs for word in verb.words)}",
        "    ;;",
    ]
    for verb in verbs:
        lines.append(f"    {'|'.join(verb.words)})")
        if verb.model_flags:
            lines.append(
                f"      case $before in {'|'.join(verb.model_flags)}) _llm_local_names; return ;; esac"
            )
        lines.append(f"      case $current in -*) {_bash_words(verb.flags)}")
        lines.append("      ;; *) " + ("_llm_local_names" if verb.takes_models else ":") + " ;; esac ;;")
    lines += [
        "  esac",
        "}",
        "_llm_local_names() {",
        f'  _llm_local_add "$current" < <({_NAMES})',
        "  # bash puts back what stands before a colon",
        '  case $current in *:*) local head=${current%"${current##*:}"} i',
        '    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$head"}; done ;; esac',
        "}",
        "complete -o default -F _llm_local llm-local",
    ]
    return "\n".join(lines) + "\n"


def _zsh(verbs: Sequence[_Words]) -> str:
    lines = [
        "#compdef llm-local",
        "# llm-local completion for zsh: put it as _llm-local into a folder of $fpath, or source it after compinit.",
        "_llm_local_names() {",
        "  local -a names",
        f'  names=("${{(@f)$({_NAMES})}}")',
        "  compadd -a names",
        "}",
        "_llm_local() {",
        "  local verb='' word before=${words[CURRENT-1]} current=${words[CURRENT]}",
        "  for word in ${words[2,CURRENT-1]}; do",
        "    [[ $word != -* ]] && { verb=$word; break }",
        "  done",
        "  case $verb in",
        f"    '') compadd -- {' '.join(word for verb in verbs for word in verb.words)} ;;",
    ]
    for verb in verbs:
        lines.append(f"    {'|'.join(verb.words)})")
        if verb.model_flags:
            lines.append(
                f"      case $before in {'|'.join(verb.model_flags)}) _llm_local_names; return ;; esac"
            )
        rest = "_llm_local_names" if verb.takes_models else "_files"
        lines.append(
            f"      if [[ $current == -* ]]; then compadd -- {' '.join(verb.flags)}; else {rest}; fi ;;"
        )
    lines += [
        "  esac",
        "}",
        'if [[ $funcstack[1] == _llm-local ]]; then _llm_local "$@"; else compdef _llm_local llm-local; fi',
    ]
    return "\n".join(lines) + "\n"


def _fish(verbs: Sequence[_Words]) -> str:
    lines = ["# llm-local completion for fish: put it into ~/.config/fish/completions/llm-local.fish."]
    every = " ".join(word for verb in verbs for word in verb.words)
    none = f"'not __fish_seen_subcommand_from {every}'"
    for verb in verbs:
        lines += [
            f"complete -c llm-local -f -n {none} -a {word} -d {_quoted(verb.help)}" for word in verb.words
        ]
    for verb in verbs:
        seen = f"'__fish_seen_subcommand_from {' '.join(verb.words)}'"
        for flag, text in verb.flags.items():
            kind = "-l " + flag[2:] if flag.startswith("--") else "-s " + flag[1:]
            takes = f" -x -a '({_NAMES})'" if flag in verb.model_flags else ""
            lines.append(f"complete -c llm-local -n {seen} {kind} -d {_quoted(text)}{takes}")
        if verb.takes_models:
            lines.append(f"complete -c llm-local -f -n {seen} -a '({_NAMES})'")
    return "\n".join(lines) + "\n"


def _bash_words(words: Iterable[str]) -> str:
    return "_llm_local_add \"$current\" <<'WORDS'\n" + "\n".join(words) + "\nWORDS"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: Final[Mapping[str, Callable[[Sequence[_Words]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
