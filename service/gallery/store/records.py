"""What a store holds: images, their changes, the files that they were read from, and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageRecord:
    """One image as the gallery stores it. `key` is internal; `id` is the user's."""

    key: int
    id: str
    media_type: str
    width: int
    height: int
    sha256: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class NewImage:
    """An image to add, with its code under one encoder. Exactly one of `data` and `path` holds its content."""

    id: str
    media_type: str
    width: int
    height: int
    sha256: str
    metadata: dict[str, Any]
    code: NDArray[np.float32]
    data: bytes | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Position:
    """A point in a gallery's history: after all keys up to `key` and all removals up to `removal`."""

    key: int
    removal: int


@dataclass(frozen=True)
class Changes:
    """Additions and removals after a position.

    Attributes:
        keys, codes, metadata: of images that were added and still exist; a code is None if the encoder made none.
        removed: keys of images that were removed or replaced.
        position: after these changes.
    """

    keys: list[int]
    codes: list[NDArray[np.float32] | None]
    metadata: list[dict[str, Any]]
    removed: list[int]
    position: Position


@dataclass(frozen=True)
class Folder:
    """A folder, or an archive of one, whose images are in a gallery.

    Attributes:
        name: begins the ids of its images, before a slash; empty for the first folder of a gallery, unless it was
            given a name.
        path: where it is.
        follow_links: whether folders that links lead to belong to it.
        boundary: folder out of which no link may lead; None if links may lead anywhere.
        kind: "folder", which can be kept in step with, or "archive".
    """

    name: str
    path: Path
    follow_links: bool = False
    boundary: Path | None = None
    kind: str = "folder"

    @property
    def prefix(self) -> str:
        """Beginning of the ids of its images."""
        return f"{self.name}/" if self.name else ""


@dataclass(frozen=True)
class StoredFile:
    """An image of a folder as the gallery knows it; `size` and `mtime_ns` are -1 where they are not known."""

    key: int
    id: str
    sha256: str
    path: str
    metadata: dict[str, Any]
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Move:
    """An image whose file has another place now, with its code if there is one."""

    key: int
    id: str
    path: Path
    metadata: Mapping[str, Any]
    code: NDArray[np.float32] | None


@dataclass(frozen=True)
class FileState:
    """How the file system described an image's file when it was last read."""

    id: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        stage, done, total: progress: the present stage, its items done, and its number of items.
        generation: number of the generation that the job published; None if it published none.
        result: other results of the job, such as the number of images that it imported; None without any.
        created, finished: times in ISO format, UTC; `finished` is None until it ends.
    """

    id: str
    kind: str
    state: str
    stage: str
    done: int
    total: int
    options: dict[str, Any]
    error: str | None
    generation: int | None
    created: str
    finished: str | None
    result: dict[str, Any] | None

    @property
    def has_result(self) -> bool:
        """Whether the job has reached its result."""
        return self.generation is not None or self.result is not None
