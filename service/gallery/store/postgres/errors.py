"""Errors of PostgreSQL in words: the server is gone, refuses, is full or read-only."""

from __future__ import annotations

import psycopg

from eigenlens.service.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseUnreachableError,
    DiskFullError,
    ReadOnlyError,
    SystemProblemError,
)

# Beginnings of SQLSTATE codes, the more particular ones first: the error, and what to do.
_BY_STATE: tuple[tuple[str, type[SystemProblemError], str], ...] = (
    ("53100", DiskFullError, "its disk is full; free some space and try again: what was stored before is kept"),
    ("53", DatabaseBusyError, "it has too many connections or too little memory; try again, or see max_connections"),
    ("55P03", DatabaseBusyError, "another process writes for too long; try again when that is done"),
    ("40", DatabaseBusyError, "another process wrote at the same time; try again"),
    ("57014", DatabaseBusyError, "a statement took too long and was cancelled; try again"),
    ("25006", ReadOnlyError, "it is read-only, such as a standby; give the address of the primary"),
    ("42501", ReadOnlyError, "the user of the address lacks a right; the owner of the tables has it"),
    ("28", DatabaseUnreachableError, "it refuses the user or the password of the address"),
    ("3D000", DatabaseUnreachableError, "there is no such database; make it with CREATE DATABASE"),
    ("08", DatabaseUnreachableError, "it is not reached now; try again when it runs"),
    ("57P", DatabaseUnreachableError, "it is ending or starting; try again in a moment"),
    ("XX00", DatabaseDamagedError, "its files are damaged; restore a backup"),
)


def explain(error: psycopg.Error, *, server: str) -> SystemProblemError:
    """Return an error of psycopg as one of this package, with a sentence.

    Args:
        server: names the server and the database, without secrets.
    """
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    state = error.sqlstate or ""
    for beginning, kind, advice in _BY_STATE:
        if state.startswith(beginning):
            return kind(f"PostgreSQL at {server}: {advice} ({said})")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnreachableError(
            f"PostgreSQL at {server} cannot be used now ({said}); try again when it runs, or correct the store's "
            "address: what it confirmed is kept"
        )
    return SystemProblemError(f"PostgreSQL at {server} reports: {said}")
