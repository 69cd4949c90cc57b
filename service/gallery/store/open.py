"""Opening the store of a gallery: SQLite in its directory, or PostgreSQL at an address."""

from __future__ import annotations

from pathlib import Path

from eigenlens import artifact
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.sqlite import DATABASE, SqliteStore

# Says that the images of a gallery are in PostgreSQL, by the id of the gallery there.
MARK = "STORE"
# Of the address, for processes of jobs: an argument would show its password to every user of the machine.
VARIABLE = "EIGENLENS_STORE"


def open_store(root: Path, address: str | None = None, *, create: bool = False) -> Store:
    """Open the store of the gallery at `root`.

    Args:
        address: of PostgreSQL, as libpq takes it; None for SQLite.
        create: make the store if there is none.

    Raises: GalleryError, if there is none, or the directory and the address are not of one gallery;
        SystemProblemError; SettingsError.
    """
    mark = read_mark(root)
    if address is None:
        if mark is not None:
            raise GalleryError(f"the images of {root} are in PostgreSQL: give its address as {VARIABLE} or --store")
        return SqliteStore(root / DATABASE, create=create)
    if mark is None and (root / DATABASE).exists():
        raise GalleryError(
            f"the images of {root} are in SQLite: `eigenlens migrate --gallery {root}` takes them to PostgreSQL"
        )
    if mark is None and not create:
        raise GalleryError(f"there is no gallery at {root}; make one with `eigenlens build`, or mount its directory")
    from eigenlens.service.gallery.store.postgres.store import PostgresStore  # needs psycopg

    store = PostgresStore(address, create=create)
    try:
        if mark is None:
            if store.count() or store.current() is not None:
                raise GalleryError(f"{store.describe()} has a gallery already, of another directory than {root}")
            write_mark(root, store.id)
        elif mark != store.id:
            raise GalleryError(f"{store.describe()} has another gallery than that of {root}; give its own address")
    except BaseException:
        store.close()
        raise
    return store


def has_store(root: Path) -> bool:
    """Return whether a directory is that of a gallery, wherever its images are."""
    return (root / DATABASE).exists() or (root / MARK).exists()


def read_mark(root: Path) -> str | None:
    """Return the id of the gallery in PostgreSQL whose directory this is; None for a gallery in SQLite."""
    try:
        return (root / MARK).read_text().strip()
    except FileNotFoundError:
        return None


def write_mark(root: Path, id: str) -> None:
    """Say that the images of a gallery are in PostgreSQL."""
    artifact.write_atomic(root / MARK, f"{id}\n".encode())
