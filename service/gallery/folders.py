"""The folders of a gallery: each has a name, with which the ids of its images begin, and is kept in step by that."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_ids import check_id
from eigenlens.service.errors import FolderError
from eigenlens.service.gallery.store import Store

_MAX_NAME = 64


@dataclass(frozen=True)
class Folder:
    """A folder, or an archive of one, whose images are in a gallery.

    Attributes:
        name: begins the ids of its images, before a slash; empty for the first folder of a gallery, unless it was
            given a name.
        path: where it is.
        follow_links: whether folders that links lead to belong to it.
        boundary: folder out of which no link may lead; None if links may lead anywhere.
    """

    name: str
    path: Path
    follow_links: bool = False
    boundary: Path | None = None

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


def known_folders(store: Store, *, name: str | None = None) -> list[Folder]:
    """Return the folders of a gallery by name, or the one of a name. Raises: FolderError, if there is no such."""
    rows = store.query("SELECT * FROM folders WHERE kind = 'folder' ORDER BY name")
    folders = [_folder(row) for row in rows]
    if name is not None:
        folders = [folder for folder in folders if folder.name == name]
    if not folders:
        known = ", ".join(repr(row["name"]) for row in rows) or "none: build or import one first"
        which = "" if name is None else f" {name!r}"
        raise FolderError(f"the gallery has no folder{which} to be kept in step with; it has {known}")
    return folders


def register_folder(
    store: Store,
    path: Path,
    *,
    name: str | None = None,
    follow_links: bool = False,
    boundary: Path | None = None,
    kind: str = "folder",
) -> Folder:
    """Return the folder at a path, which a gallery knows from now on. The same folder again has the same name.

    Args:
        name: of the folder; if another folder has it, that one has moved here. If None, a known folder keeps its name,
            the first folder of a gallery has an empty one, and each further one gets a name like that of its directory.
        follow_links: follow links to folders from now on; a folder whose links were followed keeps that.

    Raises: FolderError, if it has another name already, or the name cannot begin an id.
    """
    path = path.resolve()
    if name:
        try:
            check_id(f"{name}/x")
        except ValueError as error:
            raise FolderError(f"{name!r} cannot begin an id: {error}") from None
    with store.transaction() as connection:
        rows = {row[0]: Path(os.fsdecode(row[1])) for row in connection.execute("SELECT name, path FROM folders")}
        present = next((known for known, place in rows.items() if place == path), None)
        if present is not None and name not in (None, present):
            raise FolderError(f"{path} is in the gallery already, as {present!r}")
        chosen = present if present is not None else name if name is not None else _free_name(store, path, rows)
        connection.execute(
            "INSERT INTO folders (name, path, kind, follow_links, boundary) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET path = excluded.path, kind = excluded.kind, "
            "follow_links = folders.follow_links OR excluded.follow_links, boundary = excluded.boundary",
            (chosen, os.fsencode(path), kind, follow_links, None if boundary is None else os.fsencode(boundary)),
        )
        return _folder(store.query("SELECT * FROM folders WHERE name = ?", (chosen,))[0])


def stored_files(store: Store, folder: Folder) -> dict[str, StoredFile]:
    """Return the images of a folder by id: those read from it, and those of earlier versions whose files lie in it."""
    rows = store.query(
        "SELECT images.key, id, sha256, path, metadata, coalesce(size, -1) AS size, coalesce(mtime_ns, -1) AS mtime_ns "
        "FROM images LEFT JOIN files ON files.key = images.key "
        "WHERE folder = ? OR (folder IS NULL AND path IS NOT NULL AND substr(path, 1, ?) = ?)",
        (folder.name, *_beginning(folder.path)),
    )
    return {
        row["id"]: StoredFile(
            row["key"],
            row["id"],
            row["sha256"],
            "" if row["path"] is None else os.fsdecode(row["path"]),
            json.loads(row["metadata"]),
            row["size"],
            row["mtime_ns"],
        )
        for row in rows
    }


def ids_of_others(store: Store, folder: Folder) -> dict[str, str | None]:
    """Return the ids below a folder's name that are not its own, with the checksum of images without a file.

    Those are images of another folder (None), and images that were uploaded or came from an archive (their checksum).
    """
    rows = store.connection.execute(
        "SELECT id, CASE WHEN folder IS NULL THEN sha256 END FROM images LEFT JOIN files ON files.key = images.key "
        "WHERE id >= ? AND id < ? || char(0x10FFFF) AND (folder != ? OR (folder IS NULL AND path IS NULL))",
        (folder.prefix, folder.prefix, folder.name),
    )
    return dict(rows.fetchall())


def record_files(store: Store, folder: Folder, states: Iterable[FileState]) -> None:
    """Record how the file system describes the files of images of a folder, so that they are not read again."""
    with store.transaction() as connection:
        for state in states:
            connection.execute(
                "UPDATE images SET path = ? WHERE id = ? AND path IS NOT NULL", (os.fsencode(state.path), state.id)
            )
            connection.execute(
                "INSERT OR REPLACE INTO files (key, folder, size, mtime_ns) "
                "SELECT key, ?, ?, ? FROM images WHERE id = ? AND path IS NOT NULL",
                (folder.name, state.size, state.mtime_ns, state.id),
            )


def move_images(store: Store, moves: Sequence[Move], *, encoder_id: str) -> list[str]:
    """Give images other ids and paths in one transaction, under new keys: a record never changes under its key.

    Returns: the new ids of the images moved; one that was replaced or removed meanwhile is not, nor one whose new id
        another image has.
    """
    moved = []
    with store.transaction() as connection:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        for move in moves:
            connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'images'")
            new = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()[0]
            changed = connection.execute(
                "UPDATE OR IGNORE images SET key = ?, id = ?, path = ?, metadata = ? WHERE key = ?",
                (new, move.id, os.fsencode(move.path), json.dumps(dict(move.metadata)), move.key),
            )
            if changed.rowcount == 0:
                continue
            connection.execute("UPDATE contents SET key = ? WHERE key = ?", (new, move.key))
            connection.execute("DELETE FROM codes WHERE key = ?", (move.key,))
            if move.code is not None:
                code = np.ascontiguousarray(move.code, dtype="<f4").tobytes()
                connection.execute("INSERT INTO codes VALUES (?,?,?)", (new, encoder_id, code))
            connection.execute("INSERT INTO removed (key) VALUES (?)", (move.key,))
            moved.append(move.id)
    return moved


def _folder(row: Any) -> Folder:
    boundary = row["boundary"]
    return Folder(
        row["name"],
        Path(os.fsdecode(row["path"])),
        bool(row["follow_links"]),
        None if boundary is None else Path(os.fsdecode(boundary)),
    )


def _beginning(path: Path) -> tuple[int, bytes]:
    """Return the length and the bytes with which the paths of a folder's files begin."""
    beginning = os.fsencode(path) + b"/"
    return len(beginning), beginning


def _free_name(store: Store, path: Path, folders: Mapping[str, Path]) -> str:
    """Return a name that no folder has, and with which no id begins."""
    if "" not in folders:
        count = store.count()
        if count == 0 or stored_files(store, Folder("", path)):
            return ""
    base = re.sub(
        r"[\x00-\x1f\x7f/]+|^\.+$", "-", path.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    )
    base = base[:_MAX_NAME] or "folder"
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        if name not in folders and not store.page(1, prefix=f"{name}/"):
            return name
        number += 1
