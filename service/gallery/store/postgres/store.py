"""The store in PostgreSQL: transactions, migrations, locks, and what differs from SQLite."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.store.folders import FolderStatements
from eigenlens.service.gallery.store.images import ImageStatements
from eigenlens.service.gallery.store.jobs import JobStatements
from eigenlens.service.gallery.store.locks import LOCK_POLL_S, LockName
from eigenlens.service.gallery.store.postgres import connections, copying
from eigenlens.service.gallery.store.postgres.errors import explain
from eigenlens.service.gallery.store.postgres.locks import GALLERY, AdvisoryLock
from eigenlens.service.gallery.store.postgres.schema import MIGRATIONS, TABLES
from eigenlens.service.gallery.store.postgres.vectors import VectorConnections
from eigenlens.service.gallery.store.sql import Connection, Cursor, Row

# One transaction at a time writes, so that keys and removals become visible in the order of their numbers, and a
# process that has seen one has seen all before it.
_BEGIN = f"BEGIN; SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock({GALLERY}, 0)"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OLDEST = 130000
# Above it, an answer that asks the store once is noticeably later.
_SLOW_S = 0.05
_BACKUP = ("images", "contents", "codes", "files", "folders")


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    """Return a statement with the placeholders of psycopg."""
    return sql.replace("?", "%s")


class _Transaction:
    """A connection in a transaction, for statements with question marks."""

    def __init__(self, connection: connections.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement."""
        return self.connection.execute(_translated(sql), parameters or None, binary=True)


