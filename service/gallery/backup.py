"""Backups: one archive that is consistent though the gallery changes while it is made.

An archive is a tar of an artifact of kind `backup`: the database, CURRENT, and the served generation with its codes and
its encoder. Keys of the service are not in it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from eigenlens import artifact
from eigenlens.service.errors import GalleryBusyError, GalleryError
from eigenlens.service.gallery.layout import Gallery, taken

KIND = "backup"
DATABASE = "gallery.sqlite"
_PATIENCE_S = 5.0
_CHUNK = 1 << 20
_BLOCK = 512


@contextmanager
def snapshot(gallery: Gallery, *, files: bool = False) -> Iterator[artifact.Artifact]:
    """A copy of the gallery as it is at one moment, verified, in a directory that is removed at the end.

    Searches and changes go on; only a switch of generations waits while the database is copied.

    Args:
        files: take the bytes of images that lie in folders along, so that the copy needs nothing from outside.

    Raises: GalleryBusyError, if another backup is being made; GalleryError; ArtifactError, naming what is damaged.
    """
    parent = gallery.root / "backups"
    parent.mkdir(exist_ok=True)
    with (gallery.root / "backup.lock").open("w") as lock:
        if not taken(lock, wait_s=_PATIENCE_S):
            raise GalleryBusyError(f"a backup of {gallery.root} is being made already; wait for that to end")
        artifact.remove_leftovers(parent)
        copy = Path(tempfile.mkdtemp(dir=parent, prefix=".building-snapshot-"))
        try:
            number = _copy(gallery, copy)
            with closing(sqlite3.connect(copy / DATABASE)) as database:
                if files:
                    _take_files(database)
                images = database.execute("SELECT count(*) FROM images").fetchone()[0]
            opened = Gallery(copy)
            try:
                generation = opened.open_generation(number)  # what cannot be restored is told now
            finally:
                opened.store.close()
            properties = {"generation": number, "images": images, "encoder": generation.encoder_id}
            yield artifact.seal(copy, kind=KIND, properties=properties)
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _copy(gallery: Gallery, copy: Path) -> int:
    """Fill `copy`; returns the number of the generation in it.

    Nothing of what the generation needs of the database is forgotten while the lock is held, so the database may be
    the later of the two.
    """
    with gallery.choosing():
        number = gallery.current()
        if number is None:
            raise GalleryError(f"the gallery {gallery.root} has no generation yet; there is nothing to back up")
        path = gallery.generation_path(number)
        found = artifact.read(path, kind="generation", verify=False)
        codes = gallery.codes / str(found.properties["codes"])
        for directory in (path, codes, gallery.encoder_path(found.made_from["encoder"])):
            _link(directory, copy / directory.relative_to(gallery.root))
        (copy / "CURRENT").write_text(f"{number}\n")
        with closing(sqlite3.connect(copy / DATABASE)) as target:
            gallery.store.connection.backup(target)  # in one step: as the database is at its beginning
    return number


def _link(source: Path, target: Path) -> None:
    """The same directory again. Files of artifacts never change, so they need no copy where the disk can link them."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copyfile(file, place)


def _take_files(database: sqlite3.Connection) -> None:
    """Put the bytes of files into the database; files that were moved or changed stay outside."""
    rows = database.execute("SELECT key, path, sha256 FROM images WHERE path IS NOT NULL").fetchall()
    for key, path, checksum in rows:
        try:
            data = Path(os.fsdecode(path)).read_bytes()
        except OSError:
            continue
        if sha256(data).hexdigest() == checksum:
            database.execute("INSERT OR REPLACE INTO contents VALUES (?, ?)", (key, data))
            database.execute("UPDATE images SET path = NULL WHERE key = ?", (key,))
    database.commit()


@dataclass(frozen=True)
class Archive:
    """A snapshot as a tar, the manifest first."""

    found: artifact.Artifact

    def _entries(self) -> Iterator[tuple[bytes, Path, int]]:
        for name in (artifact.MANIFEST, *sorted(self.found.files)):
            path = self.found.path / name
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            yield entry.tobuf(tarfile.PAX_FORMAT), path, entry.size

    def __len__(self) -> int:
        """Bytes of the archive."""
        return sum(len(head) + size + -size % _BLOCK for head, _, size in self._entries()) + 2 * _BLOCK

    def __iter__(self) -> Iterator[bytes]:
        """The archive, piece by piece."""
        for head, path, size in self._entries():
            yield head
            with path.open("rb") as f:
                while piece := f.read(_CHUNK):
                    yield piece
            yield bytes(-size % _BLOCK)
        yield bytes(2 * _BLOCK)


def write_archive(archive: Archive, path: Path) -> int:
    """Write an archive as a new file, whole or not at all. Returns: its bytes. Raises: FileExistsError."""
    with artifact.writing_atomic(path, mode=0o600, overwrite=False) as f:
        for piece in archive:
            f.write(piece)
        return f.tell()
