"""The store: images with their metadata and contents, and the codes that are not in a generation yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_ids import spellings
from eigenlens.service.errors import ImageContentGoneError, ImageNotFoundError
from eigenlens.service.gallery.database import Database

# Of one statement, in any build of SQLite.
_MAX_VARIABLES = 30_000
_RECORD = "key, id, media_type, width, height, sha256, metadata"


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


class Store(Database):
    """Images, their contents and pending codes in the gallery's database.

    store = Store(Path("galleries/shoes/gallery.sqlite"))
    record = store.record("boots/0001.png")
    """

    def count(self) -> int:
        """Return the number of images."""
        return int(self.connection.execute("SELECT count(*) FROM images").fetchone()[0])

    def holds(self, id: str, *, checksum: str, path: Path | None, metadata: dict[str, Any] | None) -> bool:
        """Return whether an image has this content and (unless None) metadata; record a new path of its file."""
        marks, names = _spelled(id)
        row = self.connection.execute(
            f"SELECT sha256, path, metadata, key FROM images WHERE id IN ({marks})",  # noqa: S608 - only question marks
            names,
        ).fetchone()
        if row is None or row[0] != checksum or (metadata is not None and json.loads(row[2]) != metadata):
            return False
        if row[1] is not None and path is not None and row[1] != os.fsencode(path):
            with self.transaction() as connection:
                connection.execute("UPDATE images SET path = ? WHERE key = ?", (os.fsencode(path), row[3]))
        return True

    def put(self, images: Iterable[NewImage], *, encoder_id: str) -> list[bool]:
        """Add images with their codes in one transaction; an image of the same id is replaced under a new key.

        Returns: for each image, whether it replaced one.
        """
        replaced = []
        with self.transaction() as connection:
            for image in images:
                marks, names = _spelled(image.id)
                deleted = connection.execute(f"DELETE FROM images WHERE id IN ({marks})", names)  # noqa: S608
                replaced.append(deleted.rowcount > 0)
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
                connection.execute("INSERT INTO codes VALUES (?,?,?)", (key, encoder_id, _code_bytes(image.code)))
        return replaced

    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Remove images in one transaction. Returns: for each id, whether there was such an image."""
        with self.transaction() as connection:
            return [connection.execute("DELETE FROM images WHERE id = ?", (id,)).rowcount > 0 for id in ids]

    def replace_metadata(
        self, id: str, metadata: dict[str, Any], *, key: int, code: NDArray[np.float32], encoder_id: str
    ) -> bool:
        """Replace an image's metadata. The image gets a new key, so that a record never changes under its key.

        Args:
            key, code: of the image, as they were read before.

        Returns: False, and nothing is changed, if the image was replaced or removed since.
        """
        with self.transaction() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'images'")
            new = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()[0]
            changed = connection.execute(
                "UPDATE images SET key = ?, metadata = ? WHERE id = ? AND key = ?", (new, json.dumps(metadata), id, key)
            )
            if changed.rowcount == 0:
                return False
            connection.execute("UPDATE contents SET key = ? WHERE key = ?", (new, key))
            connection.execute("DELETE FROM codes WHERE key = ?", (key,))
            connection.execute("INSERT INTO codes VALUES (?,?,?)", (new, encoder_id, _code_bytes(code)))
            connection.execute("INSERT INTO removed (key) VALUES (?)", (key,))
            return True

    def changes(self, since: Position, *, encoder_id: str) -> Changes:
        """Return what was added and removed after a position, read at one moment."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            removed = connection.execute(
                "SELECT seq, key FROM removed WHERE seq > ? ORDER BY seq", (since.removal,)
            ).fetchall()
            added = connection.execute(
                "SELECT images.key, code, metadata FROM images LEFT JOIN codes "
                "ON codes.key = images.key AND encoder_id = ? WHERE images.key > ? ORDER BY images.key",
                (encoder_id, since.key),
            ).fetchall()
        finally:
            connection.execute("COMMIT")
        return Changes(
            keys=[row[0] for row in added],
            codes=[None if row[1] is None else np.frombuffer(row[1], dtype="<f4") for row in added],
            metadata=[json.loads(row[2]) for row in added],
            removed=[row[1] for row in removed],
            position=Position(added[-1][0] if added else since.key, removed[-1][0] if removed else since.removal),
        )

    def contents(self) -> tuple[NDArray[np.int64], int]:
        """Return the keys of all images, ascending, (n,), and the last removal, read at one moment."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            cursor = connection.execute("SELECT key FROM images ORDER BY key")
            keys = np.fromiter((row[0] for row in cursor), dtype=np.int64)
            removal = connection.execute("SELECT coalesce(max(seq), 0) FROM removed").fetchone()[0]
        finally:
            connection.execute("COMMIT")
        return keys, int(removal)

    def metadata_of(self, keys: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the metadata of images, in the order of `keys`; empty for an image that was removed."""
        for key in keys:
            row = self.connection.execute("SELECT metadata FROM images WHERE key = ?", (int(key),)).fetchone()
            yield {} if row is None else json.loads(row[0])

    def values_of(self, field: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the keys, ascending, of the images with a text, number or boolean in a field, and these as text."""
        rows = self.connection.execute(
            "SELECT images.key, CASE entry.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
            "ELSE CAST(entry.atom AS TEXT) END FROM images, json_each(images.metadata) AS entry "
            "WHERE entry.key = ? AND entry.atom IS NOT NULL ORDER BY images.key",
            (field,),
        ).fetchall()
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)), [row[1] for row in rows]

    def forget(self, position: Position) -> None:
        """Delete codes and removals up to a position, which must be in every generation on disk."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM codes WHERE key <= ?", (position.key,))
            connection.execute("DELETE FROM removed WHERE seq <= ?", (position.removal,))

    def put_codes(self, keys: Sequence[int], codes: NDArray[np.float32], *, encoder_id: str) -> None:
        """Store codes, (n, code_length), of existing images."""
        with self.transaction() as connection:
            for key, code in zip(keys, codes, strict=True):
                connection.execute(  # an image that was removed meanwhile needs none
                    "INSERT OR REPLACE INTO codes SELECT key, ?, ? FROM images WHERE key = ?",
                    (encoder_id, _code_bytes(code), key),
                )

    def copies(self) -> list[list[int]]:
        """Return the keys, ascending, of the images of each content that several have."""
        groups: dict[str, list[int]] = {}
        for key, checksum in self.connection.execute(
            "SELECT key, sha256 FROM images WHERE sha256 IN "
            "(SELECT sha256 FROM images GROUP BY sha256 HAVING count(*) > 1) ORDER BY key"
        ):
            groups.setdefault(checksum, []).append(key)
        return list(groups.values())

    def coded_keys(self, *, encoder_id: str) -> NDArray[np.int64]:
        """Return the keys of images with a stored code of this encoder, ascending, (n,)."""
        rows = self.connection.execute(
            "SELECT key FROM codes WHERE encoder_id = ? ORDER BY key", (encoder_id,)
        ).fetchall()
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def code_of(self, key: int, *, encoder_id: str) -> NDArray[np.float32] | None:
        """Return the pending code of an image, (code_length,); None if the store has none."""
        row = self.connection.execute(
            "SELECT code FROM codes WHERE key = ? AND encoder_id = ?", (key, encoder_id)
        ).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype="<f4")

    def records(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Return the records of those images that still exist, by key."""
        records: dict[int, ImageRecord] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = [int(key) for key in keys[start : start + _MAX_VARIABLES]]
            marks = ",".join("?" * len(part))
            rows = self.connection.execute(
                f"SELECT {_RECORD} FROM images WHERE key IN ({marks})",  # noqa: S608 - only question marks
                part,
            )
            records |= {row[0]: _record(row) for row in rows}
        return records

    def keys_of(self, ids: Sequence[str]) -> list[int]:
        """Return the keys of those images that exist; at most 32,000 ids."""
        marks = ",".join("?" * len(ids))
        try:
            rows = self.connection.execute(f"SELECT key FROM images WHERE id IN ({marks})", list(ids))  # noqa: S608
            return [row[0] for row in rows]
        except UnicodeEncodeError:  # half a surrogate pair: no image has such an id
            return []

    def page(self, limit: int, *, after: str | None = None, prefix: str = "") -> list[ImageRecord]:
        """Return up to `limit` records in the order of their ids, after `after`, of ids that begin with `prefix`."""
        try:
            rows = self.connection.execute(
                f"SELECT {_RECORD} FROM images WHERE id > ? AND id >= ? AND id < ? || char(0x10FFFF) "  # noqa: S608 - constant
                "ORDER BY id LIMIT ?",
                (after or "", prefix, prefix, limit),
            ).fetchall()
        except UnicodeEncodeError:  # half a surrogate pair: no image has such an id
            rows = []
        return [_record(row) for row in rows]

    def existing(self, keys: Sequence[int]) -> set[int]:
        """Return the keys of those images that still exist."""
        if not keys:
            return set()
        marks = ",".join("?" * len(keys))
        rows = self.connection.execute(f"SELECT key FROM images WHERE key IN ({marks})", list(keys))  # noqa: S608
        return {row[0] for row in rows}

    def version(self) -> tuple[int, int]:
        """Return a value that differs, for the calling thread, whenever any process has changed the database."""
        connection = self.connection
        return connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes

    def record(self, id: str) -> ImageRecord:
        """Return the record of one image, in whichever of Unicode's spellings its id is. Raises: ImageNotFoundError."""
        try:
            marks, names = _spelled(id)
            row = self.connection.execute(
                f"SELECT {_RECORD} FROM images WHERE id IN ({marks})",  # noqa: S608 - constant and question marks
                names,
            ).fetchone()
        except UnicodeEncodeError:  # half a surrogate pair: no image has such an id
            row = None
        if row is None:
            raise ImageNotFoundError(id)
        return _record(row)

    def content(self, key: int) -> bytes:
        """Return the original bytes of an image.

        Raises: ImageNotFoundError; ImageContentGoneError, if its file was moved, changed or removed.
        """
        row = self.connection.execute(
            "SELECT id, path, sha256, data FROM images LEFT JOIN contents USING (key) WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            raise ImageNotFoundError(str(key))
        id, path, checksum, data = row
        if data is not None:
            return bytes(data)
        try:
            content = Path(os.fsdecode(path)).read_bytes()
        except OSError as error:
            raise ImageContentGoneError(
                f"the file of image '{id}' cannot be read any more: {error.strerror}"
            ) from error
        if sha256(content).hexdigest() != checksum:
            raise ImageContentGoneError(f"the file of image '{id}' was changed; build the gallery again to update it")
        return content


def _spelled(id: str) -> tuple[str, tuple[str, ...]]:
    """Return question marks and the spellings of an id, for a condition `id IN (...)`."""
    names = spellings(id)
    return ",".join("?" * len(names)), names


def _code_bytes(code: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(code, dtype="<f4").tobytes()


def _record(row: tuple[Any, ...]) -> ImageRecord:
    key, id, media_type, width, height, checksum, metadata = row
    return ImageRecord(key, id, media_type, width, height, checksum, json.loads(metadata))
