"""A gallery is kept in step with its folders: added, changed, moved and deleted files, and disks that are not there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.command import main
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.report import Report
from eigenlens.service.errors import FolderError
from eigenlens.service.gallery.folders import known_folders, register_folder
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.sync import sync_folder
from tests.support.service import (
    JOB_EVERY_S,
    admin_headers,
    database_of,
    image_id,
    pixels_of,
    png,
    publish,
    serving,
    settings_of,
    stored_codes,
    wait_for,
    write_encoder,
    write_images,
)

COUNT = 24
LENGTHS = "2,4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", COUNT)


@pytest.fixture
def gallery(tmp_path: Path, folder: Path) -> Gallery:
    assert build(tmp_path, folder) == 0
    return Gallery(tmp_path / "gallery")


def build(tmp_path: Path, folder: Path, *more: str) -> int:
    if not (tmp_path / "encoder").exists():
        write_encoder(tmp_path / "encoder")
    build = ["build", "--gallery", str(tmp_path / "gallery"), "--encoder", str(tmp_path / "encoder")]
    return main([*build, "--images", str(folder), "--lengths", LENGTHS, *more])


def sync(gallery: Gallery, *, dry_run: bool = False, encoder: Encoder | None = None) -> Report:
    encoder = encoder or Encoder(gallery.encoder_path(gallery.current_encoder_id()))
    (folder,) = known_folders(gallery.store)
    with gallery.writing():
        return sync_folder(gallery, encoder, folder, Progress(), dry_run=dry_run)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return report.added, report.replaced, report.unchanged, report.moved, report.gone


def change(folder: Path) -> None:
    """Three added, two edited, three moved (one to another name, two to another folder), two deleted."""
    for seed in (900, 901, 902):
        (folder / "even" / f"{seed}.png").write_bytes(png(pixels_of(seed)))
    for seed in (4, 5):
        (folder / image_id(seed)).write_bytes(png(pixels_of(1000 + seed)))
    (folder / image_id(6)).rename(folder / "even" / "renamed.png")
    (folder / "new").mkdir()
    for seed in (8, 9):
        (folder / image_id(seed)).rename(folder / "new" / f"{seed}.png")
    for seed in (10, 11):
        (folder / image_id(seed)).unlink()


def ids(gallery: Gallery) -> list[str]:
    return [record.id for record in gallery.store.page(1000)]


class CountingEncoder(Encoder):
    """Counts what it encodes."""

    encoded = 0

    def encode(self, pixels: Any) -> Any:
        self.encoded += len(pixels)
        return super().encode(pixels)


def test_a_gallery_in_step_equals_one_built_anew_and_nothing_is_encoded_twice(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    store = gallery.store
    record = store.record(image_id(8))
    code = np.zeros(12, dtype=np.float32)
    code = Encoder(tmp_path / "encoder").encode(pixels_of(8)[None])[0]
    encoder_id = gallery.current_encoder_id()
    store.replace_metadata(record.id, {"label": "even", "price": 3}, key=record.key, code=code, encoder_id=encoder_id)
    change(folder)
    planned = sync(gallery, dry_run=True)
    assert counts(planned) == (3, 2, 17, 3, 2)
    assert {(entry.change, entry.id, entry.was) for entry in planned.changes} >= {
        ("moved", "even/renamed.png", image_id(6)),
        ("gone", image_id(11), None),
        ("replaced", image_id(4), None),
    }
    assert len(ids(gallery)) == COUNT
    encoder = CountingEncoder(tmp_path / "encoder")
    done = sync(gallery, encoder=encoder)
    assert (counts(done), encoder.encoded) == (counts(planned), 5)
    assert store.record("new/8.png").metadata == {"label": "new", "price": 3}
    assert counts(sync(gallery, encoder=encoder)) == (0, 0, 25, 0, 0)
    assert encoder.encoded == 5
    publish(gallery, encoder)
    assert encoder.encoded == 5
    (tmp_path / "anew").mkdir()
    assert build(tmp_path / "anew", folder) == 0
    new = Gallery(tmp_path / "anew" / "gallery")
    anew, synced = stored_codes(new), stored_codes(gallery)
    assert anew.keys() == synced.keys()
    for id, vector in anew.items():
        np.testing.assert_allclose(synced[id], vector, atol=1e-3)
    assert results_of(gallery, anew) == results_of(new, anew)


def results_of(gallery: Gallery, codes: Mapping[str, np.ndarray[Any, Any]]) -> list[list[tuple[str, float]]]:
    """Return the ids and scores that searches with these codes find, by two lengths and both ways to search."""
    searches = [
        {"code": code.astype(float).tolist(), "length": length, "rerank": rerank, "k": 10}
        for code in codes.values()
        for length, rerank in ((2, "none"), (2, "full"), (4, "none"))
    ]
    with serving(settings_of(gallery)) as client:
        answers = client.post("/v1/search/batch", json={"searches": searches}).json()["answers"]
    return [[(hit["id"], round(hit["score"], 3)) for hit in answer["answer"]["results"]] for answer in answers]


def test_files_that_were_only_touched_are_not_encoded(gallery: Gallery, folder: Path, tmp_path: Path) -> None:
    for seed in range(COUNT):
        os.utime(folder / image_id(seed), ns=(1, 1))
    encoder = CountingEncoder(tmp_path / "encoder")
    assert counts(sync(gallery, encoder=encoder)) == (0, 0, COUNT, 0, 0)
    assert encoder.encoded == 0


def test_a_disk_that_is_not_mounted_removes_nothing(gallery: Gallery, folder: Path) -> None:
    aside = folder.rename(folder.parent / "aside")
    for _ in range(2):  # not there, and then an empty place to mount it
        report = sync(gallery)
        assert counts(report)[3:] == (0, 0)
        assert "is its disk mounted" in report.warnings[0]
        folder.mkdir(exist_ok=True)
    assert main(["sync", "--gallery", str(gallery.root)]) == 1
    assert len(ids(gallery)) == COUNT
    folder.rmdir()
    aside.rename(folder)
    assert counts(sync(gallery)) == (0, 0, COUNT, 0, 0)


def test_a_disk_within_a_folder_that_is_not_mounted_removes_nothing(gallery: Gallery, folder: Path) -> None:
    shutil.move(folder / "odd", folder.parent / "aside")
    (folder / "odd").mkdir()
    report = sync(gallery)
    assert (report.gone, len(ids(gallery))) == (0, COUNT)
    assert "12 images lie in folders" in report.warnings[0]
    (folder / "odd").rmdir()
    assert sync(gallery).gone == 12, "a folder that was deleted is one whose images are gone"


def test_two_cameras_with_equal_file_names_live_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = []
    for number, name in enumerate(("one/dcim", "two/dcim", "three/dcim")):
        cameras.append(tmp_path / name)
        cameras[-1].mkdir(parents=True)
        for seed in range(12):
            (cameras[-1] / f"IMG_{seed:04d}.JPG").write_bytes(png(pixels_of(100 * number + seed)))
    assert build(tmp_path, cameras[0], "--name", "first") == 0
    assert build(tmp_path, cameras[1]) == 0
    assert build(tmp_path, cameras[2]) == 0
    gallery = Gallery(tmp_path / "gallery")
    expected = [f"{name}/IMG_{seed:04d}.JPG" for name in ("dcim", "dcim-2", "first") for seed in range(12)]
    assert ids(gallery) == sorted(expected)
    assert gallery.store.content(gallery.store.record("dcim/IMG_0003.JPG").key) == png(pixels_of(103))
    capsys.readouterr()
    assert build(tmp_path, cameras[1]) == 0, "the same folder again"
    assert capsys.readouterr().out.startswith("0 added, 0 replaced, 12 unchanged")
    moved = cameras[0].rename(tmp_path / "elsewhere")
    assert build(tmp_path, moved, "--name", "first") == 0
    assert capsys.readouterr().out.startswith("0 added, 0 replaced, 12 unchanged")
    assert gallery.store.content(gallery.store.record("first/IMG_0003.JPG").key) == png(pixels_of(3))
    with pytest.raises(FolderError, match="in the gallery already, as 'dcim'"):
        register_folder(gallery.store, cameras[1], name="other")


def test_a_gallery_of_an_earlier_version_knows_its_folder_again(gallery: Gallery, folder: Path, tmp_path: Path) -> None:
    database_of(gallery).connection.executescript("DROP TABLE files; DROP TABLE folders; PRAGMA user_version = 3;")
    gallery.store.close()
    change(folder)
    assert build(tmp_path, folder) == 0
    reopened = Gallery(tmp_path / "gallery")
    assert len(ids(reopened)) == COUNT + 1
    assert image_id(10) not in ids(reopened)


def test_a_name_that_was_no_good_id_is_mended(gallery: Gallery, folder: Path) -> None:
    with database_of(gallery).transaction() as connection:
        connection.execute("UPDATE images SET id = ? WHERE id = ?", ("even/a\nb.png", image_id(2)))
    (folder / image_id(2)).rename(folder / "even" / "a\nb.png")
    assert counts(sync(gallery)) == (0, 0, COUNT - 1, 1, 0)
    assert gallery.store.record("even/a\\x0ab.png")


@pytest.fixture
def client(gallery: Gallery) -> Iterator[httpx.Client]:
    with serving(settings_of(gallery)) as running:
        running.headers.update(admin_headers(gallery))
        yield running


def finished(client: httpx.Client, **body: object) -> dict[str, Any]:
    address = client.post("/v1/admin/sync", json=body).headers["location"]
    job: dict[str, Any] = wait_for(lambda: (b := client.get(address).json())["finished"] and b, every_s=JOB_EVERY_S)
    assert job["state"] == "done", job
    return dict(job["result"])


def test_a_job_keeps_a_served_gallery_in_step_and_no_ghost_is_found(
    gallery: Gallery, client: httpx.Client, folder: Path
) -> None:
    change(folder)
    done = finished(client)
    assert done["report"] == "3 added, 2 replaced, 17 unchanged, 3 moved, 2 gone, 0 failed"
    for seed, id in ((900, "even/900.png"), (1004, image_id(4)), (8, "new/8.png")):
        best = client.post("/v1/search", params={"k": 40}, files={"image": png(pixels_of(seed))}).json()["results"]
        assert (best[0]["id"], len(best)) == (id, COUNT + 1)
        assert not {result["id"] for result in best} & {image_id(seed) for seed in (6, 8, 9, 10, 11)}
        assert all(client.get(result["content"]).status_code == 200 for result in best)
    assert client.post("/v1/admin/sync", json={"name": "none"}).status_code == 422


def process(gallery: Gallery, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "eigenlens", "sync", "--gallery", str(gallery.root), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


KILLED_AT_THE_THIRD_IMAGE = """import os, signal, sys
from eigenlens.command import main
from eigenlens.service.gallery import sync

