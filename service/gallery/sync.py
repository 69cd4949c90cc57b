"""Sync: bring a gallery in step with a folder: what was added, changed, moved and deleted there.

What is not there may be on a disk that is not mounted. Nothing is removed because of a folder that cannot be seen.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_files import UNREADABLE_FILE, UNREADABLE_FOLDER, FoundFile
from eigenlens.image_ids import id_of_path, marked, spellings
from eigenlens.index.codes.artifact import Codes
from eigenlens.model.images.sources import FolderSource, SourceImage, folder_label, restricted
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.report import ChangeAnswer, NotedAnswer, Report
from eigenlens.service.errors import ImageNotFoundError
from eigenlens.service.gallery.ingest import INGEST_BATCH_SIZE, count, ingest
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.limits import DEFAULT_LIMITS, Limits
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import FileState, Folder, Move, StoredFile

T = TypeVar("T")
_ROWS_PER_TRANSACTION = 256


@dataclass
class _Plan:
    """What a sync has to do. Files are named by their places in the source.

    Attributes:
        added, changed: to take in; those that changed with what is stored of them.
        touched: same content, other time or place.
        moved: to a place, from what is stored.
        gone: stored, and not there any more.
        unchanged: the number of images of which nothing changed.
    """

    added: list[int] = field(default_factory=list)
    changed: list[tuple[int, StoredFile]] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)
    moved: list[tuple[int, StoredFile]] = field(default_factory=list)
    gone: list[StoredFile] = field(default_factory=list)
    unchanged: int = 0
    warnings: list[str] = field(default_factory=list)


def sync_folder(
    gallery: Gallery,
    encoder: Encoder,
    folder: Folder,
    progress: Progress,
    *,
    limits: Limits = DEFAULT_LIMITS,
    dry_run: bool = False,
) -> Report:
    """Bring the gallery in step with a folder; the caller holds the writer's lock.

    Images are added, replaced where their file's content changed (metadata stay), moved where a file of the same
    content has another name (code and metadata stay), and removed where their file is gone. Each batch is durable when
    it is counted, so an interrupted call is continued by another. An image of another folder, or one that was uploaded,
    keeps its id: a file of the same id gets one with a mark, and a note.

    Args:
        dry_run: change nothing; the report tells what would be done.
    """
    report = Report()
    if not folder.path.is_dir():
        report.warnings.append(f"{folder.path} is not there now: is its disk mounted? Nothing is removed")
        return report
    source = FolderSource(
        folder.path,
        prefix=folder.prefix,
        follow_links=folder.follow_links,
        max_bytes=limits.max_image_bytes,
        may_be_empty=True,
    )
    report.skip(source.skipped)
    stored = gallery.store.stored_files(folder)
    if stored and not source.files:
        report.warnings.append(f"{folder.path} holds no image now: is its disk mounted? Nothing is removed")
        return report
    plain = list(source.ids)
    held = _yield_ids(source, gallery.store.ids_of_others(folder))
    plan = _compare(source, stored, folder, held)
    report.unchanged, report.warnings = plan.unchanged + len(plan.touched), plan.warnings
    for row in sorted([*plan.added, *(row for row, _ in plan.moved)]):
        if source.ids[row] != plain[row]:
            note = f"the id {plain[row]!r} is that of another image, which is not of this folder"
            report.notes.append(NotedAnswer(id=source.ids[row], note=note))
    if dry_run:
        _tell(report, plan, source)
        return report
    store = gallery.store
    store.record_files(folder, [_state(source, row) for row in plan.touched])
    codes = _CurrentCodes(gallery, encoder)
    for moves in _chunks(plan.moved, _ROWS_PER_TRANSACTION):
        changes = [codes.move(source.ids[row], source.files[row], old) for row, old in moves]
        moved = set(store.move_images(changes, encoder_id=encoder.id))
        report.moved += len(moved)
        store.record_files(folder, [_state(source, row) for row, _ in moves if source.ids[row] in moved])
    stored_of = dict(plan.changed)
    rows = sorted([*plan.added, *stored_of])
    progress.start("take in", len(rows))
    with ThreadPoolExecutor() as pool:
        for chunk in _chunks(rows, INGEST_BATCH_SIZE):
            images = [
                _with_metadata(image, store, stored_of.get(row))
                for row, image in zip(chunk, source.read(chunk), strict=True)
            ]
            if folder.boundary is not None:
                images = [restricted(image, folder.boundary) for image in images]
            outcomes = ingest(store, encoder, images, pool, max_pixels=limits.max_pixels, keep_metadata=True)
            count(report, outcomes)
            taken = [row for row, outcome in zip(chunk, outcomes, strict=True) if outcome.status != "failed"]
            store.record_files(folder, [_state(source, row) for row in taken])
            progress.advance(len(chunk))
    for gone in _chunks(plan.gone, _ROWS_PER_TRANSACTION):
        report.gone += store.remove_keys([file.key for file in gone])  # not what was stored under their ids since
    return report


def _yield_ids(source: FolderSource, others: dict[str, str | None]) -> set[int]:
    """Mark the source's ids that images outside of the folder have, since storing an image replaces that of its id.

    Returns: the rows of files that need no id: an image without a file has it already, with the same content.
    """
    held = set()
    for row, (id, file) in enumerate(zip(source.ids, source.files, strict=True)):
        taken = [spelling for spelling in spellings(id) if spelling in others]
        if not taken:
            continue
        if others[taken[0]] is not None and others[taken[0]] == _digest(file):
            held.add(row)
            continue
        while any(spelling in others for spelling in spellings(id)):
            id = marked(id, file.relative)
        source.ids[row] = id
    return held


def _compare(source: FolderSource, stored: dict[str, StoredFile], folder: Folder, held: set[int]) -> _Plan:
    """Compare the files of a folder, but for the rows `held`, with what the gallery knows of them."""
    plan, seen = _Plan(unchanged=len(held)), set()
    for row, (id, file) in enumerate(zip(source.ids, source.files, strict=True)):
        if row in held:
            continue
        old = next((stored[spelling] for spelling in spellings(id) if spelling in stored), None)
        if old is None:
            plan.added.append(row)
            continue
        seen.add(old.id)
        if (old.size, old.mtime_ns) == (file.size, file.mtime_ns) and old.id == id:
            if _lies_where_it_did(old, file, folder):
                plan.unchanged += 1
            else:
                plan.touched.append(row)
        elif _digest(file) != old.sha256:
            plan.changed.append((row, old))
        elif old.id == id:
            plan.touched.append(row)
        else:  # a spelling of an earlier version
            plan.moved.append((row, old))
    missing = [file for id, file in stored.items() if id not in seen]
    _match_moved(source, plan, missing)
    matched = {old.key for _, old in plan.moved}
    missing = [file for file in missing if file.key not in matched]
    hidden = _unseen(source, folder, missing)
    plan.gone = [file for file in missing if file.key not in hidden]
    return plan if not hidden else _warned(plan, folder, len(hidden))


def _lies_where_it_did(old: StoredFile, file: FoundFile, folder: Folder) -> bool:
    """Return whether the stored path is that of the file; only of links and of a folder that moved it is looked up."""
    return old.path.startswith(f"{folder.path}{os.sep}") or old.path == str(file.path.resolve())


def _warned(plan: _Plan, folder: Folder, number: int) -> _Plan:
    plan.warnings.append(
        f"{number} images lie in folders of {folder.path} that are empty or cannot be read now: are all disks mounted? "
        "They are not removed"
    )
    return plan


def _match_moved(source: FolderSource, plan: _Plan, missing: Sequence[StoredFile]) -> None:
    """Part from the added files those with the content of a missing one; only files of equal size are read."""
    by_content: dict[str, list[StoredFile]] = defaultdict(list)
    for old in sorted(missing, key=lambda file: file.id, reverse=True):
        by_content[old.sha256].append(old)
    sizes = {old.size for old in missing}
    added = []
    for row in plan.added:
        file = source.files[row]
        candidates = by_content.get(_digest(file) or "") if sizes & {file.size, -1} else None
        if candidates:
            plan.moved.append((row, candidates.pop()))
        else:
            added.append(row)
    plan.added = added


def _unseen(source: FolderSource, folder: Folder, missing: Sequence[StoredFile]) -> set[int]:
    """Return the keys of missing images whose file may be there: below what cannot be read, or an empty folder."""
    unreadable: set[str] = set()
    for entry in source.skipped:
        if entry.kind in (UNREADABLE_FILE, UNREADABLE_FOLDER):
            id = id_of_path(entry.path, prefix=folder.prefix)
            unreadable |= {id, marked(id, entry.path)}
    empty: dict[Path, bool] = {}
    hidden = set()
    for file in missing:
        places = (file.id, *map(str, PurePosixPath(file.id).parents))
        if not unreadable.isdisjoint(places) or (
            file.path and _lies_in_empty(Path(file.path).parent, folder.path, empty)
        ):
            hidden.add(file.key)
    return hidden


def _lies_in_empty(parent: Path, root: Path, empty: dict[Path, bool]) -> bool:
    """Return whether a folder below the root, or the nearest one above it that exists, is there and empty."""
    if parent == root or not parent.is_relative_to(root):
        return False
    if parent not in empty:
        try:
            with os.scandir(parent) as entries:
                empty[parent] = next(entries, None) is None
        except (FileNotFoundError, NotADirectoryError):
            empty[parent] = _lies_in_empty(parent.parent, root, empty)
        except OSError:
            empty[parent] = True
    return empty[parent]


def _tell(report: Report, plan: _Plan, source: FolderSource) -> None:
    """Report what a plan would do."""
    report.added, report.replaced = len(plan.added), len(plan.changed)
    report.moved, report.gone = len(plan.moved), len(plan.gone)
    report.changes = [ChangeAnswer(id=source.ids[row], change="added") for row in plan.added]
    report.changes += [ChangeAnswer(id=source.ids[row], change="replaced") for row, _ in plan.changed]
    report.changes += [ChangeAnswer(id=source.ids[row], change="moved", was=old.id) for row, old in plan.moved]
    report.changes += [ChangeAnswer(id=file.id, change="gone") for file in plan.gone]


class _CurrentCodes:
    """The codes of the images of a gallery, from the current generation or the store; opened when first needed."""

    def __init__(self, gallery: Gallery, encoder: Encoder) -> None:
        self._gallery, self._encoder = gallery, encoder
        self._codes: Codes | None = None
        self._is_open = False

    def move(self, id: str, file: FoundFile, old: StoredFile) -> Move:
        """Return the move of an image to a file; its label follows the folder if it was that of its folder."""
        metadata = dict(old.metadata)
        before, now = folder_label(old.id), folder_label(id)
        if before != now and metadata.get("label") == before.get("label"):
            metadata.pop("label", None)
            metadata |= folder_label(file.relative)
        return Move(old.key, id, file.path.resolve(), metadata, self._code_of(old.key))

    def _code_of(self, key: int) -> NDArray[np.float32] | None:
        pending = self._gallery.store.codes_of([key], encoder_id=self._encoder.id)
        if key in pending:
            return pending[key]
        if not self._is_open:
            self._is_open = True
            number = self._gallery.current()
            if number is not None and self._gallery.current_encoder_id() == self._encoder.id:
                self._codes = self._gallery.open_generation(number, verify=False).codes
        if self._codes is None:
            return None
        rows = self._codes.rows_of(np.array([key], dtype=np.int64))
        taken: NDArray[np.float32] = self._codes.take(rows)[0]
        return taken if rows[0] >= 0 else None


def _with_metadata(image: SourceImage, store: Store, old: StoredFile | None) -> SourceImage:
    """Return an image with the metadata that are stored now: they may have been edited since the files were listed."""
    if old is None:
        return image
    try:
        return replace(image, metadata=store.record(old.id).metadata)
    except ImageNotFoundError:
        return replace(image, metadata=old.metadata)


def _state(source: FolderSource, row: int) -> FileState:
    file = source.files[row]
    return FileState(source.ids[row], file.path.resolve(), file.size, file.mtime_ns)


def _digest(file: FoundFile) -> str | None:
    """Return the checksum of a file's content; None if it cannot be read."""
    try:
        with file.path.open("rb") as f:
            return file_digest(f, "sha256").hexdigest()
    except OSError:
        return None


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
