"""Where values come from: flags, the environment, `.env`. Collects raw values, each with its origin."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from llm_local.errors import ConfigError
from llm_local.options import given
from llm_local.settings.declarations import SETTINGS

if TYPE_CHECKING:
    from dotenv.parser import Binding

__all__ = [
    "ENV_NAMES",
    "RANK",
    "Given",
    "Origin",
    "Source",
    "find_env_file",
    "from_env_file",
    "withheld",
    "from_environment",
    "from_flags",
]

Source = Literal["default", "profile", ".env", "environment", "flag"]
RANK: Final[Mapping[Source, int]] = {source: rank for rank, source in enumerate(get_args(Source))}
ENV_NAMES: Final = {key: setting for setting in SETTINGS.values() for key in (setting.env, *setting.aliases)}

_MAX_BYTES: Final = 1 << 20
# Looser than this, `MODEL_DIR` of somebody else's program would pass for a misspelled MODEL_ID.
_LIKENESS: Final = 0.83


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: the source, the key as the user spelled it, and the place for people."""

    source: Source = "default"
    key: str = ""
    place: str = ""

    def __str__(self) -> str:
        return self.place or self.source


class Given(NamedTuple):
    """A raw value, not yet read, and its origin."""

    value: object
    origin: Origin


def from_flags(flags: Mapping[str, Any]) -> dict[str, Given]:
    """Values by field name, from a command line or another caller; None and UNSET mean "not given".

    Raises:
        ConfigError: a name that is no setting.
    """
    found = {}
    for name, value in given(flags).items():
        if name not in SETTINGS:
            raise ConfigError(f"There is no setting named {name!r}.", param=name)
        if value is not None:
            key = SETTINGS[name].flag or SETTINGS[name].env
            found[name] = Given(value, Origin("flag", key, "command line"))
    return found


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Values of the environment; an empty or blank variable counts as not set."""
    return _pick(environ, lambda key: Origin("environment", key))


def find_env_file() -> Path | None:
    """The `.env` of the current directory, else that of the checkout this package runs from, else None."""
    checkout = _checkout()
    for path in (Path(".env"), *([] if checkout is None else [checkout / ".env"])):
        # Some people call their virtual environment `.env`: that is no settings file.
        if path.exists() and not (path / "pyvenv.cfg").exists():
            return path
    return None


def withheld(found: Mapping[str, Given], path: Path) -> tuple[str, ...]:
    """Fields that a `.env` which nobody named must not decide, since it lies wherever one happens to be.

    PLUGINS says which code runs. In the checkout this package runs from, whoever writes decides that anyway.
    """
    if _checkout() == path.absolute().parent.resolve():
        return ()
    return tuple(name for name in ("plugins",) if name in found)


def _checkout() -> Path | None:
    """The top of the checkout this package runs from, or None when it is installed."""
    top = Path(__file__).resolve().parents[3]
    return top if (top / "pyproject.toml").is_file() and (top / "src" / "llm_local").is_dir() else None


def from_env_file(path: Path) -> tuple[dict[str, Given], tuple[str, ...]]:
    """Values of a `.env` file, and warnings about lines that look like settings but are not.

    Values are literal: `${NAME}` is not expanded.

    Raises:
        ConfigError: the file cannot be read, or a line that names a setting cannot be understood.
    """
    # Late: most directories have no `.env`.
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    places: dict[str, str] = {}
    warnings: list[str] = []
    for binding in parse_stream(io.StringIO(_read(path))):
        place = f"{path} line {_line_number(binding)}"
        if binding.error or (binding.value is None and binding.key in ENV_NAMES):
            warnings.append(_broken_line(binding, place))
        elif binding.key in ENV_NAMES:
            values[binding.key], places[binding.key] = binding.value or "", place
        elif binding.key:
            warnings.extend(_suspicions(binding.key, place))
    return _pick(values, lambda key: Origin(".env", key, places[key])), tuple(warnings)


def _pick(texts: Mapping[str, str], origin_of: Callable[[str], Origin]) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for key, setting in ENV_NAMES.items():
        if texts.get(key, "").strip() and setting.name not in found:
            found[setting.name] = Given(texts[key], origin_of(key))
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"The settings file {path} is larger than {_MAX_BYTES} bytes.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"The settings file {path} is not UTF-8 text.", "Save it as UTF-8.") from error


def _line_number(binding: Binding) -> int:
    """The parser counts from the blank lines before a binding; people count from the binding itself."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _broken_line(binding: Binding, place: str) -> str:
    """A warning for a line of somebody else's; an error where one of our settings would be lost."""
    lost = [key for key in ENV_NAMES if re.search(rf"\b{key}\b", binding.original.string)]
    if lost:
        raise ConfigError(
            f"{lost[0]} is named in {place}, but that line cannot be understood.",
            f"Write it as {lost[0]}=value.",
            param=lost[0],
        )
    return f"{place} cannot be understood and is ignored."


def _suspicions(key: str, place: str) -> list[str]:
    # Late: almost every `.env` has no key but ours.
    from difflib import get_close_matches

    near = get_close_matches(key.upper(), ENV_NAMES, n=1, cutoff=_LIKENESS)
    if near:
        return [f"{key} ({place}) is not a setting and is ignored; did you mean {near[0]}?"]
    if key.startswith("HF_"):
        return [
            f"{key} ({place}) is not a setting of llm-local and is ignored; export it in the environment."
        ]
    return []