ingest, calls = sync.ingest, []

def ingest_two(*args, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return ingest(*args, **options)

sync.ingest, sync.INGEST_BATCH_SIZE = ingest_two, 1
main(["sync", "--gallery", sys.argv[1]])
"""


def test_a_sync_that_is_killed_loses_nothing_and_is_carried_on(gallery: Gallery, folder: Path) -> None:
    change(folder)
    assert counts(sync(gallery, dry_run=True)) == (3, 2, 17, 3, 2)
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_THE_THIRD_IMAGE, str(gallery.root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert gallery.store.content(gallery.store.record(image_id(4)).key) == png(pixels_of(1004)), "the first"
    assert {"even/900.png", "even/901.png", "even/902.png"} & set(ids(gallery)) == {"even/900.png"}, "the second"
    rest = sync(gallery, dry_run=True)
    assert counts(rest) == (2, 1, 22, 0, 2), "the moves and two images are done"
    assert counts(sync(gallery)) == counts(rest)
    expected = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
    assert set(ids(gallery)) == expected
    for id in expected:
        assert gallery.store.content(gallery.store.record(id).key) == (folder / id).read_bytes()


def test_watching_takes_a_copied_file_in_within_seconds(gallery: Gallery, folder: Path) -> None:
    running = process(gallery, "--watch")
    try:
        assert running.stderr is not None
        while b"watching" not in running.stderr.readline():
            assert running.poll() is None
        begun = time.monotonic()
        (folder / "even" / "copied.png").write_bytes(png(pixels_of(950)))
        wait_for(lambda: "even/copied.png" in ids(gallery), timeout_s=20)
        assert time.monotonic() - begun < 10
        (folder / "even" / "copied.png").unlink()
        wait_for(lambda: "even/copied.png" not in ids(gallery), timeout_s=20)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) == 130
        running.communicate()


def test_the_plan_is_told_as_json(gallery: Gallery, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder)
    capsys.readouterr()
    assert main(["sync", "--gallery", str(gallery.root), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["moved"], told["gone"], len(told["changes"])) == (3, 2, 10)