class PostgresStore(ImageStatements, FolderStatements, JobStatements):
    """A store in one schema of a PostgreSQL database, the first of the address's search_path.

    store = PostgresStore("postgresql://eigenlens@db.example/galleries?sslmode=verify-full")
    """

    backup_prefix = "backup_"
    read_only = False
    is_remote = True

    def __init__(self, address: str, *, create: bool = False) -> None:
        """Connect, and bring the tables to this version; they are made only if `create`.

        Raises: SystemProblemError, if the server is not reached; GalleryError, if the tables are not there, are of a
            later version, or the database cannot hold them.
        """
        self._connections = connections.Connections(address)
        self._vectors = VectorConnections(address)
        self._versions = itertools.count()
        try:
            self._migrate(create=create)
            self.id = self._value("id") or ""
        except BaseException:
            self.close()
            raise

    def _migrate(self, *, create: bool) -> None:
        with self._connections.borrow(_BEGIN) as connection:
            try:
                self._require(connection)
                row = connection.execute("SELECT to_regclass('gallery') IS NOT NULL").fetchone()
                version = 0
                if row is not None and row[0]:
                    stored = connection.execute("SELECT value FROM gallery WHERE name = 'schema'").fetchone()
                    version = int(stored[0]) if stored is not None else 0
                if version > len(MIGRATIONS):
                    raise GalleryError(
                        f"{self.describe()} has version {version} of the tables; this version of Eigenlens reads "
                        f"{len(MIGRATIONS)}: update it"
                    )
                if version == 0 and not create:
                    raise GalleryError(
                        f"there is no gallery in {self.describe()}; make one with `eigenlens build` or `eigenlens "
                        "migrate`, or give the schema that has it (options=-csearch_path=NAME)"
                    )
                for statements in MIGRATIONS[version:]:
                    connection.execute(statements)
                connection.execute(
                    "INSERT INTO gallery (name, value) VALUES ('schema', %s), ('id', %s) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE gallery.name = 'schema'",
                    (str(len(MIGRATIONS)), uuid.uuid4().hex),
                )
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def _require(self, connection: connections.Connection) -> None:
        """Check that the database can hold a gallery. Raises: GalleryError."""
        if connection.info.server_version < _OLDEST:
            raise GalleryError(f"{self.describe()} is older than {_OLDEST // 10000}; use a newer server")
        row = connection.execute("SELECT current_schema(), current_setting('server_encoding')").fetchone()
        assert row is not None
        if row[0] is None:
            raise GalleryError(
                f"the schema that the store's address names is not in {self.describe()}; make it with CREATE SCHEMA"
            )
        if row[1] != "UTF8":
            raise GalleryError(f"{self.describe()} is encoded as {row[1]}; a gallery needs a database in UTF8")

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """Begin the one transaction that may write: all writes inside become durable together, or none does."""
        with self._connections.borrow(_BEGIN) as connection:
            try:
                yield _Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    @contextmanager
    def reading(self) -> Iterator[_Transaction]:
        """Begin a transaction that sees the database as it is at one moment."""
        with self._connections.borrow(_READ) as connection:
            try:
                yield _Transaction(connection)
            finally:
                _roll_back(connection)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT."""
        return self._connections.query(_translated(sql), parameters or None)

    def next_key(self, connection: Connection) -> int:
        """Return a key above all that images ever had, inside a transaction."""
        return int(connection.execute("SELECT nextval('image_keys')").fetchone()[0])

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """Return the condition that a column has one of several values, and its parameters."""
        kind = "bigint" if column == "key" else "text"
        return f"{column} = ANY(?::{kind}[])", [list(values)]

    @contextmanager
    def with_backup(self, path: Path) -> Iterator[Connection]:
        """Begin a transaction in which the tables of a backup, an SQLite database, are read with `backup_prefix`."""
        with self.transaction() as transaction, closing(sqlite3.connect(path)) as backup:
            for table in _BACKUP:
                transaction.execute(f"CREATE TEMP TABLE backup_{table} (LIKE {table} INCLUDING INDEXES) ON COMMIT DROP")
                copying.fill(transaction.connection, f"backup_{table}", TABLES[table], copying.rows_of(backup, table))
            yield transaction

    def values_of(self, field: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the keys, ascending, of the images with a text, number or boolean in a field, and these as text.

        The texts are parsed here: PostgreSQL refuses some that JSON allows, such as a null character.
        """
        keys, values = [], []
        rows = self.query(
            "SELECT key, metadata FROM images WHERE strpos(metadata, ?) > 0 ORDER BY key", (json.dumps(field),)
        )
        for key, text in rows:
            value = json.loads(text).get(field)
            if isinstance(value, str | int | float):
                keys.append(key)
                values.append(str(value).lower() if isinstance(value, bool) else str(value))
        return np.array(keys, dtype=np.int64), values

    def version(self) -> int:
        """Return another value each time: to ask whether the database changed takes as long as to read from it."""
        return next(self._versions)

    def current(self) -> int | None:
        """Return the number of the generation to serve; None before the first build."""
        number = self._value("current")
        return None if number is None else int(number)

    def activate(self, number: int) -> None:
        """Make a generation the current one; a reader sees the old number or the new one."""
        self._set_value("current", str(number))

    def record_forgetting(self) -> None:
        """Tell every service of the gallery to forget the codes that were searched with."""
        self._set_value("forgotten", uuid.uuid4().hex)

    def last_forgetting(self) -> str | None:
        """Return a value that changes with each `record_forgetting`; None if there was none."""
        return self._value("forgotten")

    def lock(self, name: LockName, *, shared: bool = False, wait_s: float | None = 0.0) -> AdvisoryLock | None:
        """Take one of the gallery's locks. Returns: None, if another holds it for longer than `wait_s`."""
        lock = AdvisoryLock(self._connections.open(for_lock=True), name)
        deadline = None if wait_s is None else time.monotonic() + wait_s
        try:
            while not lock.take(shared=shared):
                if deadline is not None and time.monotonic() >= deadline:
                    lock.close()
                    return None
                time.sleep(LOCK_POLL_S)
        except BaseException as error:
            lock.close()
            if isinstance(error, psycopg.Error):
                raise explain(error, server=self._connections.server) from error
            raise
        return lock

    def copy_to(self, path: Path) -> None:
        """Write all of the store, as it is at one moment, as a new SQLite database."""
        with self.reading() as transaction:
            copying.copy_to_sqlite(transaction.connection, path)

    def copy_from(self, path: Path) -> None:
        """Fill this store, which is empty, with all of an SQLite database, in one transaction."""
        with self.transaction() as transaction:
            copying.copy_from_sqlite(transaction.connection, path)

    def size_bytes(self) -> int:
        """Return the bytes that the tables and their indexes take."""
        rows = self.query(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
            "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        return int(rows[0][0])

    def describe(self) -> str:
        """Describe in a few words where the store is, without secrets."""
        return f"PostgreSQL at {self._connections.server}"

    def vectors(self) -> VectorConnections:
        """Return the connections on which codes beside the store's tables are searched."""
        return self._vectors

    def problems(self) -> list[str]:
        """Check the store. Returns: a sentence for each problem."""
        problems = []
        begun = time.perf_counter()
        ((is_remote, is_encrypted, is_standby),) = self.query(
            "SELECT inet_client_addr() IS NOT NULL AND inet_client_addr() <> inet_server_addr(), "
            "coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), pg_is_in_recovery()"
        )
        seconds = time.perf_counter() - begun
        if is_remote and not is_encrypted:
            problems.append(f"{self.describe()} is reached without TLS: give sslmode=verify-full in its address")
        if is_standby:
            problems.append(f"{self.describe()} is a standby, which takes no change: give the primary's address")
        if seconds > _SLOW_S:
            problems.append(f"{self.describe()} takes {1000 * seconds:.0f} ms to answer, and each search asks it once")
        return problems

    def close(self) -> None:
        """Close all connections; the store is not used afterwards."""
        self._connections.close()
        self._vectors.close()

    def _value(self, name: str) -> str | None:
        rows = self.query("SELECT value FROM gallery WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def _set_value(self, name: str, value: str) -> None:
        with self.transaction() as transaction:
            transaction.execute(
                "INSERT INTO gallery (name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )


def _roll_back(connection: connections.Connection) -> None:
    """End a transaction that may have failed; a connection that was cut off has none."""
    if not connection.closed:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
