"""The store in SQLite, in a file of the gallery: its tables, one connection for each thread, transactions, locks."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.service.errors import DiskFullError, GalleryError, explained
from eigenlens.service.gallery.store.folders import FolderStatements
from eigenlens.service.gallery.store.images import ImageStatements
from eigenlens.service.gallery.store.jobs import JobStatements
from eigenlens.service.gallery.store.locks import FileLock, LockName, lock_file
from eigenlens.service.gallery.store.sql import Connection, Row
from eigenlens.service.waiting import may_wait
from eigenlens.system_errors import describe, kind_of

DATABASE = "gallery.sqlite"

_SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE images (
    key INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so a row of an old generation cannot mean another image
    id TEXT NOT NULL UNIQUE,
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    metadata TEXT NOT NULL,
    path BLOB  -- of the original file, in the bytes of its system; NULL when its bytes are in `contents`
);
CREATE TABLE contents (key INTEGER PRIMARY KEY REFERENCES images ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE codes (
    key INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
    encoder_id TEXT NOT NULL,
    code BLOB NOT NULL,  -- float32, little endian
    PRIMARY KEY (key, encoder_id)
) WITHOUT ROWID;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    options TEXT NOT NULL DEFAULT '{}',
    error TEXT,
    generation INTEGER,
    created TEXT NOT NULL,
    finished TEXT,
    result TEXT
);
"""
# Removals, which processes apply to the generation that they serve. Additions need no such log, since keys only grow.
_REMOVED = """
CREATE TABLE removed (seq INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL);
CREATE TRIGGER image_removed AFTER DELETE ON images BEGIN INSERT INTO removed (key) VALUES (old.key); END;
"""
# The folders that the gallery is kept in step with, and their files as they were when they were last read.
_FOLDERS = """
CREATE TABLE IF NOT EXISTS folders (
    name TEXT PRIMARY KEY,  -- the ids of its images begin with it
    path BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,  -- folder or archive
    follow_links INTEGER NOT NULL,
    boundary BLOB  -- folder out of which no link may lead
);
CREATE TABLE IF NOT EXISTS files (
    key INTEGER PRIMARY KEY REFERENCES images ON UPDATE CASCADE ON DELETE CASCADE,
    folder TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS files_of_folder ON files (folder);
"""
# By the version of a database's schema: the statements that make it the next version.
_MIGRATIONS = {1: _REMOVED, 2: "ALTER TABLE jobs ADD COLUMN result TEXT;", 3: _FOLDERS}


# Longest time that a thread waits for the database while another process has it for itself, if it may wait.
_LOCKED_S = 30


def is_writable(path: Path) -> bool:
    """Return whether this process may change a file and put others beside it."""
    return all(os.access(p, os.W_OK, effective_ids=True) for p in (path, path.parent))


