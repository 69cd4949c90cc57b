"""What a database offers to the statements of a store, which SQLite and PostgreSQL understand alike.

A statement's parameters are question marks. Statements read columns by place, compare ids by the bytes of their UTF-8,
and change rows only inside a transaction, of which there is one at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Row = tuple[Any, ...]


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Number of rows that were changed."""

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in a transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Execute a statement."""


class Database(ABC):
    """A database with the tables of a gallery."""

    # What the tables of a backup begin with in `replace_by`.
    backup_prefix: str

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Connection]:
        """Begin the one transaction that may write: all writes inside become durable together, or none does."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that sees the database as it is at one moment."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT."""

    @abstractmethod
    def next_key(self, connection: Connection) -> int:
        """Return a key above all that images ever had, inside a transaction."""

    @abstractmethod
    def among(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """Return the condition that a column has one of several values, and its parameters."""

    @abstractmethod
    def with_backup(self, path: Path) -> AbstractContextManager[Connection]:
        """Begin a transaction in which the tables of a backup, an SQLite database, are read with `backup_prefix`."""
