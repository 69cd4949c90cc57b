"""The folders of a gallery: each has a name, with which the ids of its images begin, and is kept in step by that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from eigenlens.image_ids import check_id
from eigenlens.service.errors import FolderError
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import Folder

_MAX_NAME = 64


def known_folders(store: Store, *, name: str | None = None) -> list[Folder]:
    """Return the folders of a gallery by name, or the one of a name. Raises: FolderError, if there is no such."""
    known = [folder for folder in store.folders() if folder.kind == "folder"]
    folders = known if name is None else [folder for folder in known if folder.name == name]
    if not folders:
        names = ", ".join(repr(folder.name) for folder in known) or "none: build or import one first"
        which = "" if name is None else f" {name!r}"
        raise FolderError(f"the gallery has no folder{which} to be kept in step with; it has {names}")
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

    def choose(places: Mapping[str, Path]) -> Folder:
        present = next((known for known, place in places.items() if place == path), None)
        if present is not None and name not in (None, present):
            raise FolderError(f"{path} is in the gallery already, as {present!r}")
        chosen = present if present is not None else name if name is not None else _free_name(store, path, places)
        return Folder(chosen, path, follow_links, boundary, kind)

    return store.add_folder(choose)


def _free_name(store: Store, path: Path, folders: Mapping[str, Path]) -> str:
    """Return a name that no folder has, and with which no id begins."""
    if "" not in folders:
        count = store.count()
        if count == 0 or store.stored_files(Folder("", path)):
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
