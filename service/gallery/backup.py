"""Backups: one archive of the gallery, which is consistent even if the gallery changes meanwhile.

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
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.sqlite import DATABASE

KIND = "backup"
_LOCK_TIMEOUT_S = 5.0
_CHUNK_BYTES = 1 << 20
_TAR_BLOCK_BYTES = 512


@contextmanager
def snapshot(gallery: Gallery, *, files: bool = False) -> Iterator[artifact.Artifact]:
    """Yield a verified copy of the gallery as it is at one moment, in a directory that is removed at the end.

    Searches and changes continue; only a switch of generations waits while the database is copied.

    Args:
        files: include the bytes of images that lie in folders, so that the copy needs nothing from outside.

    Raises: GalleryBusyError, if another backup is being made; GalleryError; ArtifactError, naming what is damaged.
    """
    parent = gallery.root / "backups"
    parent.mkdir(exist_ok=True)
    lock = gallery.store.lock("backup", wait_s=_LOCK_TIMEOUT_S)
    if lock is None:
        raise GalleryBusyError(f"a backup of {gallery.root} is being made already; wait for that to end")
    try:
        artifact.remove_leftovers(parent)
        copy = Path(tempfile.mkdtemp(dir=parent, prefix=".building-snapshot-"))
        try:
            number = _copy(gallery, copy)
            with closing(sqlite3.connect(copy / DATABASE)) as database:
                if files:
                    _include_files(database)
                images = database.execute("SELECT count(*) FROM images").fetchone()[0]
            opened = Gallery(copy)
            try:
                generation = opened.open_generation(number)  # fail now, not when the backup is restored
            finally:
                opened.store.close()
            properties = {"generation": number, "images": images, "encoder": generation.encoder_id}
            yield artifact.seal(copy, kind=KIND, properties=properties)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
    finally:
        lock.close()


def _copy(gallery: Gallery, copy: Path) -> int:
    """Fill the directory `copy`. Returns: the number of the generation in it.

    While the lock is held, nothing that the generation needs is deleted from the database, so the copy of the database
    may be newer than the generation.
    """
    with gallery.choosing():
        number = gallery.current()
        if number is None:
            raise GalleryError(f"the gallery {gallery.root} has no generation yet; there is nothing to back up")
        path = gallery.generation_path(number)
        generation = artifact.read(path, kind="generation", verify=False)
        codes = gallery.codes / str(generation.properties["codes"])
        for directory in (path, codes, gallery.encoder_path(generation.made_from["encoder"])):
            _link(directory, copy / directory.relative_to(gallery.root))
        (copy / "CURRENT").write_text(f"{number}\n")
        gallery.store.copy_to(copy / DATABASE)
    return number


def _link(source: Path, target: Path) -> None:
    """Copy a directory of artifacts, by hard links if the disk supports them, since their files never change."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            link = target / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, link)
            except OSError:
                shutil.copyfile(file, link)


def _include_files(database: sqlite3.Connection) -> None:
    """Copy the bytes of image files into the database; files that were moved or changed stay outside."""
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
    """A snapshot as the bytes of a tar, the manifest first."""

    snapshot: artifact.Artifact

    def _entries(self) -> Iterator[tuple[bytes, Path, int]]:
        for name in (artifact.MANIFEST, *sorted(self.snapshot.files)):
            path = self.snapshot.path / name
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            yield entry.tobuf(tarfile.PAX_FORMAT), path, entry.size

    def __len__(self) -> int:
        """Return the size of the archive, in bytes."""
        return (
            sum(len(head) + size + -size % _TAR_BLOCK_BYTES for head, _, size in self._entries()) + 2 * _TAR_BLOCK_BYTES
        )

    def __iter__(self) -> Iterator[bytes]:
        """Yield the archive, piece by piece."""
        for head, path, size in self._entries():
            yield head
            with path.open("rb") as f:
                while piece := f.read(_CHUNK_BYTES):
                    yield piece
            yield bytes(-size % _TAR_BLOCK_BYTES)
        yield bytes(2 * _TAR_BLOCK_BYTES)


def write_archive(archive: Archive, path: Path) -> int:
    """Write an archive as a new file, whole or not at all. Returns: its bytes. Raises: FileExistsError."""
    with artifact.writing_atomic(path, mode=0o600, overwrite=False) as f:
        for piece in archive:
            f.write(piece)
        return f.tell()
