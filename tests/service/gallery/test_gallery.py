"""The gallery on disk: what a build takes in, carries on with, encodes again, and never loses."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest

from eigenlens.command import main
from eigenlens.index.backends import PgvectorBackend
from eigenlens.index.building import build as index_build
from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.graph import vamana
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.plans.plan import Optimise
from eigenlens.index.tuning import DEFAULT_TUNING
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api import admin
from eigenlens.service.errors import GalleryBusyError, GalleryError, ImageContentGoneError
from eigenlens.service.gallery import build
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.search.manager import SnapshotManager
from tests.support.service import (
    LENGTHS,
    build_gallery,
    code_of,
    database_of,
    image_id,
    pixels_of,
    png,
    publish,
    stored_codes,
    write_encoder,
    write_images,
)


class Recorder(Progress):
    """Notes the stages and how much each of them did."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.stage = ""
        self.texts: list[str] = []

    def start(self, stage: str, total: int) -> None:
        self.stage = stage
        self.done[stage] = 0

    def advance(self, count: int) -> None:
        self.done[self.stage] += count

    def log(self, text: str) -> None:
        self.texts.append(text)


class Stop(Progress):
    """Stops a build when it advances in one stage."""

    def __init__(self, stage: str) -> None:
        self.stage, self.present = stage, ""

    def start(self, stage: str, total: int) -> None:
        self.present = stage

    def advance(self, count: int) -> None:
        if self.present == self.stage:
            raise KeyboardInterrupt


def test_a_generation_holds_the_unit_code_of_every_image(tmp_path: Path) -> None:
    codes = stored_codes(build_gallery(tmp_path, count=9))
    assert set(codes) == {image_id(seed) for seed in range(9)}
    for seed in range(9):
        expected = code_of(pixels_of(seed))
        np.testing.assert_allclose(codes[image_id(seed)], expected / np.linalg.norm(expected), atol=1e-3)


def test_a_rebuild_encodes_nothing_and_shares_the_codes(tmp_path: Path) -> None:
    gallery, recorder = build_gallery(tmp_path, count=9), Recorder()
    assert publish(gallery, Encoder(tmp_path / "encoder"), recorder) == 2
    assert recorder.done == {"encode": 0, "index": len(LENGTHS)}
    assert [entry.name for entry in gallery.codes.iterdir()] == ["000001"]


def test_new_and_changed_images_are_taken_in_and_others_are_not_encoded_again(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=6), Encoder(tmp_path / "encoder")
    folder = write_images(tmp_path / "images", 8)
    (folder / image_id(2)).write_bytes(png(pixels_of(77)))
    (folder / "broken.png").write_text("no image")
    with gallery.writing():
        report = add_images(gallery, encoder, FolderSource(folder), Progress())
    assert (report.added, report.replaced, report.unchanged) == (2, 1, 5)
    assert [image.id for image in report.failed] == ["broken.png"]
    publish(gallery, encoder)
    codes = stored_codes(gallery)
    assert set(codes) == {image_id(seed) for seed in range(8)}
    expected = code_of(pixels_of(77))
    np.testing.assert_allclose(codes[image_id(2)], expected / np.linalg.norm(expected), atol=1e-3)


def test_another_encoder_encodes_everything_again(tmp_path: Path) -> None:
    gallery, recorder = build_gallery(tmp_path, count=6), Recorder()
    other = write_encoder(tmp_path / "other", shift=100.0)
    with gallery.writing():
        gallery.adopt_encoder(other)
    publish(gallery, Encoder(other), recorder)
    assert recorder.done["encode"] == 6
    expected = pixels_of(1).reshape(-1) - 100.0
    np.testing.assert_allclose(stored_codes(gallery)[image_id(1)], expected / np.linalg.norm(expected), atol=1e-3)
    assert gallery.current_encoder_id() == Encoder(other).id


def test_encoding_that_was_interrupted_carries_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.service.gallery.encoding.BATCH_SIZE", 2)
    monkeypatch.setattr("eigenlens.service.gallery.ingest.INGEST_BATCH_SIZE", 2)
    gallery, recorder = build_gallery(tmp_path, count=6), Recorder()
    other = Encoder(write_encoder(tmp_path / "other", shift=100.0))
    with gallery.writing():
        gallery.adopt_encoder(other.artifact.path)
    with pytest.raises(KeyboardInterrupt):
        publish(gallery, other, Stop("encode"))
    publish(gallery, other, recorder)
    assert recorder.done["encode"] == 4