class SqliteStore(ImageStatements, FolderStatements, JobStatements):
    """A store in an SQLite database. Every thread gets its own connection; readers never wait for the writer (WAL).

    Beside the database lie CURRENT, with the number of the generation to serve, the lock files, and
    `queries-forgotten`, whose time is that of the last call to forget recent queries.
    """

    backup_prefix = "backup."
    is_remote = False

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.is_file():
            raise GalleryError(f"there is no gallery at {path.parent}; make one with `eigenlens build`")
        self._path = path
        self.read_only = path.is_file() and not is_writable(path)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            self._open(create=create)
        except sqlite3.Error as error:
            problem = explained(error)
            if isinstance(problem, DiskFullError):
                raise DiskFullError(f"the gallery's database {path} cannot be used: {problem}") from error
            advice = "" if kind_of(error) == "system" else f": {describe(error)}"
            raise GalleryError(f"the gallery's database {path} cannot be used: {error}{advice}") from error

    def _open(self, *, create: bool) -> None:
        connection = self.connection
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and create:
            connection.executescript(
                f"BEGIN; {_SCHEMA} {_REMOVED} {_FOLDERS} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
            )
        elif version in _MIGRATIONS:
            steps = " ".join(_MIGRATIONS[schema] for schema in range(version, _SCHEMA_VERSION))
            connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise GalleryError(f"{self._path} has schema {version}; this version reads schema {_SCHEMA_VERSION}")

    def _address(self) -> str:
        """Return the URI of the database. A read-only folder cannot have the files that SQLite shares with a writer."""
        address = self._path.absolute().as_uri()
        if not self.read_only:
            return f"{address}?mode=rwc"
        log = self._path.with_name(f"{self._path.name}-wal")
        has_log = log.is_file() and log.stat().st_size > 0
        return f"{address}?mode=ro{'' if has_log else '&immutable=1'}"

    @property
    def connection(self) -> sqlite3.Connection:
        """Return the calling thread's connection, opened on first use; it has another one while it may not wait."""
        name = "connection" if may_wait() else "connection_without_waiting"
        connection: sqlite3.Connection | None = getattr(self._local, name, None)
        if connection is None:
            # check_same_thread is off only so that close() may close every thread's connection.
            timeout_s = _LOCKED_S if may_wait() else 0
            connection = sqlite3.connect(
                self._address(), uri=True, isolation_level=None, timeout=timeout_s, check_same_thread=False
            )
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            setattr(self._local, name, connection)
            with self._lock:
                self._connections.append(connection)
        return connection

    def close(self) -> None:
        """Close every thread's connection; the database is not used afterwards."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction: all writes inside become durable together, or none does."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("PRAGMA defer_foreign_keys = ON")  # until its end: what belongs to an image follows it
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk ends it by itself
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that sees the database as it is at one moment."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT."""
        return self.connection.execute(sql, parameters).fetchall()

    def next_key(self, connection: Connection) -> int:
        """Return a key above all that images ever had, inside a transaction."""
        if connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'images'").rowcount == 0:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('images', 1)")
        return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()[0])

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """Return the condition that a column has one of several values, and its parameters."""
        return f"{column} IN ({','.join('?' * len(values))})", list(values)

    @contextmanager
    def with_backup(self, path: Path) -> Iterator[Connection]:
        """Begin a transaction in which the tables of a backup, an SQLite database, are read with `backup_prefix`."""
        self.connection.execute("ATTACH ? AS backup", (str(path),))
        try:
            with self.transaction() as connection:
                yield connection
        finally:
            self.connection.execute("DETACH backup")

    def values_of(self, field: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the keys, ascending, of the images with a text, number or boolean in a field, and these as text."""
        rows = self.query(
            "SELECT images.key, CASE entry.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
            "ELSE CAST(entry.atom AS TEXT) END FROM images, json_each(images.metadata) AS entry "
            "WHERE entry.key = ? AND entry.atom IS NOT NULL ORDER BY images.key",
            (field,),
        )
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)), [row[1] for row in rows]

    def version(self) -> tuple[int, int, int]:
        """Return a value that differs, for the calling thread, whenever any process has changed the database."""
        connection = self.connection
        return id(connection), connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes

    def current(self) -> int | None:
        """Return the number of the generation to serve; None before the first build. Raises: GalleryError."""
        path = self._path.with_name("CURRENT")
        try:
            return int(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise GalleryError(f"{path} does not hold a number") from error

    def activate(self, number: int) -> None:
        """Make a generation the current one; a reader of CURRENT sees the old number or the new one."""
        artifact.write_atomic(self._path.with_name("CURRENT"), f"{number}\n".encode())

    def record_forgetting(self) -> None:
        """Tell every service of the gallery to forget the codes that were searched with."""
        artifact.write_atomic(self._path.with_name("queries-forgotten"), b"")

    def last_forgetting(self) -> int | None:
        """Return when `record_forgetting` was last called, in nanoseconds; None if it never was."""
        try:
            return self._path.with_name("queries-forgotten").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def lock(self, name: LockName, *, shared: bool = False, wait_s: float | None = 0.0) -> FileLock | None:
        """Take one of the gallery's locks. Returns: None, if another process holds it for longer than `wait_s`."""
        path = self._path.with_name(f"{name}.lock")
        return lock_file(path, shared=shared, wait_s=wait_s, read_only=self.read_only)

    def copy_to(self, path: Path) -> None:
        """Write all of the database, as it is at one moment, as a new one."""
        with closing(sqlite3.connect(path)) as target:
            self.connection.backup(target)  # in one step, so later changes are not in the copy

    def size_bytes(self) -> int:
        """Return the bytes of the database's files."""
        return sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*"))

    def describe(self) -> str:
        """Describe the store in a few words."""
        return f"SQLite {sqlite3.sqlite_version}{' (read-only)' if self.read_only else ''}"

    def vectors(self) -> None:
        """Return None: SQLite searches no codes."""

    def problems(self) -> list[str]:
        """Check the database. Returns: a sentence for each problem."""
        damage = [row[0] for row in self.query("PRAGMA quick_check")]
        if damage == ["ok"]:
            return []
        return [f"the database is damaged ({damage[0]}): restore a backup with `eigenlens restore`"]
