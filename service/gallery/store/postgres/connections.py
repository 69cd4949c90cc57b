"""Connections to a PostgreSQL server: kept for the next call, replaced when the server was started again.

Where the address names several hosts, they are a primary and its standbys: the one that takes changes is used, and if
none does, statements wait for a standby to be promoted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eigenlens.service.errors import SettingsError, SystemProblemError
from eigenlens.service.gallery.store.postgres.errors import explain
from eigenlens.service.gallery.store.sql import Row

_MAX_IDLE = 8
# Unless the address says otherwise: a server or a network that is gone is noticed in seconds.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "eigenlens",
}
# How long a statement waits for a standby to be promoted, and how often it looks.
_FAILOVER_S, _FAILOVER_POLL_S = 10.0, 0.05
# A node that lost its power gives up its locks within a minute.
_OF_LOCKS = "SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"

Connection = psycopg.Connection[Row]


class Connections:
    """Connections to one database. Every thread may borrow one at a time or several."""

    def __init__(self, address: str) -> None:
        """Read the address, as libpq takes it. Raises: SettingsError, which does not repeat it."""
        try:
            given = conninfo_to_dict(address)
        except psycopg.Error:
            raise SettingsError(
                "the store's address cannot be read; give one such as postgresql://user@host:5432/database"
            ) from None
        self._has_standby = "," in f"{given.get('host') or ''}{given.get('hostaddr') or ''}"
        defaults = _DEFAULTS | ({"target_session_attrs": "read-write"} if self._has_standby else {})
        self._address = make_conninfo(
            **defaults | {name: str(value) for name, value in given.items() if value is not None}
        )
        self._was_connected = False
        place = f"{given.get('host') or 'the local socket'}:{given.get('port') or 5432}"
        self.server = f"{place}/{given.get('dbname') or given.get('user') or ''}"
        self._idle: list[Connection] = []
        self._executed_before: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_closed = False

    def open(self, *, for_lock: bool = False) -> Connection:
        """Return a new connection, which the caller closes. Raises: SystemProblemError."""
        try:
            connection = psycopg.connect(self._address, autocommit=True, client_encoding="utf8")
            try:
                if for_lock:
                    connection.execute(_OF_LOCKS)
                self.prepare(connection)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise explain(error, server=self.server) from error
        return connection

    def prepare(self, connection: Connection) -> None:
        """Set up a new connection."""

    @contextmanager
    def borrow(self, first: str) -> Iterator[Connection]:
        """Yield a connection on which a first statement was executed; if one was cut off before, a new one.

        Raises: SystemProblemError, for every error of psycopg.
        """
        try:
            connection, _ = self._begin(first, None, binary=False)
            try:
                yield connection
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise explain(error, server=self.server) from error

    def query(self, sql: str, parameters: Sequence[Any] | None = None, *, before: str | None = None) -> list[Row]:
        """Return all rows of one statement.

        Args:
            before: statements that set what holds for it on the same connection, and change nothing else.

        Raises: SystemProblemError.
        """
        try:
            connection, cursor = self._begin(sql, parameters, binary=True, before=before)
            try:
                return cursor.fetchall()
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise explain(error, server=self.server) from error

    def _begin(
        self, first: str, parameters: Sequence[Any] | None, *, binary: bool, before: str | None = None
    ) -> tuple[Connection, psycopg.Cursor[Row]]:
        """Return a connection and the result of a first statement, which is repeated if the connection was cut off."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return connection, self._execute(connection, first, parameters, binary=binary, before=before)
            except psycopg.OperationalError:
                was_cut_off = connection.closed
                connection.close()
                if not was_cut_off:
                    raise
                self._discard_idle()  # the server was started again: the others were cut off too
            except BaseException:
                connection.close()
                raise
        deadline = time.monotonic() + _FAILOVER_S
        while True:
            connection = self._open_promoted(deadline)
            try:
                return connection, self._execute(connection, first, parameters, binary=binary, before=before)
            except BaseException as error:
                was_cut_off = isinstance(error, psycopg.OperationalError) and connection.closed
                connection.close()
                if not (was_cut_off and self._has_standby and time.monotonic() < deadline):
                    raise

    def _open_promoted(self, deadline: float) -> Connection:
        """Return a new connection; if none of several hosts takes changes, wait for one that does."""
        while True:
            try:
                connection = self.open()
            except SystemProblemError:
                # An address that never led to a server is wrong, and that is told at once.
                if self._is_closed or not (self._has_standby and self._was_connected and time.monotonic() < deadline):
                    raise
                time.sleep(_FAILOVER_POLL_S)
            else:
                self._was_connected = True
                return connection

    def _execute(
        self,
        connection: Connection,
        statement: str,
        parameters: Sequence[Any] | None,
        *,
        binary: bool,
        before: str | None,
    ) -> psycopg.Cursor[Row]:
        """Execute a statement; what comes before is executed where the connection's last was another."""
        if before is not None and self._executed_before.get(connection) != before:
            connection.execute(before)
            self._executed_before[connection] = before
        return connection.execute(statement, parameters, binary=binary)

    def _give_back(self, connection: Connection) -> None:
        is_idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if is_idle and not self._is_closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections that nobody has borrowed; the others are closed when they are given back."""
        self._is_closed = True
        self._discard_idle()

    def _discard_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