@pytest.mark.parametrize("stage", ["take in", "encode", "assemble", "index"])
def test_a_build_that_stops_leaves_the_old_generation_and_no_half_one(tmp_path: Path, stage: str) -> None:
    gallery = build_gallery(tmp_path, count=6)
    before = stored_codes(gallery)
    other = Encoder(write_encoder(tmp_path / "other", shift=100.0))
    source = FolderSource(write_images(tmp_path / "images", 8))

    def build() -> None:
        with gallery.writing():
            gallery.adopt_encoder(other.artifact.path)
            add_images(gallery, other, source, Stop(stage))
            publish_generation(gallery, other, Stop(stage), GenerationOptions(lengths=LENGTHS))

    with pytest.raises(KeyboardInterrupt):
        build()
    assert (gallery.current(), gallery.numbers()) == (1, [1])
    after = stored_codes(gallery)
    assert all(np.array_equal(after[id], code) for id, code in before.items())
    assert publish(gallery, other) == 2
    assert len(stored_codes(gallery)) in (6, 8)


def test_old_generations_are_retired_and_the_current_one_never(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=6), Encoder(tmp_path / "encoder")
    for _ in range(4):
        publish(gallery, encoder)
    assert gallery.numbers() == [3, 4, 5]
    gallery.activate(3)
    gallery.retire(keep=1)
    assert gallery.numbers() == [3, 5]
    assert len(gallery.open_current()[1]) == 6


def test_the_generation_that_was_served_outlives_the_switch_to_the_next(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=6), Encoder(tmp_path / "encoder")
    for _ in range(2):
        publish(gallery, encoder)
    gallery.activate(1)
    publish(gallery, encoder)
    assert (gallery.current(), gallery.numbers()) == (4, [1, 2, 3, 4])
    publish(gallery, encoder)
    assert gallery.numbers() == [3, 4, 5]


def test_nothing_is_removed_while_a_generation_is_opened(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=6), Encoder(tmp_path / "encoder")
    publish(gallery, encoder)
    removed = threading.Event()

    def remove() -> None:
        Gallery(tmp_path / "gallery").retire(keep=1)
        removed.set()

    manager = SnapshotManager(gallery)
    opened = gallery.open_current

    def slowly(**given: Any) -> tuple[int, BaseGeneration]:
        found = opened(**given)
        threading.Thread(target=remove).start()
        assert not removed.wait(0.3)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "open_current", slowly)
        gallery.activate(1)
        manager.load()
    assert manager.current.number == 1
    assert removed.wait(10)
    assert gallery.numbers() == [1, 2]
    gallery.activate(2)
    gallery.retire(keep=1)
    assert gallery.numbers() == [2]


def test_the_position_of_a_snapshot_tells_of_changes_that_its_counts_do_not(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=6)
    manager, store = SnapshotManager(gallery), gallery.store
    manager.load()
    encoder = manager.current.encoder

    def change(label: str) -> None:
        record = store.record(image_id(0))
        code = np.ones(encoder.code_length, dtype=np.float32)
        assert store.replace_metadata(record.id, {"label": label}, key=record.key, code=code, encoder_id=encoder.id)
        manager.sync()

    change("first")
    position, engine = manager.position, manager.current.engine
    manager.sync()
    assert manager.position == position, "nothing changed"
    counts = engine.added, engine.removed
    change("second")  # of an image that was added since the build: one added more and one less
    assert (engine.added, engine.removed) == counts
    assert manager.position != position


def test_only_one_process_writes(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=3)
    assert not gallery.being_written()
    with gallery.writing():
        assert gallery.being_written()
        with pytest.raises(GalleryBusyError), Gallery(tmp_path / "gallery").writing():
            pass
    assert not gallery.being_written()


