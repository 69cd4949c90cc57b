"""Backups: consistent though the gallery changes, restored elsewhere, in place of a gallery, and into a served one."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens import artifact
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import BackupError, GalleryBusyError, GalleryError
from eigenlens.service.gallery.backup import Archive, snapshot, write_archive
from eigenlens.service.gallery.folders import register_folder
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.restore import restore, restore_into
from eigenlens.service.gallery.sync import sync_folder
from tests.support.service import (
    JOB_EVERY_S,
    SEARCH_EVERY_S,
    admin_headers,
    build_gallery,
    database_of,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
    write_encoder,
)

COUNT = 30


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return build_gallery(tmp_path / "first", count=COUNT)


@pytest.fixture
def client(gallery: Gallery) -> Iterator[httpx.Client]:
    with serving(settings_of(gallery)) as running:
        running.headers.update(admin_headers(gallery))
        yield running


def add(client: httpx.Client, seed: int, *, id: str | None = None) -> None:
    files = {"image": (id or f"new/{seed}.png", png(pixels_of(seed)))}
    assert client.post("/v1/images", files=files).json()["failed"] == []


def nearest(client: httpx.Client, seed: int, k: int = 1) -> list[str]:
    answer = client.post("/v1/search", params={"k": k}, files={"image": ("q.png", png(pixels_of(seed)))})
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def done(client: httpx.Client, response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    path = response.headers["location"]
    job: dict[str, Any] = wait_for(
        lambda: (found := client.get(path).json())["finished"] and found, every_s=JOB_EVERY_S
    )
    return job


def everything(client: httpx.Client) -> dict[str, tuple[str, str]]:
    images: dict[str, tuple[str, str]] = {}
    after = ""
    while True:
        page = client.get("/v1/images", params={"limit": 200, "after": after}).json()
        images |= {image["id"]: (image["sha256"], str(image["metadata"])) for image in page["images"]}
        if not page.get("next"):
            return images
        after = page["next"]


def test_a_backup_is_sent_and_restored_into_a_directory_of_its_own(
    client: httpx.Client, gallery: Gallery, tmp_path: Path
) -> None:
    add(client, 500)
    assert client.delete(f"/v1/images/{image_id(5)}").status_code == 204
    held = everything(client)
    answer = client.get("/v1/admin/backup", params={"files": True})
    assert answer.headers["content-type"] == "application/x-tar"
    assert int(answer.headers["content-length"]) == len(answer.content)
    archive = tmp_path / "a.tar"
    archive.write_bytes(answer.content)
    with tarfile.open(archive) as tar:
        assert not [name for name in tar.getnames() if "key" in name.rsplit("/", 1)[-1].partition(".")[2]]
    add(client, 501)
    for file in (tmp_path / "first" / "images").rglob("*.png"):
        file.unlink()
    assert restore(archive, tmp_path / "second") == COUNT
    with serving(settings_of(Gallery(tmp_path / "second"))) as second:
        assert everything(second) == held
        assert nearest(second, 500) == ["new/500.png"]
        assert nearest(second, 501) != ["new/501.png"]
        assert image_id(5) not in nearest(second, 5, k=COUNT)
        assert second.get(f"/v1/images/{image_id(7)}/content").content == png(pixels_of(7))
    assert not list((gallery.root / "backups").glob(".*")), "nothing is left beside the gallery"


def test_backups_are_kept_beside_the_gallery_listed_and_removed(client: httpx.Client, gallery: Gallery) -> None:
    made = client.post("/v1/admin/backups", json={"name": "monday.tar"})
    assert made.status_code == 201
    assert made.json()["bytes"] == (gallery.root / "backups" / "monday.tar").stat().st_size
    again = client.post("/v1/admin/backups", json={"name": "monday.tar"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/backup-exists")
    unnamed = client.post("/v1/admin/backups").json()["name"]
    assert [found["name"] for found in client.get("/v1/admin/backups").json()] == [unnamed, "monday.tar"]
    assert client.delete(f"/v1/admin/backups/{unnamed}").status_code == 204
    assert client.delete(f"/v1/admin/backups/{unnamed}").status_code == 404
    assert [found["name"] for found in client.get("/v1/admin/backups").json()] == ["monday.tar"]


@pytest.mark.parametrize("name", ["../../etc/passwd.tar", "a/b.tar", ".hidden.tar", "x.zip", "", "a\x00.tar", "ü.tar"])
def test_a_backups_name_leads_nowhere_else(client: httpx.Client, gallery: Gallery, name: str) -> None:
    for path in ("backups", "restore"):
        body = {"name": name} if path == "backups" else {"backup": name}
        assert client.post(f"/v1/admin/{path}", json=body).status_code == 422
    assert client.post("/v1/admin/restore", json={"backup": "none.tar"}).status_code == 404
    assert not (gallery.root / "backups").exists() or not list((gallery.root / "backups").iterdir())


def test_restoring_while_it_is_served_undoes_what_came_since_and_no_search_fails(
    client: httpx.Client, gallery: Gallery
) -> None:
    add(client, 500)
    client.patch(f"/v1/images/{image_id(2)}", json={"metadata": {"price": 7}})
    held = everything(client)
    client.post("/v1/admin/backups", json={"name": "b.tar"})
    add(client, 501)
    add(client, 900, id=image_id(6))
    for id in (image_id(5), "new/500.png"):
        client.delete(f"/v1/images/{id}")
    client.patch(f"/v1/images/{image_id(2)}", json={"metadata": {"price": 8}})
    done(client, client.post("/v1/admin/rebuild"))
    stop, failures = threading.Event(), []

    def search() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30, verify=False) as own:
            while not stop.wait(SEARCH_EVERY_S):
                answer = own.post("/v1/search?k=1", files={"image": ("q.png", png(pixels_of(7)))})
                if answer.status_code != 200 or answer.json()["results"][0]["id"] != image_id(7):
                    failures.append(answer.text)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        job = done(client, client.post("/v1/admin/restore", json={"backup": "b.tar"}))
        assert (job["state"], job["error"]) == ("done", None)
        assert job["result"] == {"added": 4, "removed": 3, "unchanged": COUNT - 3}
        assert everything(client) == held
        for seed, id in ((500, "new/500.png"), (5, image_id(5)), (6, image_id(6))):
            assert nearest(client, seed) == [id]
        assert nearest(client, 501) != ["new/501.png"]
        assert client.get("/v1/images/new/500.png/content").content == png(pixels_of(500))
        again = done(client, client.post("/v1/admin/restore", json={"backup": "b.tar", "rebuild": True}))
        assert again["result"] == {"added": 0, "removed": 0, "unchanged": COUNT + 1}
        assert again["generation"] == 3
        assert nearest(client, 500) == ["new/500.png"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_backup_is_consistent_while_images_come_and_go(
    client: httpx.Client, gallery: Gallery, tmp_path: Path
) -> None:
    """Each image that comes is followed by the removal of the one before: a copy holds one of them, or two."""
    stop = threading.Event()

    def change() -> None:
        seed = 1000
        add(client, seed)
        while not stop.wait(0.005):
            add(client, seed + 1)
            assert client.delete(f"/v1/images/new/{seed}.png").status_code == 204
            seed += 1

    changing = threading.Thread(target=change)
    changing.start()
    wait_for(lambda: gallery.store.count() > COUNT)
    rebuilding = client.post("/v1/admin/rebuild")
    archives = []
    try:
        for number in range(6):
            archive = tmp_path / f"{number}.tar"
            answer = client.get("/v1/admin/backup")
            assert answer.status_code == 200, answer.text
            archive.write_bytes(answer.content)
            archives.append(archive)
        assert done(client, rebuilding)["state"] == "done"
    finally:
        stop.set()
        changing.join()
    for archive in archives:
        restored = tmp_path / f"restored-{archive.stem}"
        assert restore(archive, restored) in (COUNT + 1, COUNT + 2)
        with serving(settings_of(Gallery(restored))) as second:
            ids = set(everything(second))
            assert set(nearest(second, 1, k=100)) == ids, "all that is there is found"


def test_a_damaged_archive_is_refused_and_nothing_is_left(gallery: Gallery, tmp_path: Path) -> None:
    with snapshot(gallery) as found:
        whole = b"".join(Archive(found))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    outside = io.BytesIO()
    with tarfile.open(fileobj=outside, mode="w") as tar:
        entry = tarfile.TarInfo("../outside")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        entry = tarfile.TarInfo("CURRENT")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    for data in (bytes(flipped), whole[: len(whole) // 2], b"", b"no tar", outside.getvalue(), link.getvalue()):
        archive = tmp_path / "damaged.tar"
        archive.write_bytes(data)
        with pytest.raises(BackupError, match="cannot be restored"):
            restore(archive, tmp_path / "second")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.tar", "first"]


def test_a_gallery_is_replaced_in_one_step_but_not_under_a_service(gallery: Gallery, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with serving(settings_of(gallery)) as client:
        headers = admin_headers(gallery)
        archive.write_bytes(client.get("/v1/admin/backup", headers=headers).content)
        client.delete(f"/v1/images/{image_id(1)}", headers=headers)
        with pytest.raises(GalleryBusyError, match="end that first"):
            restore(archive, gallery.root, replace=True)
    with pytest.raises(GalleryError, match="--replace"):
        restore(archive, gallery.root)
    assert restore(archive, gallery.root, replace=True) == COUNT
    with serving(settings_of(Gallery(gallery.root))) as client:
        assert admin_headers(gallery) == headers, "the key is kept"
        assert nearest(client, 1) == [image_id(1)]
    assert sorted(path.name for path in gallery.root.parent.iterdir()) == ["encoder", "gallery", "images"]


def test_a_backup_of_another_encoder_is_not_put_into_a_served_gallery(client: httpx.Client, gallery: Gallery) -> None:
    client.post("/v1/admin/backups", json={"name": "b.tar"})
    other = write_encoder(gallery.root.parent / "other", shift=100.0)
    gallery.adopt_encoder(other)
    encoder = Encoder(other).id
    assert encoder in client.get("/v1/admin/stats").json()["encoders"]
    unknown = client.post("/v1/admin/rebuild", json={"encoder": "0" * 16})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/encoder-not-found")
    assert done(client, client.post("/v1/admin/rebuild", json={"encoder": encoder}))["state"] == "done"
    assert client.get("/v1/lengths").json()["encoder"] == encoder
    job = done(client, client.post("/v1/admin/restore", json={"backup": "b.tar"}))
    assert job["state"] == "failed"
    assert "made with encoder" in job["error"]


def test_images_of_a_folder_that_are_restored_with_their_bytes_belong_to_it_again(
    gallery: Gallery, tmp_path: Path
) -> None:
    encoder = Encoder(gallery.encoder_path(gallery.current_encoder_id()))
    folder = register_folder(gallery.store, tmp_path / "first" / "images")

    def sync() -> tuple[int, int, int]:
        report = sync_folder(gallery, encoder, folder, Progress())
        return report.added, report.replaced, report.unchanged

    assert sync() == (0, 0, COUNT)
    with snapshot(gallery, files=True) as copy:
        write_archive(Archive(copy), tmp_path / "a.tar")
    gallery.store.remove([image_id(1)])
    with restore_into(gallery, tmp_path / "a.tar", Progress()) as apply:
        assert apply()["added"] == 1
    (folder.path / image_id(1)).write_bytes(png(pixels_of(600)))
    assert sync() == (0, 1, COUNT - 1)
    assert gallery.store.content(gallery.store.record(image_id(1)).key) == png(pixels_of(600))


def test_a_damaged_generation_is_told_when_it_is_backed_up_and_not_when_it_is_needed(gallery: Gallery) -> None:
    file = next((gallery.codes / "000001").glob("codes.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(artifact.ArtifactDamagedError, match="codes"), snapshot(gallery):
        pass
    assert not list((gallery.root / "backups").iterdir())


def test_a_database_of_the_schema_before_is_taken_along(gallery: Gallery) -> None:
    with database_of(gallery).transaction() as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN result")
        connection.execute("PRAGMA user_version = 2")
    gallery.store.close()
    with serving(settings_of(Gallery(gallery.root))) as client:
        client.headers.update(admin_headers(gallery))
        assert done(client, client.post("/v1/admin/rebuild"))["state"] == "done"
    with sqlite3.connect(gallery.root / "gallery.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] == 4
    database.close()
