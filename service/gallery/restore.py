"""Restore: turn a backup into a new gallery, replace a gallery by it, or replace the images of a served gallery."""

from __future__ import annotations

import ctypes
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from eigenlens import artifact
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.service.errors import BackupError, GalleryBusyError, GalleryError
from eigenlens.service.gallery.backup import KIND
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.locks import lock_file
from eigenlens.service.gallery.store.open import read_mark
from eigenlens.service.gallery.store.sqlite import DATABASE

_STAGING = ".restoring-"
_CHUNK_BYTES = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# Files of the present gallery that a backup does not hold.
_PRESERVED = ("*.key", "keys*", "backups")


def restore(archive: Path, target: Path, *, replace: bool = False) -> int:
    """Make the gallery of a backup at `target`.

    Args:
        replace: replace an existing gallery in one step; its keys and backups are kept.

    Returns: the number of images.

    Raises: BackupError; GalleryError, if something is at `target`; GalleryBusyError, if a service is running there.
    """
    exists = target.exists()
    if exists and not replace:
        raise GalleryError(f"{target} exists already; give another directory, or --replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".building-{target.name}-"))
    try:
        gallery, _ = unpack(archive, staging)
        count = gallery.store.count()
        gallery.store.close()
        staging.chmod(0o755)
        if exists:
            with not_served(target):
                _preserve(target, staging)
                _exchange(staging, target)
        else:
            os.rename(staging, target)
        artifact.fsync_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def unpack(archive: Path, directory: Path) -> tuple[Gallery, BaseGeneration]:
    """Unpack a backup into an empty directory and verify all of it. Raises: BackupError."""
    try:
        with tarfile.open(archive, "r|") as tar:
            for member in tar:
                _unpack_member(tar, member, directory)
        backup = artifact.read(directory, kind=KIND)
        (directory / artifact.MANIFEST).unlink()
        gallery = Gallery(directory)
        generation = gallery.open_generation(int(backup.properties["generation"]))
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError, artifact.EigenlensError) as error:
        raise BackupError(f"{archive} cannot be restored: {error}") from error
    return gallery, generation


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    name = PurePosixPath(member.name)
    if not member.isreg() or name.is_absolute() or ".." in name.parts:
        raise BackupError(f"{member.name!r} does not belong in a backup")
    content = tar.extractfile(member)
    assert content is not None
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as f:
        shutil.copyfileobj(content, f, _CHUNK_BYTES)
        f.flush()
        os.fsync(f.fileno())


@contextmanager
def restore_into(gallery: Gallery, archive: Path, progress: Progress) -> Iterator[Callable[[], dict[str, int]]]:
    """Yield a function that replaces the images of a served gallery by those of a backup, in one transaction.

    Equal images stay as they are; the others are removed and added like any change. Searches are answered meanwhile,
    and each sees either the old state or the new one. The caller holds the writer's lock.

    Raises: BackupError, if it is damaged or its codes are of another encoder.
    """
    parent = gallery.root / "backups"
    parent.mkdir(exist_ok=True)
    for leftover in parent.glob(f"{_STAGING}*"):  # left by a restore that was killed
        shutil.rmtree(leftover)
    staging = Path(tempfile.mkdtemp(dir=parent, prefix=_STAGING))
    try:
        progress.start("unpack", 0)
        backup, generation = unpack(archive, staging)
        if generation.encoder_id != gallery.current_encoder_id():
            raise BackupError(
                f"{archive.name} was made with encoder {generation.encoder_id}, and the gallery is served with "
                f"{gallery.current_encoder_id()}; restore it into a directory of its own with `eigenlens restore`"
            )
        backup.store.close()
        yield lambda: _apply(gallery, staging / DATABASE, generation)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _apply(gallery: Gallery, database: Path, generation: BaseGeneration) -> dict[str, int]:
    added, removed = gallery.store.replace_by(
        database, lambda key: _code(generation, key), encoder_id=generation.encoder_id
    )
    return {"added": added, "removed": removed, "unchanged": gallery.store.count() - added}


def _code(generation: BaseGeneration, key: int) -> bytes:
    row = int(generation.codes.rows_of(np.asarray([key]))[0])
    if row < 0:
        raise BackupError(f"the backup has no code of image {key}")
    return np.asarray(generation.codes.codes[row], dtype="<f4").tobytes()


@contextmanager
def not_served(target: Path) -> Iterator[None]:
    """Hold the locks that exclude services and builds while a gallery is replaced. Raises: GalleryBusyError."""
    if read_mark(target) is not None:
        raise GalleryError(
            f"the images of {target} are in PostgreSQL: restore while it is served with --served, or make another "
            "gallery of the backup and take it there with `eigenlens migrate`"
        )
    with ExitStack() as held:
        for name in ("serving.lock", "writer.lock"):
            lock = lock_file(target / name)
            if lock is None:
                raise GalleryBusyError(
                    f"{target} is being served or built: end that first, or restore while it is served "
                    "with POST /v1/admin/restore"
                )
            held.callback(lock.close)
        yield


def _preserve(target: Path, staging: Path) -> None:
    for pattern in _PRESERVED:
        for path in target.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, staging / path.name, copy_function=os.link, dirs_exist_ok=True)
            else:
                shutil.copy2(path, staging / path.name)


def _exchange(new: Path, old: Path) -> None:
    """Swap the names of two directories, in one step if the system supports that, otherwise in three."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    swapped = renameat2 and renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0
    if not swapped:
        aside = Path(tempfile.mkdtemp(dir=old.parent, prefix=f".building-{old.name}-"))
        os.rename(old, aside)
        os.rename(new, old)
        os.rename(aside, new)
