"""The directory of a gallery: its parts, its locks, and the atomic switch from one generation to the next.

GALLERY/
  gallery.sqlite          images, contents, pending codes, jobs
  encoders/ID/            encoder artifacts
  codes/000001/           codes artifacts
  generations/000001/     index artifacts
  CURRENT                 number of the generation that is served
  writer.lock             held by the one process that writes generations
  switch.lock             held, shared, to switch to, open or copy generations; held exclusively to remove old ones
  job.lock                held by a running job's process and by the service that started it
  serving.lock            held, shared, by every service of the gallery
  backups/                archives that the service wrote
  duplicates.npz          what the last search for duplicates found
  queries-forgotten       its time is that of the last call to forget recent queries
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.engine import Engine
from eigenlens.index.faiss_engine.engine import FaissEngine
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.service.errors import GalleryBusyError, GalleryError, GenerationInUseError, GenerationNotFoundError
from eigenlens.service.gallery.store import Position, Store

log = logging.getLogger(__name__)

# Properties of a generation's manifest that this version writes and needs.
_REQUIRED_PROPERTIES = {"codes", "count", "indexes", "last_key", "removal", "calibration"}
_LOCK_POLL_S = 0.02


def try_lock(lock: IO[str], *, wait_s: float = 0.0) -> bool:
    """Take a file's exclusive lock. Returns: False, if another process holds it for longer than `wait_s`."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_POLL_S)
        else:
            return True


