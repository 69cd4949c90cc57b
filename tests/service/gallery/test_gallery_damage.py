"""What is damaged, missing, vanished or no gallery at all: named, and the newest good generation is served."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from eigenlens.artifact import ArtifactDamagedError, publishing, remove
from eigenlens.command import main
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from tests.support.service import (
    build_gallery,
    image_id,
    pixels_of,
    png,
    publish,
    stored_codes,
    write_encoder,
    write_images,
)


def test_a_damaged_generation_is_named_and_the_one_before_it_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = build_gallery(tmp_path, count=6)
    publish(gallery, Encoder(tmp_path / "encoder"))
    index = gallery.generation_path(2) / "prefix-0004-flat.faiss"
    damaged = bytearray(index.read_bytes())
    damaged[-1] ^= 1
    index.write_bytes(damaged)
    number, generation = gallery.open_current()
    assert (number, len(generation)) == (1, 6)
    assert "prefix-0004-flat.faiss" in caplog.text
    with pytest.raises(ArtifactDamagedError, match=r"prefix-0004-flat\.faiss"):
        gallery.open_generation(2)


def test_without_a_good_generation_every_damage_is_named(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=6)
    (gallery.codes / "000001" / "codes.npy").unlink()
    with pytest.raises(GalleryError, match=r"codes\.npy"):
        gallery.open_current()


def test_a_folder_that_is_no_gallery_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="eigenlens build"):
        Gallery(tmp_path)
    Gallery(tmp_path, create=True)
    with pytest.raises(GalleryError, match="no generation yet"):
        Gallery(tmp_path).open_current()


def test_a_damaged_manifest_does_not_stop_the_next_build(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")
    publish(gallery, encoder)
    (gallery.generation_path(1) / "manifest.json").write_text("{")
    assert publish(gallery, encoder) == 3
    assert len(gallery.open_current()[1]) == 4


def test_file_names_that_are_no_text_and_files_that_cannot_be_read_are_reported_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "images", 2)
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))
    odd.write_bytes(png(pixels_of(9)))
    (folder / "gone.png").symlink_to(folder)  # reading it fails, whoever reads
    gallery = Gallery(tmp_path / "gallery", create=True)
    encoder = Encoder(write_encoder(tmp_path / "encoder"))
    source = FolderSource(folder)
    with gallery.writing():
        gallery.adopt_encoder(encoder.artifact.path)
        report = add_images(gallery, encoder, source, Progress())
    assert report.added == 3
    assert gallery.store.content(gallery.store.record("\\xff\\xfe.png").key) == png(pixels_of(9))


def test_a_file_that_vanishes_between_listing_and_reading_is_reported(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 3)
    source = FolderSource(folder)
    (folder / image_id(1)).unlink()
    (folder / image_id(1)).mkdir()
    gallery = Gallery(tmp_path / "gallery", create=True)
    encoder = Encoder(write_encoder(tmp_path / "encoder"))
    with gallery.writing():
        gallery.adopt_encoder(encoder.artifact.path)
        report = add_images(gallery, encoder, source, Progress())
    failed = [(image.id, image.reason) for image in report.failed]
    assert (report.added, failed) == (2, [(image_id(1), "the file cannot be read: Is a directory")])


def test_a_database_that_is_none_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "gallery.sqlite").write_bytes(b"not a database, though it is long enough to be taken for one" * 20)
    with pytest.raises(GalleryError, match=r"cannot be used: file is not a database: .* is damaged; restore a backup"):
        Gallery(tmp_path)


def test_where_an_older_generation_is_damaged_the_newest_good_one_is_served(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")
    publish(gallery, encoder)
    publish(gallery, encoder)
    gallery.switch(1)
    (gallery.generation_path(1) / "prefix-0004-flat.faiss").unlink()
    (gallery.generation_path(3) / "prefix-0004-flat.faiss").unlink()
    assert gallery.open_current()[0] == 2


def test_a_generation_of_an_earlier_version_is_named_and_a_build_replaces_it(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")
    remove(gallery.generation_path(1))
    made_from, properties = {"encoder": encoder.id}, {"count": 4, "lengths": [4], "codes": "000001"}
    with publishing(gallery.generation_path(1), kind="generation", made_from=made_from, properties=properties):
        pass
    with pytest.raises(GalleryError, match="made by an earlier version: run `eigenlens build` again"):
        gallery.open_current()
    assert main(["build", "--gallery", str(gallery.root)]) == 0
    assert gallery.open_current()[0] == 2
    assert len(stored_codes(gallery)) == 4


def test_images_that_cannot_be_encoded_are_left_out_with_a_word_and_come_back(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=6)
    other = Encoder(write_encoder(tmp_path / "other", shift=100.0))
    for seed in (1, 4):
        (tmp_path / "images" / image_id(seed)).unlink()
    told = Told()
    gallery.adopt_encoder(other.artifact.path)
    assert publish(gallery, other, told) == 2
    assert "2 images have no code and cannot be encoded" in told.text
    assert len(stored_codes(gallery)) == 4
    for seed in (1, 4):
        (tmp_path / "images" / image_id(seed)).write_bytes(png(pixels_of(seed)))
    assert publish(gallery, other, told) == 3
    assert len(stored_codes(gallery)) == 6


def test_a_gallery_of_which_nothing_is_left_is_not_built(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=3)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(GalleryError, match="none of the 3 images can be encoded"):
        publish(gallery, Encoder(write_encoder(tmp_path / "other", shift=100.0)))
    assert gallery.current() == 1


class Told(Progress):
    """Keeps the messages of a build."""

    text = ""

    def log(self, text: str) -> None:
        self.text += f"{text}\n"
