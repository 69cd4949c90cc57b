"""The gallery's database: images with their metadata and contents, and the codes that no generation holds yet."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import GalleryError, ImageContentGoneError, ImageNotFoundError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE images (
    key INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so a row of an old generation cannot mean another image
    id TEXT NOT NULL UNIQUE,
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    metadata TEXT NOT NULL,
    path BLOB  -- of the original file, in the bytes of its system; NULL when its bytes are in `contents`
);
CREATE TABLE contents (key INTEGER PRIMARY KEY REFERENCES images ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE codes (
    key INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
    encoder_id TEXT NOT NULL,
    code BLOB NOT NULL,  -- float32, little endian
    PRIMARY KEY (key, encoder_id)
) WITHOUT ROWID;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    options TEXT NOT NULL DEFAULT '{}',
    error TEXT,
    generation INTEGER,
    created TEXT NOT NULL,
    finished TEXT
);
"""


@dataclass(frozen=True)
class ImageRecord:
    """What the gallery knows of one image. `key` is internal; `id` is the user's."""

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


class Store:
    """An opened database. Every thread gets its own connection; readers never wait for the writer (WAL)."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.is_file():
            raise GalleryError(f"there is no gallery at {path.parent}; make one with `eigenlens build`")
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            self._open(create=create)
        except sqlite3.Error as error:
            raise GalleryError(f"the gallery's database {path} cannot be used: {error}") from error

    def _open(self, *, create: bool) -> None:
        connection = self._connection
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and create:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise GalleryError(f"{self._path} has schema {version}; this version reads schema {_SCHEMA_VERSION}")

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # check_same_thread is off only so that close() may close every thread's connection.
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=30, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

    def close(self) -> None:
        """Close every thread's connection; the store is not used afterwards."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes inside become durable together, or none does."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return self._connection.execute(sql, parameters).fetchall()

    def count(self) -> int:
        """Images in the gallery."""
        return int(self._connection.execute("SELECT count(*) FROM images").fetchone()[0])

    def holds(self, id: str, *, checksum: str, path: Path | None) -> bool:
        """Whether the image is there with this content; if its file was moved to `path`, take note of that."""
        row = self._connection.execute("SELECT sha256, path FROM images WHERE id = ?", (id,)).fetchone()
        if row is None or row[0] != checksum:
            return False
        if row[1] is not None and path is not None and row[1] != os.fsencode(path):
            with self.transaction() as connection:
                connection.execute("UPDATE images SET path = ? WHERE id = ?", (os.fsencode(path), id))
        return True

    def put(self, images: Iterable[NewImage], *, encoder_id: str) -> None:
        """Add images with their codes in one transaction; an image of the same id is replaced under a new key."""
        with self.transaction() as connection:
            for image in images:
                connection.execute("DELETE FROM images WHERE id = ?", (image.id,))
                key = connection.execute(
                    "INSERT INTO images (id, media_type, width, height, sha256, metadata, path) VALUES (?,?,?,?,?,?,?)",
                    (
                        image.id,
                        image.media_type,
                        image.width,
                        image.height,
                        image.sha256,
                        json.dumps(image.metadata),
                        None if image.path is None else os.fsencode(image.path),
                    ),
                ).lastrowid
                if image.data is not None:
                    connection.execute("INSERT INTO contents VALUES (?,?)", (key, image.data))
                connection.execute("INSERT INTO codes VALUES (?,?,?)", (key, encoder_id, image.code.tobytes()))

    def put_codes(self, keys: Sequence[int], codes: NDArray[np.float32], *, encoder_id: str) -> None:
        """Add codes of images that are there already."""
        rows = [(key, encoder_id, code.tobytes()) for key, code in zip(keys, codes, strict=True)]
        with self.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO codes VALUES (?,?,?)", rows)

    def drop_codes(self, keys: NDArray[np.int64], *, encoder_id: str) -> None:
        """Forget codes that a generation holds now, and those of other encoders."""
        with self.transaction() as connection:
            connection.executemany(
                "DELETE FROM codes WHERE key = ? AND encoder_id = ?", [(int(key), encoder_id) for key in keys]
            )
            connection.execute("DELETE FROM codes WHERE encoder_id <> ?", (encoder_id,))

    def keys(self) -> NDArray[np.int64]:
        """Keys of all images, ascending, (n,)."""
        rows = self._connection.execute("SELECT key FROM images ORDER BY key").fetchall()
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def coded_keys(self, *, encoder_id: str) -> NDArray[np.int64]:
        """Keys of the images with a code of this encoder in the store, ascending."""
        rows = self._connection.execute(
            "SELECT key FROM codes WHERE encoder_id = ? ORDER BY key", (encoder_id,)
        ).fetchall()
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def codes_of(self, keys: NDArray[np.int64], *, encoder_id: str) -> NDArray[np.float32]:
        """Codes in the store of these images, in their order, (n, code_length). Raises: GalleryError."""
        found = []
        for key in keys:
            row = self._connection.execute(
                "SELECT code FROM codes WHERE key = ? AND encoder_id = ?", (int(key), encoder_id)
            ).fetchone()
            if row is None:
                raise GalleryError(f"the store has no code of image {key} by encoder {encoder_id}")
            found.append(np.frombuffer(row[0], dtype="<f4"))
        return np.stack(found)

    def records(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of those images that are still there, by key."""
        marks = ",".join("?" * len(keys))
        rows = self._connection.execute(
            f"SELECT key, id, media_type, width, height, sha256, metadata FROM images WHERE key IN ({marks})",  # noqa: S608 - only question marks
            [int(key) for key in keys],
        )
        return {row[0]: _record(row) for row in rows}

    def record(self, id: str) -> ImageRecord:
        """Record of one image. Raises: ImageNotFoundError."""
        row = self._connection.execute(
            "SELECT key, id, media_type, width, height, sha256, metadata FROM images WHERE id = ?", (id,)
        ).fetchone()
        if row is None:
            raise ImageNotFoundError(id)
        return _record(row)

    def content(self, key: int) -> bytes:
        """The encoded bytes of an image, as they were given.

        Raises: ImageNotFoundError; ImageContentGoneError, if its file was moved, changed or removed.
        """
        row = self._connection.execute(
            "SELECT id, path, sha256, data FROM images LEFT JOIN contents USING (key) WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            raise ImageNotFoundError(str(key))
        id, path, checksum, data = row
        if data is not None:
            return bytes(data)
        try:
            found = Path(os.fsdecode(path)).read_bytes()
        except OSError as error:
            raise ImageContentGoneError(
                f"the file of image '{id}' cannot be read any more: {error.strerror}"
            ) from error
        if sha256(found).hexdigest() != checksum:
            raise ImageContentGoneError(f"the file of image '{id}' was changed; build the gallery again to take it in")
        return found


def _record(row: tuple[Any, ...]) -> ImageRecord:
    key, id, media_type, width, height, checksum, metadata = row
    return ImageRecord(key, id, media_type, width, height, checksum, json.loads(metadata))