class Gallery:
    """An opened gallery directory.

    gallery = Gallery(Path("galleries/shoes"))
    number, generation = gallery.open_current()
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        """Open the gallery at `root`. Raises: GalleryError, if there is none and `create` is off."""
        self.root = root
        if create:
            root.mkdir(parents=True, exist_ok=True)
        self.store = Store(root / "gallery.sqlite", create=create)
        self.encoders = root / "encoders"
        self.codes = root / "codes"
        self.generations = root / "generations"

    @contextmanager
    def writing(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the writer's lock; the system releases it if the process is killed.

        Raises: GalleryBusyError, if another process holds it for longer than `wait_s`.
        """
        with (self.root / "writer.lock").open("w") as lock:
            if not try_lock(lock, wait_s=wait_s):
                raise GalleryBusyError(f"the gallery {self.root} is being built already; wait for that to end")
            for parent in (self.encoders, self.codes, self.generations):
                parent.mkdir(exist_ok=True)
                artifact.remove_leftovers(parent)
            self._remove_unused_codes()
            yield

    def serving(self) -> int:
        """Take the lock that keeps the gallery's directory from being replaced.

        Returns: a file descriptor; the lock lasts until it is closed.

        Raises: GalleryBusyError, while the directory is being replaced.
        """
        lock = self._open_lock("serving.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise GalleryBusyError(f"the gallery {self.root} is being restored; wait for that to end") from None
        return lock

    def try_job_lock(self) -> int | None:
        """Take the lock of the one job that may run; it lasts until the descriptor and its copies are closed.

        Returns: a file descriptor; None, while a job runs.
        """
        lock = os.open(self.root / "job.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def being_written(self) -> bool:
        """Return whether some process holds the writer's lock."""
        if self.store.read_only:
            return False
        with (self.root / "writer.lock").open("a") as lock:
            return not try_lock(lock)

    def numbers(self) -> list[int]:
        """Return the numbers of the generations on disk, ascending."""
        if not self.generations.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.generations.iterdir() if entry.name.isdigit())

    def next_number(self) -> int:
        """Return a number above those of all generations and codes on disk."""
        used = [int(entry.name) for entry in self.codes.iterdir() if entry.name.isdigit()]
        return max([0, *used, *self.numbers()]) + 1

    def current(self) -> int | None:
        """Return the number of the generation to serve; None before the first build."""
        try:
            return int((self.root / "CURRENT").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise GalleryError(f"{self.root / 'CURRENT'} does not hold a number") from error

    def activate(self, number: int) -> None:
        """Make a generation the current one; a reader of CURRENT sees the old number or the new one."""
        artifact.write_atomic(self.root / "CURRENT", f"{number}\n".encode())

    def record_forgetting(self) -> None:
        """Tell every service of the gallery to forget the codes that were searched with."""
        artifact.write_atomic(self.root / "queries-forgotten", b"")

    def last_forgetting(self) -> int | None:
        """Return when `record_forgetting` was last called, in nanoseconds; None if it never was."""
        try:
            return (self.root / "queries-forgotten").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def manifests(self) -> Iterator[tuple[int, artifact.Artifact]]:
        """Yield numbers and manifests of the generations on disk, ascending, without the damaged ones."""
        for number in self.numbers():
            with contextlib.suppress(artifact.ArtifactError):
                yield number, self.manifest(number)

    def manifest(self, number: int) -> artifact.Artifact:
        """Read the manifest of a generation, without verifying its files. Raises: ArtifactError."""
        path = self.generation_path(number)
        manifest = artifact.read(path, kind="generation", verify=False)
        if not manifest.properties.keys() >= _REQUIRED_PROPERTIES:
            raise artifact.ArtifactError(f"{path} was made by an earlier version: run `eigenlens build` again")
        return manifest

    def switch(self, number: int) -> None:
        """Verify a generation and activate it. Raises: GenerationNotFoundError; ArtifactError, naming the damage."""
        with self.choosing():
            if number not in self.numbers():
                raise self._unknown(number)
            self.open_generation(number)
            self.activate(number)

    def _unknown(self, number: int) -> GenerationNotFoundError:
        return GenerationNotFoundError(
            f"there is no generation {number}; kept are {', '.join(map(str, self.numbers()))}"
        )

    def choosing(self) -> AbstractContextManager[None]:
        """Hold a shared lock that keeps every generation, and the rows of the database that it needs."""
        return self._locked(fcntl.LOCK_SH)

    def _removing(self) -> AbstractContextManager[None]:
        return self._locked(fcntl.LOCK_EX)

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        lock = self._open_lock("switch.lock")
        try:
            fcntl.flock(lock, operation)
            yield
        finally:
            os.close(lock)

    def _open_lock(self, name: str) -> int:
        """Open a lock file; in a read-only gallery without one, the gallery's directory takes its place."""
        path = self.root / name
        if not self.store.read_only:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        return os.open(path if path.exists() else self.root, os.O_RDONLY)

    def generation_path(self, number: int) -> Path:
        """Return the directory of a generation."""
        return self.generations / f"{number:06d}"

    def open_generation(self, number: int, *, verify: bool = True, gpu: Gpu | None = None) -> Generation:
        """Open a generation with its codes. Raises: ArtifactError, which names a damaged file; SearchError."""
        codes = Codes(self.codes / str(self.manifest(number).properties["codes"]), verify=verify)
        return Generation(self.generation_path(number), codes, verify=verify, gpu=gpu)

    def open_current(self, *, gpu: Gpu | None = None) -> tuple[int, Generation]:
        """Open the generation that CURRENT names or, if that is damaged or missing, the newest intact one.

        Returns: its number and the generation.

        Raises: GalleryError, if no generation can be opened; it names every damaged file.
        """
        current = self.current()
        if current is None:
            raise GalleryError(f"the gallery {self.root} has no generation yet; make one with `eigenlens build`")
        problems = []
        for number in [current, *sorted((n for n in self.numbers() if n != current), reverse=True)]:
            try:
                return number, self.open_generation(number, gpu=gpu)
            except artifact.EigenlensError as error:
                log.warning("generation %d cannot be served: %s", number, error)
                problems.append(str(error))
        raise GalleryError(f"no generation of {self.root} can be served: {'; '.join(problems)}")

    def open_engine(self, *, gpu: Gpu | None = None) -> tuple[int, Engine]:
        """Open the engine of the generation that `open_current` opens.

        Returns: the number of the generation and the engine.

        Raises: GalleryError.
        """
        number, generation = self.open_current(gpu=gpu)
        if gpu is not None:
            log.info("the GPU searches the lengths %s", generation.lengths_on_gpu)
        return number, FaissEngine(generation, gpu=gpu)

    def current_encoder_id(self) -> str:
        """Return the id of the current encoder. Raises: GalleryError, before the first build; ArtifactError."""
        number = self.current()
        if number is None:
            raise GalleryError(f"the gallery {self.root} has no generation yet; make one with `eigenlens build`")
        return artifact.read(self.generation_path(number), kind="generation", verify=False).made_from["encoder"]

    def encoder_path(self, encoder_id: str) -> Path:
        """Return the directory of the gallery's own copy of an encoder."""
        return self.encoders / encoder_id

    def adopt_encoder(self, path: Path) -> Path:
        """Copy an encoder artifact into the gallery, which then needs nothing from outside. Raises: ArtifactError."""
        encoder = artifact.read(path, kind="encoder", verify=False)
        target = self.encoder_path(encoder.id)
        if not target.exists():
            artifact.copy(path, target, kind="encoder")
        return target

    def retire(self, *, keep: int, served: int | None = None) -> None:
        """Remove all but the newest `keep` generations and the current one, and the codes that no other needs.

        Args:
            served: another generation to keep: services serve it until they notice the switch to the current one.
        """
        with self._removing():
            for number in self.numbers()[:-keep]:
                if number not in (self.current(), served):
                    artifact.remove(self.generation_path(number))
            self._remove_unused_codes()
            with contextlib.suppress(artifact.ArtifactError):  # a damaged generation may need any row: delete none
                positions = [self.position_of(number) for number in self.numbers()]
                self.store.forget(Position(min(p.key for p in positions), min(p.removal for p in positions)))

    def remove_generation(self, number: int) -> None:
        """Remove a generation that is not the current one; its codes go with it if nothing needs them.

        Raises: GenerationNotFoundError; GenerationInUseError.
        """
        with self._removing():
            if number not in self.numbers():
                raise self._unknown(number)
            if number == self.current():
                raise GenerationInUseError(f"generation {number} is served; activate another one first")
            artifact.remove(self.generation_path(number))
        with contextlib.suppress(GalleryBusyError), self.writing():
            pass  # taking the writer's lock removes unused codes; if a build holds it, the next writer does

    def position_of(self, number: int) -> Position:
        """Return the position in the gallery's history up to which a generation is built. Raises: ArtifactError."""
        properties = self.manifest(number).properties
        return Position(int(properties["last_key"]), int(properties["removal"]))

    def _remove_unused_codes(self) -> None:
        """Remove codes that no generation uses, such as those of an interrupted build."""
        try:
            used = {
                str(artifact.read(self.generation_path(n), kind="generation", verify=False).properties["codes"])
                for n in self.numbers()
            }
        except artifact.ArtifactError as error:
            log.warning("no codes are removed while it is unknown which are used: %s", error)
            return
        for entry in self.codes.iterdir():
            if entry.name.isdigit() and entry.name not in used:
                artifact.remove(entry)