def test_the_commands_build_and_rebuild(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, images = write_encoder(tmp_path / "encoder"), write_images(tmp_path / "images", 5)
    (images / "broken.png").write_text("no image")
    where = ["--gallery", str(tmp_path / "gallery")]
    assert main(["build", *where]) == 1
    assert "--encoder" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists(), "a refused build changes nothing"
    command = ["build", "--encoder", str(encoder), "--images", str(images), *where, "--lengths", "2,4"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "5 added" in told.out
    assert "broken.png" in told.err
    assert main(["build", *where, "--lengths", "6"]) == 0
    assert Gallery(tmp_path / "gallery").open_current()[1].lengths == (6, 12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--encoder", "nowhere", "--images", "{images}"], "no encoder at nowhere"),
        (["--encoder", "{encoder}", "--images", "nowhere"], "no image source 'nowhere'"),
        (["--encoder", "{images}", "--images", "{images}"], "no encoder at"),
        (["--encoder", "{encoder}", "--images", "{images}", "--lengths", "13"], "12 coordinates"),
    ],
)
def test_a_build_that_cannot_work_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    encoder, images = write_encoder(tmp_path / "encoder"), write_images(tmp_path / "images", 2)
    filled = [part.format(encoder=encoder, images=images) for part in arguments]
    assert main(["build", "--gallery", str(tmp_path / "gallery"), *filled]) == 1
    assert says in capsys.readouterr().err


def test_the_switch_is_atomic_to_every_reader(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")
    publish(gallery, encoder)
    seen: set[int | None] = set()
    problems: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(gallery.current())
            except GalleryError as error:
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(400):
        gallery.activate(1 + turn % 2)
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert seen == {1, 2}


def test_a_build_keeps_the_lengths_of_the_gallery_unless_others_are_asked_for(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4, lengths=(3, 6)), Encoder(tmp_path / "encoder")
    for asked, expected in ((None, (3, 6, 12)), ((5,), (5, 12)), (None, (5, 12))):
        with gallery.writing():
            publish_generation(gallery, encoder, Progress(), GenerationOptions(lengths=asked))
        assert gallery.open_current()[1].lengths == expected


def test_lengths_that_a_build_left_out_are_there_again_in_one_that_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4, lengths=(3, 6)), Encoder(tmp_path / "encoder")
    # As with many codes, where the fewest are chosen of several.
    monkeypatch.setattr(index_build, "choose_fewest", lambda codes, lengths, *, tuning: lengths[-2:])
    for optimise, expected in (("build", (6, 12)), ("build", (6, 12)), ("memory", (3, 6, 12))):
        with gallery.writing():
            publish_generation(gallery, encoder, Progress(), GenerationOptions(optimise=cast(Optimise, optimise)))
        assert gallery.open_current()[1].lengths == expected


def test_a_build_is_for_what_the_last_one_was_for_unless_that_is_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("svs")
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")

    def build(optimise: Optimise | None = None) -> str:
        with gallery.writing():
            publish_generation(gallery, encoder, Progress(), GenerationOptions(optimise=optimise))
        return gallery.open_current()[1].optimise

    assert get_args(admin.Optimise) == get_args(Optimise), "a request can ask for each"
    assert [build("build"), build(), build("latency"), build()] == ["build", "build", "latency", "latency"]
    monkeypatch.setattr(vamana, "has_svs", lambda: False)
    with pytest.raises(IndexKindError, match="needs SVS"):
        build("latency")
    assert build() == "memory", "a rebuild goes on without what is no longer installed"
    with pytest.raises(IndexKindError, match="pgvector has memory only"):
        PgvectorBackend(None).check_optimise("build")


def test_an_estimate_names_the_indexes_that_a_mode_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4, lengths=(3, 6)), Encoder(tmp_path / "encoder")

    def log_of(optimise: Optimise) -> str:
        recorder = Recorder()
        with gallery.writing():
            publish_generation(gallery, encoder, recorder, GenerationOptions(lengths=(3, 6), optimise=optimise))
        return "; ".join(recorder.texts)

    few = log_of("build")
    assert "optimise=build builds what memory does: with fewer than 20,000 images" in few
    assert "length 3 (flat)" in few
    assert "optimise" not in log_of("memory")
    monkeypatch.setattr(build, "DEFAULT_TUNING", replace(DEFAULT_TUNING, min_codes_for_ivf=4))
    many = log_of("build")
    assert "length 3" not in many
    assert many.endswith("length 12 (flat) 0.0 MB")


def test_a_length_that_cannot_be_built_is_refused_before_a_gallery_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, images = write_encoder(tmp_path / "encoder"), write_images(tmp_path / "images", 2)
    command = ["build", "--encoder", str(encoder), "--images", str(images), "--gallery", str(tmp_path / "gallery")]
    assert main([*command, "--lengths", "4,13"]) == 1
    assert "prefix length 13 cannot be built" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


def test_images_that_were_moved_are_found_at_their_new_place(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=3), Encoder(tmp_path / "encoder")
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(ImageContentGoneError):
        gallery.store.content(gallery.store.record(image_id(1)).key)
    with gallery.writing():
        report = add_images(gallery, encoder, FolderSource(tmp_path / "moved"), Progress())
    assert (report.added, report.unchanged) == (0, 3)
    assert gallery.store.content(gallery.store.record(image_id(1)).key) == png(pixels_of(1))


def test_codes_are_pending_until_every_generation_that_is_kept_has_them(tmp_path: Path) -> None:
    gallery, encoder = build_gallery(tmp_path, count=4), Encoder(tmp_path / "encoder")

    def pending() -> int:
        return len(gallery.store.coded_keys(encoder_id=encoder.id))

    assert pending() == 0
    with gallery.writing():
        add_images(gallery, encoder, FolderSource(write_images(tmp_path / "images", 6)), Progress())
    gallery.store.remove([image_id(0)])
    for number in (2, 3, 4):
        assert pending() == 2, "generation 1 can still be activated"
        assert publish(gallery, encoder) == number
    assert gallery.numbers() == [2, 3, 4]
    assert pending() == 0
    assert database_of(gallery).query("SELECT count(*) FROM removed")[0][0] == 0
