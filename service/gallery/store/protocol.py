"""The protocol of a store: all that the service asks of what keeps its images, folders and jobs.

A store is the truth about which images exist. Keys of images and numbers of removals only grow, and a change that is
durable is seen by every later call of any process, in the order of those numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.pgvector_engine.database import Database
from eigenlens.service.gallery.store.locks import Lock, LockName
from eigenlens.service.gallery.store.records import (
    Changes,
    FileState,
    Folder,
    ImageRecord,
    Job,
    Move,
    NewImage,
    Position,
    StoredFile,
)


class ImageStore(Protocol):
    """Images, their contents and metadata, the codes that are in no generation yet, and what was removed."""

    def count(self) -> int:
        """Return the number of images."""

    def record(self, id: str) -> ImageRecord:
        """Return the record of one image, in whichever of Unicode's spellings its id is. Raises: ImageNotFoundError."""

    def records(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Return the records of those images that still exist, by key."""

    def keys_of(self, ids: Sequence[str]) -> list[int]:
        """Return the keys of those images that exist; at most 32,000 ids."""

    def page(
        self, limit: int, *, after: str | None = None, prefix: str = "", contains: str = "", newest: bool = False
    ) -> list[ImageRecord]:
        """Return up to `limit` records, after `after`, of ids that begin with `prefix`, in their order.

        Args:
            contains: ids have this somewhere; capital letters of ASCII do not matter.
            newest: in the order of their addition, the last first; `after` is a key then.
        """

    def position(self) -> tuple[int, int]:
        """Return the last key and the last removal, of which one moves with each change of the images."""

    def existing(self, keys: Sequence[int]) -> set[int]:
        """Return the keys of those images that still exist."""

    def version(self) -> Hashable:
        """Return a value that differs, for the calling thread, whenever any process has changed the store.

        It may differ without a change.
        """

    def content(self, key: int) -> bytes:
        """Return the original bytes of an image.

        Raises: ImageNotFoundError; ImageContentGoneError, if its file was moved, changed or removed.
        """

    def metadata_of(self, keys: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the metadata of images, in the order of `keys`; empty for an image that was removed."""

    def values_of(self, field: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the keys, ascending, of the images with a text, number or boolean in a field, and these as text."""

    def copies(self) -> list[list[int]]:
        """Return the keys, ascending, of the images of each content that several have."""

    def holds(self, id: str, *, checksum: str, path: Path | None, metadata: dict[str, Any] | None) -> bool:
        """Return whether an image has this content and (unless None) metadata; record a new path of its file."""

    def put(self, images: Iterable[NewImage], *, encoder_id: str) -> list[bool]:
        """Add images with their codes in one transaction; an image of the same id is replaced under a new key.

        Returns: for each image, whether it replaced one.
        """

    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Remove images in one transaction. Returns: for each id, whether there was such an image."""

    def remove_keys(self, keys: Sequence[int]) -> int:
        """Remove those images that still exist, in one transaction. Returns: how many did.

        Unlike one of an id, an image of a key is never another one that took its place meanwhile.
        """

    def replace_metadata(
        self, id: str, metadata: dict[str, Any], *, key: int, code: NDArray[np.float32], encoder_id: str
    ) -> bool:
        """Replace an image's metadata. The image gets a new key, so that a record never changes under its key.

        Args:
            key, code: of the image, as they were read before.

        Returns: False, and nothing is changed, if the image was replaced or removed since.
        """

    def changes(self, since: Position, *, encoder_id: str) -> Changes:
        """Return what was added and removed after a position, read at one moment."""

    def contents(self) -> tuple[NDArray[np.int64], int]:
        """Return the keys of all images, ascending, (n,), and the last removal, read at one moment."""

    def forget(self, position: Position) -> None:
        """Delete codes and removals up to a position, which must be in every generation on disk."""

    def put_codes(self, keys: Sequence[int], codes: NDArray[np.float32], *, encoder_id: str) -> None:
        """Store codes, (n, code_length), of existing images."""

    def coded_keys(self, *, encoder_id: str) -> NDArray[np.int64]:
        """Return the keys of images with a stored code of this encoder, ascending, (n,)."""

    def codes_of(self, keys: Sequence[int], *, encoder_id: str) -> dict[int, NDArray[np.float32]]:
        """Return the pending codes of images, (code_length,) each, by key, without those that the store has none of."""


class FolderStore(Protocol):
    """The folders that a gallery is kept in step with, and their files as they were when they were last read."""

    def folders(self) -> list[Folder]:
        """Return all folders and archives, by name."""

    def add_folder(self, choose: Callable[[Mapping[str, Path]], Folder]) -> Folder:
        """Add a folder, or change the one of its name, while no other process can; links once followed stay so.

        Args:
            choose: gets the places of all folders by name, and returns the folder to record; it may raise.

        Returns: the folder as it is known now.
        """

    def stored_files(self, folder: Folder) -> dict[str, StoredFile]:
        """Return the images of a folder by id: those read from it, and those whose files lie in it."""

    def ids_of_others(self, folder: Folder) -> dict[str, str | None]:
        """Return the ids below a folder's name that are not its own, with the checksum of images without a file.

        Those are images of another folder (None), and images that were uploaded or came from an archive (their
        checksum).
        """

    def record_files(self, folder: Folder, states: Iterable[FileState]) -> None:
        """Record how the file system describes files of images of a folder, so that they are not read again."""

    def move_images(self, moves: Sequence[Move], *, encoder_id: str) -> list[str]:
        """Give images other ids and paths in one transaction, under new keys: a record never changes under its key.

        Returns: the new ids of the images moved; one that was replaced or removed meanwhile is not, nor one whose new
            id another image has.
        """


class JobStore(Protocol):
    """Records of jobs. Which may start and which were left behind is told by `service/jobs`."""

    def create_job(self, job: Job) -> str | None:
        """Record a new job, unless one has not ended. Returns: the id of that one; None, if the job was recorded."""

    def job(self, id: str) -> Job | None:
        """Return one job; None, if there is no such."""

    def jobs(self, limit: int) -> list[Job]:
        """Return the last jobs, newest first."""

    def record_progress(self, id: str, *, stage: str, done: int, total: int) -> None:
        """Record the progress of a job: `done` of `total` items of a stage. A queued job is running from now on."""

    def cancel_job(self, id: str) -> bool:
        """Mark a job to be cancelled. Returns: False, if it has ended or reached its result."""

    def record_generation(self, id: str, generation: int) -> None:
        """Record the generation that a job built."""

    def record_result(self, id: str, result: Mapping[str, Any]) -> None:
        """Record what a job did other than to publish a generation."""

    def finish_job(self, id: str, *, state: str, error: str | None, finished: str) -> None:
        """Record the end of a job, unless it is recorded already."""


class Store(ImageStore, FolderStore, JobStore, Protocol):
    """A gallery's store. Every call may come from any thread.

    store = open_store(Path("galleries/shoes"))
    record = store.record("boots/0001.png")
    """

    @property
    def is_remote(self) -> bool:
        """Whether calls wait for another process, which may be on another machine."""

    @property
    def read_only(self) -> bool:
        """Whether this process may not change the store."""

    def current(self) -> int | None:
        """Return the number of the generation to serve; None before the first build. Raises: GalleryError."""

    def activate(self, number: int) -> None:
        """Make a generation the current one; a reader sees the old number or the new one."""

    def record_forgetting(self) -> None:
        """Tell every service of the gallery to forget the codes that were searched with."""

    def last_forgetting(self) -> Hashable:
        """Return a value that changes with each `record_forgetting`; None if there was none."""

    def lock(self, name: LockName, *, shared: bool = False, wait_s: float | None = 0.0) -> Lock | None:
        """Take one of the gallery's locks, which ends with this process if it is not closed.

        Args:
            shared: several may hold it at a time, and nobody exclusively.
            wait_s: how long to wait for it; None waits as long as it takes.

        Returns: the lock; None, if another holds it for longer.
        """

    def vectors(self) -> Database | None:
        """Return the database in which a search engine keeps codes beside the store's tables; None if it has none."""

    def replace_by(self, backup: Path, code_of: Callable[[int], bytes], *, encoder_id: str) -> tuple[int, int]:
        """Replace all images by those of a backup's database, in one transaction; equal images stay as they are.

        Args:
            code_of: returns the code, as float32 in little endian, of a key of the backup that has none in it.

        Returns: the numbers of images added and removed.
        """

    def copy_to(self, path: Path) -> None:
        """Write all of the store, as it is at one moment, as a new SQLite database."""

    def size_bytes(self) -> int:
        """Return the bytes that the store takes on disk."""

    def describe(self) -> str:
        """Describe in a few words what the store is and where, without secrets."""

    def problems(self) -> list[str]:
        """Check the store. Returns: a sentence for each problem."""

    def close(self) -> None:
        """Close all connections; the store is not used afterwards."""
