"""Folders of one gallery that overlap, and what else has ids there: neither takes an image of the other."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from eigenlens.image_files import UNREADABLE_FILE, Skipped
from eigenlens.image_ids import id_of_path, marked
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.report import Report
from eigenlens.service.gallery.folders import known_folders, register_folder
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.records import Folder, ImageRecord, Move, NewImage, StoredFile
from eigenlens.service.gallery.store.sqlite import SqliteStore
from eigenlens.service.gallery.sync import _unseen, sync_folder
from tests.support.service import code_of, pixels_of, png, write_encoder

MARKED = marked("B/x.png", "B/x.png")


class Folders:
    """A gallery of two folders: the first without a name, and `B`, which has x.png and the metadata that it was given.

    The first has y.png of its own.
    """

    def __init__(self, root: Path) -> None:
        self.gallery = Gallery(root / "gallery", create=True)
        self.encoder = Encoder(write_encoder(root / "encoder"))
        self.a, self.b = root / "a", root / "b"
        for place, name, seed in ((self.a, "y.png", 1), (self.b, "x.png", 2)):
            place.mkdir()
            (place / name).write_bytes(png(pixels_of(seed)))
        register_folder(self.gallery.store, self.a, name="")
        register_folder(self.gallery.store, self.b, name="B")
        assert [self.sync("").added, self.sync("B").added] == [1, 1]
        record, code = self.record("B/x.png"), code_of(pixels_of(2)).astype("float32")
        options = {"key": record.key, "code": code, "encoder_id": self.encoder.id}
        assert self.gallery.store.replace_metadata("B/x.png", {"price": 3}, **options)  # type: ignore[arg-type]

    def sync(self, name: str, *, dry_run: bool = False) -> Report:
        (folder,) = known_folders(self.gallery.store, name=name)
        with self.gallery.writing():
            return sync_folder(self.gallery, self.encoder, folder, Progress(), dry_run=dry_run)

    def record(self, id: str) -> ImageRecord:
        return self.gallery.store.record(id)

    def contents(self) -> dict[str, bytes]:
        return {record.id: self.gallery.store.content(record.key) for record in self.gallery.store.page(100)}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return report.added, report.replaced, report.unchanged, report.moved, report.gone


@pytest.mark.parametrize("seed", [2, 3])  # the same content, another content
def test_a_file_whose_id_another_folder_has_takes_nothing_from_it(folders: Folders, seed: int) -> None:
    before = folders.record("B/x.png")
    (folders.a / "B").mkdir()
    (folders.a / "B" / "x.png").write_bytes(png(pixels_of(seed)))
    assert counts(folders.sync("", dry_run=True)) == (1, 0, 1, 0, 0)
    told = folders.sync("")
    assert (counts(told), [note.id for note in told.notes]) == ((1, 0, 1, 0, 0), [MARKED])
    for _ in range(2):
        assert [counts(folders.sync(name)) for name in ("B", "")] == [(0, 0, 1, 0, 0), (0, 0, 2, 0, 0)]
    assert (folders.record("B/x.png"), before.metadata) == (before, {"price": 3})
    expected = {"B/x.png": png(pixels_of(2)), MARKED: png(pixels_of(seed)), "y.png": png(pixels_of(1))}
    assert folders.contents() == expected
    (folders.b / "x.png").rename(folders.b / "z.png")  # the id is free, and its file gets it
    assert counts(folders.sync("B")) == (0, 0, 0, 1, 0)
    assert counts(folders.sync("")) == (0, 0, 1, 1, 0)
    assert folders.contents() == {
        "B/x.png": png(pixels_of(seed)),
        "B/z.png": png(pixels_of(2)),
        "y.png": expected["y.png"],
    }


def test_a_file_that_moves_to_the_id_of_another_folders_image_leaves_that_alone(folders: Folders) -> None:
    (folders.a / "B").mkdir()
    (folders.a / "y.png").rename(folders.a / "B" / "x.png")
    (folders.a / "w.png").write_bytes(png(pixels_of(4)))
    assert counts(folders.sync("")) == (1, 0, 0, 1, 0)
    assert counts(folders.sync("B")) == (0, 0, 1, 0, 0)
    assert folders.contents() == {
        "B/x.png": png(pixels_of(2)),
        MARKED: png(pixels_of(1)),
        "w.png": png(pixels_of(4)),
    }


def test_images_that_were_not_moved_are_not_told_to_be(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = folders.gallery.store, folders.record("B/x.png")
    own = folders.record("y.png")
    moves = [Move(own.key, id, folders.a / "y.png", {}, None) for id in ("B/x.png", "z.png")]
    assert store.move_images(moves, encoder_id=folders.encoder.id) == ["z.png"]
    monkeypatch.setattr(SqliteStore, "ids_of_others", lambda *_: {})  # stored a moment too late
    (folders.a / "B").mkdir()
    (folders.a / "y.png").rename(folders.a / "B" / "x.png")
    assert counts(folders.sync("")) == (0, 0, 0, 0, 0)
    assert store.record("B/x.png") == other
    assert store.content(other.key) == png(pixels_of(2)), "its path is still its own"


def test_an_uploaded_image_keeps_its_id_and_its_content(folders: Folders) -> None:
    data = png(pixels_of(5))
    store, place = folders.gallery.store, folders.a / "up.png"
    sample = NewImage("up.png", "image/png", 2, 2, "", {"price": 4}, code_of(pixels_of(5)).astype("float32"), data)
    place.write_bytes(data)
    folders.sync("")
    checksum = folders.record("up.png").sha256
    store.put([replace(sample, sha256=checksum)], encoder_id=folders.encoder.id)
    uploaded = folders.record("up.png")
    for dry_run in (True, False):
        assert counts(folders.sync("", dry_run=dry_run)) == (0, 0, 2, 0, 0), "it is the file's content"
    place.write_bytes(png(pixels_of(6)))
    told = folders.sync("")
    own = marked("up.png", "up.png")
    assert (counts(told), [note.id for note in told.notes]) == ((1, 0, 1, 0, 0), [own])
    assert counts(folders.sync("")) == (0, 0, 2, 0, 0)
    assert folders.record("up.png") == uploaded
    assert [folders.contents()[id] for id in ("up.png", own)] == [data, png(pixels_of(6))]


def test_what_others_store_while_a_sync_runs_is_not_undone(folders: Folders) -> None:
    store, encoder_id, code = folders.gallery.store, folders.encoder.id, code_of(pixels_of(1)).astype("float32")
    (folders.a / "gone.png").write_bytes(png(pixels_of(7)))
    folders.sync("")
    (folders.a / "gone.png").unlink()
    (folders.a / "y.png").write_bytes(png(pixels_of(8)))

    class Meanwhile(Progress):
        def start(self, stage: str, total: int) -> None:
            """The files are listed, and none is taken in yet."""
            store.put([NewImage("gone.png", "image/png", 2, 2, "", {}, code, b"uploaded")], encoder_id=encoder_id)
            y = folders.record("y.png")
            assert store.replace_metadata("y.png", {"price": 5}, key=y.key, code=code, encoder_id=encoder_id)

    (folder,) = known_folders(store, name="")
    with folders.gallery.writing():
        report = sync_folder(folders.gallery, folders.encoder, folder, Meanwhile())
    assert counts(report) == (0, 1, 0, 0, 0)
    assert folders.contents()["gone.png"] == b"uploaded"
    assert (folders.record("y.png").metadata, folders.contents()["y.png"]) == ({"price": 5}, png(pixels_of(8)))


def test_what_cannot_be_read_is_found_among_many_in_linear_time(tmp_path: Path) -> None:
    count = 4000
    folder, source = Folder("B", tmp_path), FolderSource(tmp_path, may_be_empty=True)
    paths = [f"{number}/d" for number in range(count)]
    source.skipped = tuple(Skipped(path, UNREADABLE_FILE) for path in paths)
    ids = [f"{id_of_path(path, prefix='B/')}/e.png" for path in paths[: count // 2]]
    ids += [f"B/{path}d/e.png" for path in paths[count // 2 :]]  # begins like it, and is not in it
    ids[0], ids[1] = marked("B/0/d", "0/d"), "B/1/d"
    missing = [StoredFile(key, id, "", "", {}, -1, -1) for key, id in enumerate(ids)]
    begun = time.process_time()
    assert _unseen(source, folder, missing) == set(range(count // 2))
    assert time.process_time() - begun < 1


def test_a_folder_that_is_registered_again_keeps_its_links_and_changes_its_kind(folders: Folders) -> None:
    store = folders.gallery.store
    assert register_folder(store, folders.a, follow_links=True) == register_folder(store, folders.a)
    assert known_folders(store, name="")[0].follow_links
    archive = folders.a.parent / "pictures.tar"
    archive.touch()
    register_folder(store, archive, name="later", kind="archive")
    assert [folder.name for folder in known_folders(store)] == ["", "B"]
    unpacked = folders.a.parent / "pictures"
    assert register_folder(store, unpacked, name="later") == known_folders(store, name="later")[0]


def test_files_behind_links_that_were_followed_are_not_gone_when_they_are_not_asked_for(folders: Folders) -> None:
    shutil.copytree(folders.b, folders.a.parent / "aside")
    (folders.a / "link").symlink_to(folders.a.parent / "aside")
    register_folder(folders.gallery.store, folders.a, follow_links=True)
    assert folders.sync("").added == 1
    register_folder(folders.gallery.store, folders.a)
    assert counts(folders.sync("")) == (0, 0, 2, 0, 0)
