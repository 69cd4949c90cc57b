"""Migration of a gallery's store from SQLite to PostgreSQL and back: copied, compared row by row, then switched.

The file STORE says where the images are: it is written, or removed, when the copy is whole. What is interrupted before
leaves the gallery as it was, and can be started again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eigenlens.service.errors import GalleryBusyError, GalleryError
from eigenlens.service.gallery.store.locks import LockName
from eigenlens.service.gallery.store.open import MARK, open_store, read_mark, write_mark
from eigenlens.service.gallery.store.postgres import copying
from eigenlens.service.gallery.store.postgres.store import PostgresStore
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.sqlite import DATABASE, SqliteStore

_COPY = ".migrating.sqlite"
KEPT = "gallery.sqlite.migrated"


def migrate_to_postgres(root: Path, address: str) -> int:
    """Take the store of a gallery, which nobody serves, to an empty schema of PostgreSQL.

    The SQLite database stays as `gallery.sqlite.migrated`.

    Returns: the number of images.

    Raises: GalleryError, if the schema holds something else or the copy differs; GalleryBusyError; SystemProblemError.
    """
    if read_mark(root) is not None:
        raise GalleryError(f"the images of {root} are in PostgreSQL already")
    source = SqliteStore(root / DATABASE)
    target = PostgresStore(address, create=True)
    with contextlib.closing(target):
        with contextlib.closing(source), _alone(source, root):
            if _is_empty(target):
                target.copy_from(root / DATABASE)
            current = source.current()
            _compare(target, root / DATABASE)
            if current is not None:
                target.activate(current)
            count = source.count()
            write_mark(root, target.id)
        os.replace(root / DATABASE, root / KEPT)
        (root / "CURRENT").unlink(missing_ok=True)
    return count


def migrate_to_sqlite(root: Path, address: str) -> int:
    """Take the store of a gallery, which nobody serves, back to SQLite. The tables stay in PostgreSQL.

    Returns: the number of images.

    Raises: GalleryError, if the images are not there or the copy differs; GalleryBusyError; SystemProblemError.
    """
    if read_mark(root) is None:
        raise GalleryError(f"the images of {root} are in SQLite already")
    source = open_store(root, address)
    assert isinstance(source, PostgresStore)
    with contextlib.closing(source), _alone(source, root):
        copy = root / _COPY
        copy.unlink(missing_ok=True)
        source.copy_to(copy)
        _compare(source, copy)
        # The log of a database that lay there would be applied to the copy.
        for ending in ("-wal", "-shm"):
            (root / f"{DATABASE}{ending}").unlink(missing_ok=True)
        os.replace(copy, root / DATABASE)
        target = SqliteStore(root / DATABASE)
        with contextlib.closing(target):
            current = source.current()
            if current is not None:
                target.activate(current)
            count = target.count()
        (root / MARK).unlink()
    return count


@contextmanager
def _alone(store: Store, root: Path) -> Iterator[None]:
    """Hold the locks of services and writers. Raises: GalleryBusyError."""
    with ExitStack() as held:
        names: tuple[LockName, ...] = ("serving", "writer")
        for name in names:
            lock = store.lock(name)
            if lock is None:
                raise GalleryBusyError(f"{root} is being served or built: end that first")
            held.callback(lock.close)
        yield


def _is_empty(store: PostgresStore) -> bool:
    return not (store.count() or store.folders() or store.jobs(1) or store.current() is not None)


def _compare(store: PostgresStore, database: Path) -> None:
    """Compare every row of all tables. Raises: GalleryError, naming a table that differs."""
    with store.reading() as transaction:
        there = copying.digests_of_postgres(transaction.connection)
    here = copying.digests_of_sqlite(database)
    different = [table for table in here if here[table] != there[table]]
    if different:
        raise GalleryError(
            f"{store.describe()} and {database} differ in {', '.join(different)}: give an empty schema; nothing was "
            "switched"
        )
