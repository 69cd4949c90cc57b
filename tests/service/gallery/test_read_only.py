"""Galleries that cannot be written: read-only, another user's, on a full disk. Each is told, and nothing is lost."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.sqlite import SqliteStore
from tests.support.service import admin_headers, build_gallery, image_id, pixels_of, png, serving, settings_of, wait_for

# Root writes anywhere; without this capability only where it has the right.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
EIGENLENS = [*UNPRIVILEGED, sys.executable, "-m", "eigenlens"]


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Gallery]:
    """A gallery that may be read and not written."""
    gallery = build_gallery(tmp_path, count=6)
    gallery.store.close()
    parts = [gallery.root, *gallery.root.rglob("*")]
    for path in parts:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield gallery
    for path in parts:
        path.chmod(0o755)


def test_it_is_served_and_refuses_changes(locked: Gallery, tmp_path: Path) -> None:
    key, log = tmp_path / "admin.key", tmp_path / "log"
    command = [*EIGENLENS, "serve", "--gallery", str(locked.root), "--port", "0", "--admin-key-file", str(key)]
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            address = wait_for(lambda: re.search(r"at (http://\S+)", log.read_text()))[1]
            wait_for(lambda: "Application startup complete" in log.read_text())
            with httpx.Client(base_url=address, verify=False, timeout=30) as client:
                found = client.post("/v1/search?k=3", files={"image": png(pixels_of(2))})
                assert len(found.json()["results"]) == 3
                assert client.get(f"/v1/images/{image_id(2)}/thumbnail").status_code == 200
                client.headers["Authorization"] = f"Bearer {key.read_text().strip()}"
                assert client.get("/v1/admin/stats").json()["images"] == 6
                for refused in (
                    client.post("/v1/images", files={"image": ("new.png", png(pixels_of(50)))}),
                    client.delete(f"/v1/images/{image_id(2)}"),
                    client.post("/v1/admin/rebuild"),
                ):
                    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/read-only")
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0
    assert "is served read-only" in log.read_text()


def test_without_a_key_no_file_is_named_as_one(locked: Gallery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*EIGENLENS, "serve", "--gallery", str(locked.root), "--port", "0"]
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            told = wait_for(lambda: re.search(r"admin key: (.*)\n", log.read_text()))[1]
        finally:
            process.terminate()
    assert told == "none: the gallery cannot be written; --admin-key-file names another place"


def test_a_command_tells_whose_files_they_are(locked: Gallery) -> None:
    command = [*EIGENLENS, "build", "--gallery", str(locked.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "may not read or write" in done.stderr


def test_a_database_that_may_not_be_read_is_told(locked: Gallery) -> None:
    """SQLite said "unable to open database file" alone."""
    (locked.root / "gallery.sqlite").chmod(0o000)
    command = [*EIGENLENS, "serve", "--gallery", str(locked.root), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"gallery\.sqlite cannot be used: .* may not read or write: give it the right", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = build_gallery(tmp_path, count=6)
    gallery.store.close()
    connect = sqlite3.connect

    def connect_to_a_full_disk(*args: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **more)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes no fewer than there are
        return connection

    def put(client: httpx.Client, seed: int) -> httpx.Response:
        content = os.urandom(100_000) if seed else png(pixels_of(seed))
        headers = {**admin_headers(gallery), "content-type": "image/png"}
        return client.put(f"/v1/images/{seed}.png", content=png(pixels_of(seed)) + content, headers=headers)

    with monkeypatch.context() as patch:
        patch.setattr("eigenlens.service.gallery.store.sqlite.sqlite3.connect", connect_to_a_full_disk)
        with serving(settings_of(gallery)) as client:
            full = put(client, 50)
            assert (full.status_code, full.json()["type"]) == (507, "/problems/disk-full")
            assert "free some space" in full.json()["detail"]
            assert client.get("/v1/lengths").json()["count"] == 6
    with serving(settings_of(gallery)) as client:
        assert put(client, 50).status_code == 201
    assert SqliteStore(gallery.root / "gallery.sqlite").query("PRAGMA integrity_check")[0][0] == "ok"


FILL_A_DISK = """
import shutil, subprocess, sys
from eigenlens.command import main

gallery, disk, images = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", disk], check=True)
shutil.copytree(gallery, f"{disk}/gallery")
print("status", main(["build", "--gallery", f"{disk}/gallery", "--images", images]), flush=True)
subprocess.run(f"cat /dev/zero >{disk}/fill", shell=True, stderr=subprocess.DEVNULL)
print("serve", main(["serve", "--gallery", f"{disk}/gallery", "--port", "0"]), flush=True)
subprocess.run(["rm", f"{disk}/fill"], check=True)
main(["doctor", "--gallery", f"{disk}/gallery"])
"""


def test_a_disk_that_fills_up_during_a_build_is_told_and_the_gallery_is_as_it_was(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0 or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root makes a small disk")
    gallery = build_gallery(tmp_path, count=6)
    gallery.store.close()
    noise = np.random.default_rng(0)
    with tarfile.open(tmp_path / "more.tar", "w") as archive:  # images of an archive are copied into the gallery
        for number in range(60):
            content = png(noise.integers(0, 256, (150, 150, 3), dtype=np.uint8))
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    (tmp_path / "disk").mkdir()
    places = [str(gallery.root), str(tmp_path / "disk"), str(tmp_path / "more.tar")]
    command = [*unshare, sys.executable, "-c", FILL_A_DISK, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "status 1" in done.stdout, done.stdout + done.stderr
    assert done.stderr.count("the disk is full") == 2, done.stderr
    assert "serve 1" in done.stdout, done.stderr
    assert "gallery.sqlite cannot be used: the disk is full; free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert "generation 1 is whole" in done.stdout
