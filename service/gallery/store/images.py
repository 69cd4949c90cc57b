"""The statements of a store about images, their contents, their codes and removals."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_ids import spellings
from eigenlens.service.errors import ImageContentGoneError, ImageNotFoundError
from eigenlens.service.gallery.store.records import Changes, ImageRecord, NewImage, Position
from eigenlens.service.gallery.store.sql import Connection, Database, Row

_RECORD = "key, id, media_type, width, height, sha256, metadata"
_KEYS_PER_QUERY = 10_000
_LAST_KEY = 2**62
_METADATA_PER_QUERY = 1000
# No character comes after it: ids that begin with a prefix come before the prefix with it.
LAST_CHARACTER = chr(0x10FFFF)
_SAME = "old.id = new.id AND old.sha256 = new.sha256 AND old.metadata = new.metadata"


class ImageStatements(Database):
    """Images in the tables `images`, `contents`, `codes` and `removed`."""

    def count(self) -> int:
        """Return the number of images."""
        return int(self.query("SELECT count(*) FROM images")[0][0])

    def record(self, id: str) -> ImageRecord:
        """Return the record of one image, in whichever of Unicode's spellings its id is. Raises: ImageNotFoundError."""
        rows = []
        if _is_stored_text(id):
            condition, names = self.among("id", spellings(id))
            rows = self.query(f"SELECT {_RECORD} FROM images WHERE {condition}", names)
        if not rows:
            raise ImageNotFoundError(id)
        return _record(rows[0])

    def records(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Return the records of those images that still exist, by key."""
        records: dict[int, ImageRecord] = {}
        for part in _parts(keys, _KEYS_PER_QUERY):
            condition, parameters = self.among("key", part)
            rows = self.query(f"SELECT {_RECORD} FROM images WHERE {condition}", parameters)
            records |= {row[0]: _record(row) for row in rows}
        return records

    def keys_of(self, ids: Sequence[str]) -> list[int]:
        """Return the keys of those images that exist; at most 32,000 ids."""
        condition, parameters = self.among("id", [id for id in ids if _is_stored_text(id)])
        return [row[0] for row in self.query(f"SELECT key FROM images WHERE {condition}", parameters)]

    def page(
        self, limit: int, *, after: str | None = None, prefix: str = "", contains: str = "", newest: bool = False
    ) -> list[ImageRecord]:
        """Return up to `limit` records, after `after`, of ids that begin with `prefix`, in their order.

        Args:
            contains: ids have this somewhere; capital letters of ASCII do not matter.
            newest: in the order of their addition, the last first; `after` is a key then.
        """
        if not all(map(_is_stored_text, (prefix, after or "", contains))):
            return []
        conditions, parameters = "id >= ? AND id < ?", [prefix, prefix + LAST_CHARACTER]
        if contains:
            small = contains.translate({letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)})
            conditions += " AND lower(id) LIKE ? ESCAPE '!'"
            parameters.append(f"%{re.sub('[!%_]', lambda sign: '!' + sign[0], small)}%")
        place: int | str = int(after or _LAST_KEY) if newest else after or ""
        order = ("key < ?", "key DESC") if newest else ("id > ?", "id")
        rows = self.query(
            f"SELECT {_RECORD} FROM images WHERE {order[0]} AND {conditions} ORDER BY {order[1]} LIMIT ?",
            (place, *parameters, limit),
        )
        return [_record(row) for row in rows]

    def position(self) -> tuple[int, int]:
        """Return the last key and the last removal, of which one moves with each change of the images."""
        key, removal = self.query(
            "SELECT (SELECT coalesce(max(key), 0) FROM images), (SELECT coalesce(max(seq), 0) FROM removed)"
        )[0]
        return int(key), int(removal)

    def existing(self, keys: Sequence[int]) -> set[int]:
        """Return the keys of those images that still exist."""
        existing: set[int] = set()
        for part in _parts(keys, _KEYS_PER_QUERY):
            condition, parameters = self.among("key", part)
            rows = self.query(f"SELECT key FROM images WHERE {condition}", parameters)
            existing.update(row[0] for row in rows)
        return existing

    def content(self, key: int) -> bytes:
        """Return the original bytes of an image.

        Raises: ImageNotFoundError; ImageContentGoneError, if its file was moved, changed or removed.
        """
        rows = self.query(
            "SELECT id, path, sha256, data FROM images LEFT JOIN contents ON contents.key = images.key "
            "WHERE images.key = ?",
            (key,),
        )
        if not rows:
            raise ImageNotFoundError(str(key))
        id, path, checksum, data = rows[0]
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

    def metadata_of(self, keys: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the metadata of images, in the order of `keys`; empty for an image that was removed."""
        for part in _parts(keys, _METADATA_PER_QUERY):
            condition, parameters = self.among("key", part)
            rows = self.query(f"SELECT key, metadata FROM images WHERE {condition}", parameters)
            texts: dict[int, str] = {row[0]: row[1] for row in rows}
            for key in part:
                text = texts.get(key)
                yield {} if text is None else json.loads(text)

    def copies(self) -> list[list[int]]:
        """Return the keys, ascending, of the images of each content that several have."""
        groups: dict[str, list[int]] = {}
        for key, checksum in self.query(
            "SELECT key, sha256 FROM images WHERE sha256 IN "
            "(SELECT sha256 FROM images GROUP BY sha256 HAVING count(*) > 1) ORDER BY key"
        ):
            groups.setdefault(checksum, []).append(key)
        return list(groups.values())

    def holds(self, id: str, *, checksum: str, path: Path | None, metadata: dict[str, Any] | None) -> bool:
        """Return whether an image has this content and (unless None) metadata; record a new path of its file."""
        condition, names = self.among("id", spellings(id))
        rows = self.query(f"SELECT sha256, path, metadata, key FROM images WHERE {condition}", names)
        if not rows or rows[0][0] != checksum or (metadata is not None and json.loads(rows[0][2]) != metadata):
            return False
        _, known, _, key = rows[0]
        if known is not None and path is not None and known != os.fsencode(path):
            with self.transaction() as connection:
                connection.execute("UPDATE images SET path = ? WHERE key = ?", (os.fsencode(path), key))
        return True

    def put(self, images: Iterable[NewImage], *, encoder_id: str) -> list[bool]:
        """Add images with their codes in one transaction; an image of the same id is replaced under a new key.

        Returns: for each image, whether it replaced one.
        """
        replaced = []
        with self.transaction() as connection:
            for image in images:
                condition, names = self.among("id", spellings(image.id))
                deleted = connection.execute(f"DELETE FROM images WHERE {condition}", names)
                replaced.append(deleted.rowcount > 0)
                key = self.next_key(connection)
                connection.execute(
                    "INSERT INTO images (key, id, media_type, width, height, sha256, metadata, path) "
                    "VALUES (?,?,?,?,?,?,?,?)",
                    (
                        key,
                        image.id,
                        image.media_type,
                        image.width,
                        image.height,
                        image.sha256,
                        json.dumps(image.metadata),
                        None if image.path is None else os.fsencode(image.path),
                    ),
                )
                if image.data is not None:
                    connection.execute("INSERT INTO contents (key, data) VALUES (?,?)", (key, image.data))
                _put_code(connection, key, encoder_id, code_bytes(image.code))
        return replaced

    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Remove images in one transaction. Returns: for each id, whether there was such an image."""
        with self.transaction() as connection:
            return [connection.execute("DELETE FROM images WHERE id = ?", (id,)).rowcount > 0 for id in ids]

    def remove_keys(self, keys: Sequence[int]) -> int:
        """Remove those images that still exist, in one transaction. Returns: how many did."""
        with self.transaction() as connection:
            return sum(connection.execute("DELETE FROM images WHERE key = ?", (key,)).rowcount for key in keys)

    def replace_metadata(
        self, id: str, metadata: dict[str, Any], *, key: int, code: NDArray[np.float32], encoder_id: str
    ) -> bool:
        """Replace an image's metadata. The image gets a new key, so that a record never changes under its key.

        Args:
            key, code: of the image, as they were read before.

        Returns: False, and nothing is changed, if the image was replaced or removed since.
        """
        with self.transaction() as connection:
            new = self.next_key(connection)
            changed = connection.execute(
                "UPDATE images SET key = ?, metadata = ? WHERE id = ? AND key = ?", (new, json.dumps(metadata), id, key)
            )
            if changed.rowcount == 0:
                return False
            replace_key(connection, key, new, encoder_id=encoder_id, code=code)
            return True

    def changes(self, since: Position, *, encoder_id: str) -> Changes:
        """Return what was added and removed after a position, read at one moment."""
        with self.reading() as connection:
            removed = connection.execute(
                "SELECT seq, key FROM removed WHERE seq > ? ORDER BY seq", (since.removal,)
            ).fetchall()
            added = connection.execute(
                "SELECT images.key, code, metadata FROM images LEFT JOIN codes "
                "ON codes.key = images.key AND encoder_id = ? WHERE images.key > ? ORDER BY images.key",
                (encoder_id, since.key),
            ).fetchall()
        return Changes(
            keys=[row[0] for row in added],
            codes=[None if row[1] is None else np.frombuffer(row[1], dtype="<f4") for row in added],
            metadata=[json.loads(row[2]) for row in added],
            removed=[row[1] for row in removed],
            position=Position(added[-1][0] if added else since.key, removed[-1][0] if removed else since.removal),
        )

    def contents(self) -> tuple[NDArray[np.int64], int]:
        """Return the keys of all images, ascending, (n,), and the last removal, read at one moment."""
        with self.reading() as connection:
            cursor = connection.execute("SELECT key FROM images ORDER BY key")
            keys = np.fromiter((row[0] for row in cursor), dtype=np.int64)
            removal = connection.execute("SELECT coalesce(max(seq), 0) FROM removed").fetchone()[0]
        return keys, int(removal)

    def forget(self, position: Position) -> None:
        """Delete codes and removals up to a position, which must be in every generation on disk."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM codes WHERE key <= ?", (position.key,))
            connection.execute("DELETE FROM removed WHERE seq <= ?", (position.removal,))

    def put_codes(self, keys: Sequence[int], codes: NDArray[np.float32], *, encoder_id: str) -> None:
        """Store codes, (n, code_length), of existing images."""
        with self.transaction() as connection:
            for key, code in zip(keys, codes, strict=True):
                # An image that was removed meanwhile needs none.
                if connection.execute("SELECT 1 FROM images WHERE key = ?", (int(key),)).fetchone() is not None:
                    _put_code(connection, int(key), encoder_id, code_bytes(code))

    def coded_keys(self, *, encoder_id: str) -> NDArray[np.int64]:
        """Return the keys of images with a stored code of this encoder, ascending, (n,)."""
        rows = self.query("SELECT key FROM codes WHERE encoder_id = ? ORDER BY key", (encoder_id,))
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def codes_of(self, keys: Sequence[int], *, encoder_id: str) -> dict[int, NDArray[np.float32]]:
        """Return the pending codes of images, (code_length,) each, by key, without those that the store has none of."""
        codes: dict[int, NDArray[np.float32]] = {}
        for part in _parts(keys, _KEYS_PER_QUERY):
            condition, parameters = self.among("key", part)
            rows = self.query(
                f"SELECT key, code FROM codes WHERE encoder_id = ? AND {condition}",
                [encoder_id, *parameters],
            )
            codes |= {row[0]: np.frombuffer(row[1], dtype="<f4") for row in rows}
        return codes

    def replace_by(self, backup: Path, code_of: Callable[[int], bytes], *, encoder_id: str) -> tuple[int, int]:
        """Replace all images by those of a backup's database, in one transaction; equal images stay as they are.

        Args:
            code_of: returns the code, as float32 in little endian, of a key of the backup that has none in it.

        Returns: the numbers of images added and removed.
        """
        images, contents, codes = (f"{self.backup_prefix}{table}" for table in ("images", "contents", "codes"))
        files, folders = f"{self.backup_prefix}files", f"{self.backup_prefix}folders"
        with self.with_backup(backup) as connection:
            removed = connection.execute(
                f"DELETE FROM images AS old WHERE NOT EXISTS (SELECT 1 FROM {images} AS new WHERE {_SAME})"
            ).rowcount
            rows = connection.execute(
                f"SELECT new.key, new.id, media_type, width, height, sha256, metadata, path, code FROM {images} AS new "
                f"LEFT JOIN {codes} AS pending ON pending.key = new.key AND encoder_id = ? "
                "WHERE NOT EXISTS (SELECT 1 FROM images AS old WHERE old.id = new.id) ORDER BY new.key",
                (encoder_id,),
            ).fetchall()
            for backup_key, *columns, code in rows:
                key = self.next_key(connection)
                connection.execute(
                    "INSERT INTO images (key, id, media_type, width, height, sha256, metadata, path) "
                    "VALUES (?,?,?,?,?,?,?,?)",
                    (key, *columns),
                )
                connection.execute(
                    f"INSERT INTO contents (key, data) SELECT {key}, data FROM {contents} AS content "
                    "WHERE content.key = ?",
                    (backup_key,),
                )
                connection.execute(  # else a sync takes it for an image that belongs to no folder
                    "INSERT INTO files (key, folder, size, mtime_ns) "
                    f"SELECT {key}, file.folder, file.size, file.mtime_ns FROM {files} AS file "
                    f"JOIN {folders} AS known ON known.name = file.folder "
                    "JOIN folders AS present ON present.name = known.name AND present.path = known.path "
                    "WHERE file.key = ?",
                    (backup_key,),
                )
                _put_code(connection, key, encoder_id, bytes(code or code_of(backup_key)))
        return len(rows), removed


