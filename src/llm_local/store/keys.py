"""API keys: who may use a server of this machine, as an admin or as a user. No key is kept, only a salted hash of it.

    API_KEYS in the settings          KEY, admin:KEY or user:KEY, with commas between; KEY alone is an admin's
    <data home>/api_keys.json         what `llm-local keys add` made; a running server sees every change

Keys that llm-local makes have 256 random bits, so a fast hash is enough: nobody tries them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from llm_local.errors import ConfigError, InvalidRequest, StorageError
from llm_local.home import data_home
from llm_local.locks import LockTimeout, locked

__all__ = [
    "ApiKey",
    "KeyRing",
    "Role",
    "add_key",
    "keys_file",
    "read_keys",
    "remove_key",
    "split_keys",
]

Role = Literal["admin", "user"]

MAX_KEYS: Final = 1000
_PREFIX: Final = "llk_"
_MAX_BYTES: Final = 1 << 20
_LOCK_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. `id` is whose the conversations and caches are; `label` is for people."""

    id: str
    role: Role
    salt: str
    digest: str
    label: str = ""
    created: float = 0.0

    def matches(self, presented: bytes) -> bool:
        """True when `presented` is this key. Takes as long for any other."""
        return hmac.compare_digest(_digest(self.salt, presented).encode(), self.digest.encode())


class KeyRing:
    """The keys that a server accepts: those of its settings, and those of the file as it is now.

    Without any it is open, and stays so until the first key comes. Once there were keys it never opens again, though
    they may all be removed.

    Raises:
        ConfigError: a key of the settings cannot be one.
    """

    def __init__(self, configured: str | None = None, path: Path | None = None) -> None:
        self._configured = tuple(_configured_key(role, key) for role, key in split_keys(configured or ""))
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._from_file: tuple[ApiKey, ...] = ()
        self._closed = bool(self._configured)
        self._refresh()

    @property
    def is_open(self) -> bool:
        """True while nobody needs a key."""
        self._refresh()
        return not self._closed

    @property
    def is_empty(self) -> bool:
        """True while a key is needed and there is none: all were removed, or the file is damaged."""
        return not (self.is_open or self._configured or self._from_file)

    def find(self, *presented: bytes) -> ApiKey | None:
        """The key that one of `presented` is. All keys are compared, so the time tells nothing of which."""
        self._refresh()
        found: ApiKey | None = None
        for one in presented:
            for key in (*self._configured, *self._from_file):
                if key.matches(one) and one:
                    found = found or key
        return found

    def _refresh(self) -> None:
        """Read the file again when it has changed; keep what was read while it cannot be."""
        if self._path is None:
            return
        try:
            state = os.stat(self._path)
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        except FileNotFoundError:
            self._stamp, self._from_file = None, ()
            return
        except OSError:
            return
        if stamp == self._stamp:
            return
        with suppress(StorageError):
            self._from_file, self._stamp = tuple(read_keys(self._path)), stamp
        self._closed = True  # a damaged file has keys too, though nobody knows which


def split_keys(text: str) -> list[tuple[Role, str]]:
    """What API_KEYS says: role and key.

    Raises:
        ConfigError: an entry without a key.
    """
    found: list[tuple[Role, str]] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        role, colon, key = entry.partition(":")
        if colon and role == "user":
            found.append(("user", key))
        else:
            found.append(("admin", key if colon and role == "admin" else entry))
    if any(not key.strip() for _, key in found):
        raise ConfigError(
            "API_KEYS has a role without a key.", "Write KEY, admin:KEY or user:KEY.", param="API_KEYS"
        )
    return found


def keys_file() -> Path:
    """Where made keys are kept."""
    return data_home() / "api_keys.json"


def read_keys(path: Path | None = None) -> list[ApiKey]:
    """The keys of the file, oldest first; none where there is no file.

    Raises:
        StorageError: it cannot be read, or is not what llm-local writes.
    """
    path = path or keys_file()
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"The keys in {path} cannot be read: {error.strerror}.") from error
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(len(data))
        return [_read(entry) for entry in json.loads(data)["keys"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StorageError(
            f"{path} is not what llm-local writes.",
            "Delete it, and make the keys anew with `llm-local keys add`.",
        ) from None


def add_key(role: Role = "user", label: str = "", path: Path | None = None) -> tuple[str, ApiKey]:
    """Make a key and keep its hash. Returns the key itself, which nobody can show again, and what is kept.

    Raises:
        InvalidRequest: there are `MAX_KEYS` already, or the label is too long.
        StorageError: the disk refuses, or the file is damaged.
    """
    if len(label) > 100 or not label.isprintable():
        raise InvalidRequest("A label has at most 100 printable characters.", param="label")
    key = _PREFIX + secrets.token_urlsafe(32)
    salt = secrets.token_hex(16)
    kept = ApiKey(secrets.token_hex(6), role, salt, _digest(salt, key.encode()), label, time.time())
    with _changing(path or keys_file()) as keys:
        if len(keys) >= MAX_KEYS:
            raise InvalidRequest(f"There are {MAX_KEYS} keys already.", "Remove some that nobody uses.")
        keys.append(kept)
    return key, kept


def remove_key(key_id: str, path: Path | None = None) -> ApiKey:
    """Have a key accepted no longer, also by servers that run.

    Raises:
        InvalidRequest: no key has that id.
        StorageError: the disk refuses, or the file is damaged.
    """
    with _changing(path or keys_file()) as keys:
        gone = next((one for one in keys if one.id == key_id), None)
        if gone is None:
            raise InvalidRequest(
                f"There is no key with the id {key_id!r}.", "`llm-local keys` lists them.", param="id"
            )
        keys.remove(gone)
    return gone


@contextmanager
def _changing(path: Path) -> Iterator[list[ApiKey]]:
    """Hold the file's lock, offer its keys as a list, and write them whole when nothing went wrong."""
    try:
        with locked(path.with_name(f"{path.name}.lock"), patience_s=_LOCK_PATIENCE_S):
            keys = read_keys(path)
            yield keys
            _write(path, keys)
    except (OSError, LockTimeout) as error:
        why = getattr(error, "strerror", None) or "another process is changing them"
        raise StorageError(f"The keys in {path} cannot be changed: {why}.") from error


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # nobody else can read it
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({"keys": [dataclasses.asdict(key) for key in keys]}, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise


def _configured_key(role: Role, key: str) -> ApiKey:
    raw = key.encode("utf-8", "surrogateescape")
    salt = secrets.token_hex(16)
    # The same for every start of the server, since what a key's user has kept belongs to this id.
    key_id = hashlib.sha256(b"llm-local key id\0" + raw).hexdigest()[:12]
    return ApiKey(key_id, role, salt, _digest(salt, raw))


def _digest(salt: str, key: bytes) -> str:
    return hashlib.sha256(salt.encode() + b"\0" + key).hexdigest()


def _read(entry: Any) -> ApiKey:
    key = ApiKey(**entry)
    texts = (key.id, key.role, key.salt, key.digest, key.label)
    if not all(isinstance(text, str) for text in texts) or key.role not in get_args(Role):
        raise ValueError(entry)
    return key
