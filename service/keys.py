"""Keys with scopes: kept as digests, compared in constant time, read again when changed; the generated admin key."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from eigenlens import artifact
from eigenlens.service.errors import KeyFileError

KeyScope = Literal["search", "write", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
_MIN_LENGTH = 16


def load_or_create_key(path: Path) -> str:
    """Return the key in `path`; a new one is written there (mode 0600) if there is no file.

    Raises: KeyFileError, if the file can be read by others, holds no key, or cannot be made.
    """
    if path.exists():  # a read-only mount says so before it says that there is a file
        return _load(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    except OSError as error:
        raise KeyFileError(f"the admin key cannot be written to {path}: {error.strerror}") from error
    with os.fdopen(fd, "w") as f:
        key = secrets.token_urlsafe(32)
        f.write(key + "\n")
        f.flush()
        os.fsync(f.fileno())
    return key


def _load(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the admin key cannot be read from {path}: {error}") from error
    if _is_open_to_others(path, mode):
        raise KeyFileError(f"{path} is open to others (mode {stat.S_IMODE(mode):o}); run: chmod 600 {path}")
    if len(key) < _MIN_LENGTH:
        raise KeyFileError(f"{path} holds no key of {_MIN_LENGTH} or more characters; remove it to have one made")
    return key


def _is_open_to_others(path: Path, mode: int) -> bool:
    """Return whether others may change a file, or read one that is no secret mounted by Docker or Kubernetes.

    Such a secret has no writer (440, 444), is for a group (640), or lies on a read-only mount (644).
    """
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return True
    return bool(mode & stat.S_IROTH and mode & stat.S_IWUSR) and os.access(path, os.W_OK, effective_ids=True)


@dataclass(frozen=True)
class Key:
    """A key's record; the key itself is not kept. `digest` is its SHA-256, hexadecimal."""

    id: str
    name: str
    scopes: tuple[KeyScope, ...]
    digest: str
    created: str

    def may(self, scope: KeyScope) -> bool:
        """Return whether the key has a scope; admin has all of them."""
        return scope in self.scopes or "admin" in self.scopes


class Keyring:
    """The keys of one service: the generated admin key and those of `eigenlens keys`, read again when files change.

    keyring = Keyring(admin_key_file=root / "admin.key", keys_file=root / "keys.json")
    key = keyring.find(token)
    """

    def __init__(self, *, admin_key_file: Path, keys_file: Path, create: bool = True) -> None:
        """Read the keys; an admin key is made if there is none, unless `create` is off. Raises: KeyFileError."""
        self._admin_key_file, self._keys_file = admin_key_file, keys_file
        if create:
            load_or_create_key(admin_key_file)
        self._file_versions: object = None
        self._keys: tuple[Key, ...] = ()
        self._visits: tuple[Key, ...] = ()
        self._link_digest: str | None = None
        self._exchanging = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the files if they changed. Raises: KeyFileError; the keys that were read before then stay."""
        file_versions = _version_of(self._admin_key_file), _version_of(self._keys_file)
        if file_versions != self._file_versions:
            generated = []
            if file_versions[0] is not None:
                digest = digest_of(_load(self._admin_key_file))
                generated = [Key("generated", "generated", ("admin",), digest, "")]
            self._keys = (*generated, *read_keys(self._keys_file))
            self._file_versions = file_versions

    def make_link_token(self) -> str:
        """Return a token that `exchange` takes once; any earlier one is no longer taken."""
        token = secrets.token_urlsafe(24)
        self._link_digest = digest_of(token)
        return token

    def exchange(self, token: str) -> str | None:
        """Return a new admin key, which this process alone knows, for the token of a link; None for any other."""
        with self._exchanging:
            if self._link_digest is None or not hmac.compare_digest(digest_of(token), self._link_digest):
                return None
            self._link_digest = None
        key = f"el_{secrets.token_urlsafe(32)}"
        self._visits = (*self._visits, Key("visit", "visit", ("admin",), digest_of(key), ""))
        return key

    def find(self, token: str) -> Key | None:
        """Return the record of a key, or None; every key is compared, each in constant time."""
        digest = digest_of(token)
        match = None
        for key in (*self._keys, *self._visits):
            if hmac.compare_digest(digest, key.digest):
                match = key
        return match


def read_keys(path: Path) -> list[Key]:
    """Return the keys in a file, none where there is no file. Raises: KeyFileError."""
    try:
        document = json.loads(path.read_text())
        return [Key(**{**entry, "scopes": _scopes(entry["scopes"])}) for entry in document["keys"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise KeyFileError(f"{path} holds no keys that can be read: {error}") from error


def add_key(path: Path, *, name: str, scopes: Sequence[str]) -> tuple[Key, str]:
    """Make a key; only its digest is written. Returns: its record, and the key itself. Raises: KeyFileError."""
    secret = f"el_{secrets.token_urlsafe(32)}"
    created = datetime.now(UTC).isoformat(timespec="seconds")
    key = Key(secrets.token_hex(4), name, _scopes(scopes), digest_of(secret), created)
    with _exclusive(path):
        _write(path, [*read_keys(path), key])
    return key, secret


def revoke_key(path: Path, id: str) -> Key:
    """Remove a key; services notice within a second. Raises: KeyFileError, if there is none of this id."""
    with _exclusive(path):
        keys = read_keys(path)
        revoked = next((key for key in keys if key.id == id), None)
        if revoked is None:
            known = ", ".join(key.id for key in keys) or "none"
            raise KeyFileError(f"there is no key '{id}'; there are: {known}")
        _write(path, [key for key in keys if key.id != id])
    return revoked


def digest_of(key: str) -> str:
    """Return a key's SHA-256, hexadecimal. Keys are random and long, so no slower hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _scopes(names: Sequence[str]) -> tuple[KeyScope, ...]:
    unknown = sorted(set(names) - set(SCOPES))
    if unknown or not names:
        raise KeyFileError(f"scopes {', '.join(unknown) or 'missing'}; there are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in names)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock, so that one process at a time changes the keys."""
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise KeyFileError(f"the keys cannot be changed in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, keys: Sequence[Key]) -> None:
    artifact.write_atomic(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=1).encode(), mode=0o600)


def _version_of(path: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when the file does; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
