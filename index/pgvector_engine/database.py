"""What this engine asks of a connection to PostgreSQL; the service has the connections, and explains their errors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


class Copy(Protocol):
    """Data on their way into a table."""

    def write(self, data: bytes, /) -> None:
        """Send a part of the data."""


class Cursor(Protocol):
    """The result of a statement."""

    def copy(self, statement: str, /) -> AbstractContextManager[Copy]:
        """Begin a COPY FROM STDIN."""

    def fetchall(self) -> Sequence[Row]:
        """Return all rows."""


class Connection(Protocol):
    """A connection, as psycopg has it."""

    def cursor(self) -> Cursor:
        """Return a cursor."""

    def execute(self, statement: str, parameters: Sequence[Any] | None = None, /, *, binary: bool = False) -> Cursor:
        """Execute a statement."""


class Database(Protocol):
    """Connections to one schema of a database, for several threads. Errors are explained in words."""

    def is_installed(self) -> bool:
        """Return whether the extension is in the database."""

    def install(self) -> None:
        """Make the extension in the database, if it is not there."""

    def borrow(self, first: str, /) -> AbstractContextManager[Connection]:
        """Lend a connection on which a first statement was executed."""

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None, /, *, before: str | None = None
    ) -> Sequence[Row]:
        """Return all rows of one statement, after others that set what holds for it on the same connection."""


class OneConnection:
    """Statements on one connection, which may be inside a transaction; satisfies what a search needs of `Database`."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection that nobody else uses meanwhile."""
        self._connection, self._before = connection, ""

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None, /, *, before: str | None = None
    ) -> Sequence[Row]:
        """Return all rows of one statement, after others that set what holds for it."""
        if before is not None and before != self._before:
            self._connection.execute(before)
            self._before = before
        return self._connection.execute(statement, parameters, binary=True).fetchall()


class Queries(Protocol):
    """The part of a database that answers single statements."""

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None, /, *, before: str | None = None
    ) -> Sequence[Row]:
        """Return all rows of one statement, after others that set what holds for it on the same connection."""
