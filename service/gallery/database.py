"""The gallery's SQLite database: its tables, one connection for each thread, transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eigenlens.service.errors import GalleryError

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


def is_writable(path: Path) -> bool:
    """Return whether this process may change a file and put others beside it."""
    return all(os.access(p, os.W_OK, effective_ids=True) for p in (path, path.parent))


class Database:
    """An opened database. Every thread gets its own connection; readers never wait for the writer (WAL)."""

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
            raise GalleryError(f"the gallery's database {path} cannot be used: {error}") from error

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
        """Return the calling thread's connection, opened on first use."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # check_same_thread is off only so that close() may close every thread's connection.
            connection = sqlite3.connect(
                self._address(), uri=True, isolation_level=None, timeout=30, check_same_thread=False
            )
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
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
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk ends it by itself
                connection.execute("ROLLBACK")
            raise

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return all rows of a SELECT; a row's columns are read by name."""
        cursor = self.connection.cursor()
        cursor.row_factory = sqlite3.Row
        return cursor.execute(sql, parameters).fetchall()
