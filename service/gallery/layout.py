"""The directory of a gallery: its parts, its locks, and the atomic switch from one generation to the next.

GALLERY/
  gallery.sqlite          images, contents, pending codes, jobs; or
  STORE                   the id of the gallery in PostgreSQL that has them, with CURRENT and the locks
  encoders/ID/            encoder artifacts
  codes/000001/           codes artifacts
  generations/000001/     index artifacts
  CURRENT                 number of the generation that is served
  writer.lock             held by the one process that writes generations
  switch.lock             held, shared, to switch to, open or copy generations; held exclusively to remove old ones
  job.lock                held by a running job's process and by the service that started it
  COLLECTIONS             the word that names the gallery's collections in Qdrant
  serving.lock            held, shared, by every service of the gallery
  backups/                archives that the service wrote
  duplicates.npz          what the last search for duplicates found
  queries-forgotten       its time is that of the last call to forget recent queries
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from eigenlens import artifact
from eigenlens.index.backends import (
    BACKENDS,
    FAISS,
    PGVECTOR,
    QDRANT,
    Backend,
    FaissBackend,
    PgvectorBackend,
    QdrantBackend,
)
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.engine import Engine
from eigenlens.index.faiss_engine.generation import Generation as FaissGeneration
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.qdrant_engine.names import CollectionNames
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.service.errors import GalleryBusyError, GalleryError, GenerationInUseError, GenerationNotFoundError
from eigenlens.service.gallery.store.locks import Lock
from eigenlens.service.gallery.store.open import open_store
from eigenlens.service.gallery.store.records import Position

log = logging.getLogger(__name__)

# Properties of a generation's manifest that this version writes and needs.
_REQUIRED_PROPERTIES = {"codes", "count", "indexes", "last_key", "removal", "calibration"}


class Gallery:
    """An opened gallery directory.

    gallery = Gallery(Path("galleries/shoes"))
    number, generation = gallery.open_current()
    """

    def __init__(
        self, root: Path, *, store: str | None = None, qdrant: QdrantServer | None = None, create: bool = False
    ) -> None:
        """Open the gallery at `root`.

        Args:
            store: address of the PostgreSQL that has its images; None for SQLite in its directory.
            qdrant: the server that has, or gets, its codes with the backend qdrant; None if there is none.

        Raises: GalleryError, if there is none and `create` is off.
        """
        self.root, self.store_address, self.qdrant = root, store, qdrant
        if create:
            root.mkdir(parents=True, exist_ok=True)
        self.store = open_store(root, store, create=create)
        self._writer: Lock | None = None
        self.encoders = root / "encoders"
        self.codes = root / "codes"
        self.generations = root / "generations"

    @contextmanager
    def writing(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the writer's lock, which ends with this process.

        Raises: GalleryBusyError, if another process holds it for longer than `wait_s`.
        """
        lock = self.store.lock("writer", wait_s=wait_s)
        if lock is None:
            raise GalleryBusyError(f"the gallery {self.root} is being built already; wait for that to end")
        self._writer = lock
        try:
            for parent in (self.encoders, self.codes, self.generations):
                parent.mkdir(exist_ok=True)
                artifact.remove_leftovers(parent)
            self._remove_unused_codes()
            yield
        finally:
            self._writer = None
            lock.close()

    def serving(self) -> Lock:
        """Take the lock that keeps the gallery's directory from being replaced, until it is closed.

        Raises: GalleryBusyError, while the directory is being replaced.
        """
        lock = self.store.lock("serving", shared=True)
        if lock is None:
            raise GalleryBusyError(f"the gallery {self.root} is being restored; wait for that to end")
        return lock

    def being_written(self) -> bool:
        """Return whether some process holds the writer's lock."""
        if self.store.read_only:
            return False
        lock = self.store.lock("writer")
        if lock is not None:
            lock.close()
        return lock is None

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
        """Return the number of the generation to serve; None before the first build. Raises: GalleryError."""
        return self.store.current()

    def activate(self, number: int) -> None:
        """Make a generation the current one; a reader sees the old number or the new one.

        Raises: GalleryBusyError, if this process was to be the only writer and is that no more.
        """
        if self._writer is not None:
            self._writer.verify()
        self.store.activate(number)

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
            self.open_generation(number).check()
            self.activate(number)

    def _unknown(self, number: int) -> GenerationNotFoundError:
        return GenerationNotFoundError(
            f"there is no generation {number}; kept are {', '.join(map(str, self.numbers()))}"
        )

    def choosing(self) -> AbstractContextManager[None]:
        """Hold a shared lock that keeps every generation, and the rows of the store that it needs."""
        return self._locked(shared=True)

    def _removing(self) -> AbstractContextManager[None]:
        return self._locked(shared=False)

    @contextmanager
    def _locked(self, *, shared: bool) -> Iterator[None]:
        lock = self.store.lock("switch", shared=shared, wait_s=None)
        assert lock is not None, "it was waited for"
        try:
            yield
        finally:
            lock.close()

    def generation_path(self, number: int) -> Path:
        """Return the directory of a generation."""
        return self.generations / f"{number:06d}"

    def backend(self, name: str, *, gpu: Gpu | None = None) -> Backend:
        """Return the search engine of a name, as this gallery uses it. Raises: GalleryError."""
        if name == PGVECTOR:
            return PgvectorBackend(self.store.vectors())
        if name == QDRANT:
            return QdrantBackend(self.qdrant, CollectionNames(self.root))
        if name == FAISS:
            return FaissBackend(gpu)
        raise GalleryError(f"there is no backend '{name}'; this version has {', '.join(BACKENDS)}")

    def current_backend(self) -> str:
        """Return the name of the search engine of the current generation; FAISS before the first build."""
        number = self.current()
        with contextlib.suppress(artifact.ArtifactError):
            if number is not None:
                return str(self.manifest(number).properties.get("backend", FAISS))
        return FAISS

    def open_generation(self, number: int, *, verify: bool = True, gpu: Gpu | None = None) -> BaseGeneration:
        """Open a generation with its codes. Raises: ArtifactError, which names a damaged file; SearchError."""
        properties = self.manifest(number).properties
        codes = Codes(self.codes / str(properties["codes"]), verify=verify)
        backend = self.backend(str(properties.get("backend", FAISS)), gpu=gpu)
        return backend.open(self.generation_path(number), codes, verify=verify)

    def open_current(self, *, gpu: Gpu | None = None, check: bool = False) -> tuple[int, BaseGeneration]:
        """Open the generation that CURRENT names or, if that is damaged or missing, the newest intact one.

        Args:
            check: whether its search engine has to have its indexes.

        Returns: its number and the generation.

        Raises: GalleryError, if no generation can be opened; it names every damaged file.
        """
        current = self.current()
        if current is None:
            raise GalleryError(f"the gallery {self.root} has no generation yet; make one with `eigenlens build`")
        problems = []
        for number in [current, *sorted((n for n in self.numbers() if n != current), reverse=True)]:
            try:
                generation = self.open_generation(number, gpu=gpu)
                if check:
                    generation.check()
                return number, generation
            except artifact.EigenlensError as error:
                log.warning("generation %d cannot be served: %s", number, error)
                problems.append(str(error))
        raise GalleryError(f"no generation of {self.root} can be served: {'; '.join(problems)}")

    def open_engine(self, *, gpu: Gpu | None = None) -> tuple[int, Engine]:
        """Open the engine of the generation that `open_current` opens.

        Returns: the number of the generation and the engine.

        Raises: GalleryError.
        """
        number, generation = self.open_current(gpu=gpu, check=True)
        if isinstance(generation, FaissGeneration) and gpu is not None:
            log.info("the GPU searches the lengths %s", generation.lengths_on_gpu)
        return number, LiveEngine(generation)

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
        """Remove codes, tables and collections that no generation uses, such as those of an interrupted build."""
        try:
            used = [
                artifact.read(self.generation_path(n), kind="generation", verify=False).properties
                for n in self.numbers()
            ]
        except artifact.ArtifactError as error:
            log.warning("no codes are removed while it is unknown which are used: %s", error)
            return
        for entry in self.codes.iterdir():
            if entry.name.isdigit() and entry.name not in {str(properties["codes"]) for properties in used}:
                artifact.remove(entry)
        for name in BACKENDS:
            self.backend(name).remove_unused(used)
