"""The statements of a store about folders and the files in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from eigenlens.service.gallery.store.images import LAST_CHARACTER, replace_key
from eigenlens.service.gallery.store.records import FileState, Folder, Move, StoredFile
from eigenlens.service.gallery.store.sql import Database, Row

_FOLDER = "name, path, follow_links, boundary, kind"


class FolderStatements(Database):
    """Folders in the table `folders`, and what was read of their files in `files`."""

    def folders(self) -> list[Folder]:
        """Return all folders and archives, by name."""
        rows = self.query(f"SELECT {_FOLDER} FROM folders ORDER BY name")
        return [_folder(row) for row in rows]

    def add_folder(self, choose: Callable[[Mapping[str, Path]], Folder]) -> Folder:
        """Add a folder, or change the one of its name, while no other process can; links once followed stay so.

        Args:
            choose: gets the places of all folders by name, and returns the folder to record; it may raise.

        Returns: the folder as it is known now.
        """
        with self.transaction() as connection:
            rows = connection.execute("SELECT name, path FROM folders").fetchall()
            folder = choose({row[0]: Path(os.fsdecode(row[1])) for row in rows})
            connection.execute(
                "INSERT INTO folders (name, path, kind, follow_links, boundary) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET path = excluded.path, kind = excluded.kind, "
                "follow_links = CASE folders.follow_links WHEN 0 THEN excluded.follow_links ELSE 1 END, "
                "boundary = excluded.boundary",
                (
                    folder.name,
                    os.fsencode(folder.path),
                    folder.kind,
                    int(folder.follow_links),
                    None if folder.boundary is None else os.fsencode(folder.boundary),
                ),
            )
            row = connection.execute(f"SELECT {_FOLDER} FROM folders WHERE name = ?", (folder.name,)).fetchone()
        return _folder(row)

    def stored_files(self, folder: Folder) -> dict[str, StoredFile]:
        """Return the images of a folder by id: those read from it, and those whose files lie in it.

        Earlier versions did not record which folder an image was read from.
        """
        beginning = os.fsencode(folder.path) + b"/"
        rows = self.query(
            "SELECT images.key, id, sha256, path, metadata, coalesce(size, -1), coalesce(mtime_ns, -1) "
            "FROM images LEFT JOIN files ON files.key = images.key "
            "WHERE folder = ? OR (folder IS NULL AND path IS NOT NULL AND substr(path, 1, ?) = ?)",
            (folder.name, len(beginning), beginning),
        )
        return {
            id: StoredFile(
                key, id, checksum, "" if path is None else os.fsdecode(path), json.loads(metadata), size, mtime_ns
            )
            for key, id, checksum, path, metadata, size, mtime_ns in rows
        }

    def ids_of_others(self, folder: Folder) -> dict[str, str | None]:
        """Return the ids below a folder's name that are not its own, with the checksum of images without a file.

        Those are images of another folder (None), and images that were uploaded or came from an archive (their
        checksum).
        """
        rows = self.query(
            "SELECT id, CASE WHEN folder IS NULL THEN sha256 END FROM images LEFT JOIN files ON files.key = images.key "
            "WHERE id >= ? AND id < ? AND (folder <> ? OR (folder IS NULL AND path IS NULL))",
            (folder.prefix, folder.prefix + LAST_CHARACTER, folder.name),
        )
        return {row[0]: row[1] for row in rows}

    def record_files(self, folder: Folder, states: Iterable[FileState]) -> None:
        """Record how the file system describes files of images of a folder, so that they are not read again."""
        with self.transaction() as connection:
            for state in states:
                connection.execute(
                    "UPDATE images SET path = ? WHERE id = ? AND path IS NOT NULL", (os.fsencode(state.path), state.id)
                )
                row = connection.execute(
                    "SELECT key FROM images WHERE id = ? AND path IS NOT NULL", (state.id,)
                ).fetchone()
                if row is None:
                    continue
                connection.execute(
                    "INSERT INTO files (key, folder, size, mtime_ns) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                    "SET folder = excluded.folder, size = excluded.size, mtime_ns = excluded.mtime_ns",
                    (row[0], folder.name, state.size, state.mtime_ns),
                )

    def move_images(self, moves: Sequence[Move], *, encoder_id: str) -> list[str]:
        """Give images other ids and paths in one transaction, under new keys: a record never changes under its key.

        Returns: the new ids of the images moved; one that was replaced or removed meanwhile is not, nor one whose new
            id another image has.
        """
        moved = []
        with self.transaction() as connection:
            for move in moves:
                new = self.next_key(connection)
                changed = connection.execute(
                    "UPDATE images SET key = ?, id = ?, path = ?, metadata = ? WHERE key = ? "
                    "AND NOT EXISTS (SELECT 1 FROM images AS other WHERE other.id = ? AND other.key <> ?)",
                    (
                        new,
                        move.id,
                        os.fsencode(move.path),
                        json.dumps(dict(move.metadata)),
                        move.key,
                        move.id,
                        move.key,
                    ),
                )
                if changed.rowcount:
                    replace_key(connection, move.key, new, encoder_id=encoder_id, code=move.code)
                    moved.append(move.id)
        return moved


def _folder(row: Row) -> Folder:
    name, path, follow_links, boundary, kind = row
    return Folder(
        name,
        Path(os.fsdecode(path)),
        bool(follow_links),
        None if boundary is None else Path(os.fsdecode(boundary)),
        kind,
    )
