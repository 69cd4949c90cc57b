"""Errors of the system in words: a full disk, a read-only mount, files of another user, a damaged database."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Literal

Kind = Literal["disk-full", "read-only", "not-permitted", "busy", "damaged", "system"]
SystemProblem = OSError | sqlite3.Error

_BY_ERRNO: dict[int | None, Kind] = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EROFS: "read-only",
    errno.EACCES: "not-permitted",
    errno.EPERM: "not-permitted",
    errno.EBUSY: "busy",
}
# Primary result codes; the extended ones have them in their last byte.
_BY_SQLITE: dict[int, Kind] = {
    sqlite3.SQLITE_IOERR_SHMSIZE: "disk-full",  # no room for the file that processes share, when a database is opened
    sqlite3.SQLITE_FULL: "disk-full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "not-permitted",
    sqlite3.SQLITE_CANTOPEN: "not-permitted",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}
_SENTENCES: dict[Kind, str] = {
    "disk-full": "the disk is full{at}; free some space and try again: what was stored before is kept",
    "read-only": "nothing can be written{at}: it is read-only, such as a mount with `ro`",
    "not-permitted": "the user {user} may not read or write{at}: give it the right, or choose another place",
    "busy": "another process holds the file{at} for too long; try again when that is done",
    "damaged": "the database{at} is damaged; restore a backup with `eigenlens restore`",
    "system": "the system reports{at}: {said}",
}


def kind_of(error: SystemProblem) -> Kind:
    """Return what kind of problem an error of the system is."""
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno, "system")
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return "system" if code is None else _BY_SQLITE.get(code, _BY_SQLITE.get(code & 0xFF, "system"))


def describe(error: SystemProblem) -> str:
    """Describe an error of the system in a sentence, with the file that it is about and what to do."""
    file = error.filename2 or error.filename if isinstance(error, OSError) else None
    at = "" if file is None else f" at {os.fsdecode(file) if isinstance(file, bytes | str | os.PathLike) else file}"
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError) and file is not None:
        return f"there is nothing{at}; give the path of a file or folder that exists"
    return _SENTENCES[kind_of(error)].format(at=at, user=os.getuid(), said=said)