def replace_key(
    connection: Connection, key: int, new: int, *, encoder_id: str, code: NDArray[np.float32] | None
) -> None:
    """Let what belongs to an image follow it to its new key, with a code of one encoder, and record the old one."""
    connection.execute("UPDATE contents SET key = ? WHERE key = ?", (new, key))
    connection.execute("DELETE FROM codes WHERE key IN (?, ?)", (key, new))
    if code is not None:
        _put_code(connection, new, encoder_id, code_bytes(code))
    connection.execute("INSERT INTO removed (key) VALUES (?)", (key,))


def code_bytes(code: NDArray[np.float32]) -> bytes:
    """Return a code as a store keeps it: float32, little endian."""
    return np.ascontiguousarray(code, dtype="<f4").tobytes()


def _put_code(connection: Connection, key: int, encoder_id: str, code: bytes) -> None:
    connection.execute(
        "INSERT INTO codes (key, encoder_id, code) VALUES (?,?,?) "
        "ON CONFLICT (key, encoder_id) DO UPDATE SET code = excluded.code",
        (key, encoder_id, code),
    )


def _record(row: Row) -> ImageRecord:
    key, id, media_type, width, height, checksum, metadata = row
    return ImageRecord(key, id, media_type, width, height, checksum, json.loads(metadata))


def _is_stored_text(text: str) -> bool:
    """Return whether an id may hold a text: not half a surrogate pair, and no null character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _parts(keys: Iterable[int], size: int) -> Iterator[list[int]]:
    """Yield keys in lists of up to `size`."""
    iterator = iter(keys)
    while part := [int(key) for key in islice(iterator, size)]:
        yield part
