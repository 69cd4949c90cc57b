"""Copies of a gallery's tables between PostgreSQL and an SQLite database, row by row, and their comparison."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from eigenlens.service.gallery.store.postgres.connections import Connection
from eigenlens.service.gallery.store.postgres.schema import TABLES
from eigenlens.service.gallery.store.sql import Row
from eigenlens.service.gallery.store.sqlite import SqliteStore

_ROWS_AT_ONCE = 500
# Of tables whose rows have more than one column in their primary key.
_ORDER = {"codes": "key, encoder_id"}
# By table, the sequence that numbers its rows in PostgreSQL.
_SEQUENCES = {
    "images": "'image_keys'",
    "removed": "pg_get_serial_sequence('removed', 'seq')",
    "jobs": "pg_get_serial_sequence('jobs', 'rowid')",
}


def rows_of(database: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Yield the rows of a table of an SQLite database, in order."""
    columns = TABLES[table]
    yield from database.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {_ORDER.get(table, columns[0])}")


def fill(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Add rows to a table of PostgreSQL."""
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def copy_from_sqlite(connection: Connection, path: Path) -> None:
    """Fill the empty tables of PostgreSQL with an SQLite database, inside a transaction."""
    with closing(sqlite3.connect(path)) as database:
        for table, columns in TABLES.items():
            fill(connection, table, columns, rows_of(database, table))
        last = dict(database.execute("SELECT name, seq FROM sqlite_sequence"))
        last["jobs"] = database.execute("SELECT coalesce(max(rowid), 0) FROM jobs").fetchone()[0]
    for table, sequence in _SEQUENCES.items():
        number = int(last.get(table, 0))
        connection.execute(f"SELECT setval({sequence}, greatest({number}, 1), {number > 0})")


def copy_to_sqlite(connection: Connection, path: Path) -> None:
    """Write all tables of PostgreSQL as a new SQLite database; the connection is in a transaction that reads."""
    SqliteStore(path, create=True).close()
    with closing(sqlite3.connect(path)) as database, database:
        for table, columns in TABLES.items():
            marks = ",".join("?" * len(columns))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            database.executemany(statement, _rows_of_postgres(connection, table))
        database.execute("DELETE FROM sqlite_sequence")
        for table in ("images", "removed"):
            number = _last_number(connection, _SEQUENCES[table])
            database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


def digests_of_sqlite(path: Path) -> dict[str, str]:
    """Return a checksum of the rows of each table of an SQLite database."""
    with closing(sqlite3.connect(path)) as database:
        return {table: _digest(rows_of(database, table)) for table in TABLES}


def digests_of_postgres(connection: Connection) -> dict[str, str]:
    """Return a checksum of the rows of each table of PostgreSQL; the connection is in a transaction."""
    return {table: _digest(_rows_of_postgres(connection, table)) for table in TABLES}


def _rows_of_postgres(connection: Connection, table: str) -> Iterator[Row]:
    """Yield the rows of a table in order, a few at a time."""
    columns = TABLES[table]
    with connection.cursor(name=f"rows_of_{table}", binary=True) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {_ORDER.get(table, columns[0])}")
        yield from cursor


def _last_number(connection: Connection, sequence: str) -> int:
    """Return the last number that a sequence gave; 0, if it gave none."""
    row = connection.execute(f"SELECT coalesce(pg_sequence_last_value({sequence}::regclass), 0)").fetchone()
    return 0 if row is None else int(row[0])


def _digest(rows: Iterable[Row]) -> str:
    digest = sha256()
    for row in rows:
        for value in row:
            _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    data = value if isinstance(value, bytes) else repr(value).encode()
    digest.update(f"{type(value).__name__}{len(data)}:".encode() + data)
