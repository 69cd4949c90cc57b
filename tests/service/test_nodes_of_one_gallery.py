"""Several service processes over one PostgreSQL and one directory; migration there and back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.command import main
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.restore import restore_into
from eigenlens.service.gallery.store.open import open_store
from eigenlens.service.http import startup
from eigenlens.service.http.startup import open_state
from eigenlens.service.jobs.store import Jobs
from tests.failover import fail_over
from tests.support.postgres import Server
from tests.support.service import (
    JOB_EVERY_S,
    admin_headers,
    build_gallery,
    code_of,
    image_id,
    pixels_of,
    png,
    publish,
    serving,
    settings_of,
    wait_for,
)

COUNT = 12


def migrate(gallery: Gallery, address: str, *more: str) -> None:
    assert main(["migrate", "--gallery", str(gallery.root), "--store", address, *more]) == 0


def found(client: httpx.Client, seed: int, *, k: int = 1) -> list[str]:
    answer = client.post("/v1/search", json={"code": code_of(pixels_of(seed)).tolist(), "k": k, "include": []})
    return [result["id"] for result in answer.raise_for_status().json()["results"]]


def put(client: httpx.Client, seed: int) -> str:
    id = f"new/{seed}.png"
    client.put(f"/v1/images/{id}", content=png(pixels_of(seed)), headers={"content-type": "image/png"})
    return id


@pytest.fixture
def address(postgres: Server) -> str:
    return postgres.new_schema()


class Nodes(NamedTuple):
    """Three nodes of one gallery: one in a process of its own, and two in this one, of which one follows when told."""

    process: subprocess.Popen[bytes]
    other: httpx.Client
    second: httpx.Client
    here: httpx.Client
    look: Callable[[], None]


@pytest.fixture
def nodes(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    gallery = build_gallery(tmp_path, count=COUNT)
    gallery.store.close()
    migrate(gallery, address)
    # What is promised is a second: room for two looks, and one is enough.
    assert startup._FOLLOW_EVERY_S <= 0.5
    monkeypatch.setattr(startup, "_FOLLOW_EVERY_S", 1000)
    settings = settings_of(gallery, store=address)
    state = open_state(settings)
    environment = {**os.environ, "EIGENLENS_STORE": address, "EIGENLENS_RUNTIME": "onnxruntime"}
    process, url = start_service(gallery.root, tmp_path / "log", environment=environment)
    try:
        with (
            httpx.Client(base_url=url, timeout=30) as other,
            serving(settings) as second,
            serving(settings, opened=state) as here,
        ):
            for client in (other, second, here):
                client.headers.update(admin_headers(gallery))
            yield Nodes(process, other, second, here, state.snapshots.follow)
    finally:
        process.kill()
        process.wait()


def test_what_one_node_changes_the_others_answer_and_a_dead_one_is_not_missed(nodes: Nodes) -> None:
    process, other, second, here, look = nodes
    id = put(other, 100)
    look()
    assert found(here, 100) == [id]
    id = put(here, 102)
    wait_for(lambda: found(other, 102) == [id])  # which looks by itself
    here.delete(f"/v1/images/{id}").raise_for_status()
    assert id not in found(other, 102, k=COUNT), "the store tells what is removed, not the index"
    put(other, 101)
    lost = other.post("/v1/admin/rebuild").json()["id"]
    assert second.post("/v1/admin/rebuild").status_code == 409
    os.kill(process.pid, signal.SIGKILL)  # its locks end with it
    started = wait_for(lambda: (answer := second.post("/v1/admin/rebuild")).status_code == 202 and answer)
    assert job_of(second, lost)["state"] == "failed"
    done = wait_for(
        lambda: (job := job_of(second, started.json()["id"]))["finished"] and job, timeout_s=100, every_s=JOB_EVERY_S
    )
    look()
    assert done["generation"] == generation(here) == generation(second)
    second.post("/v1/admin/generations/1/activate").raise_for_status()
    look()
    assert generation(here) == 1
    assert found(here, 101) == ["new/101.png"]


def test_no_search_fails_while_a_standby_takes_the_place_of_a_killed_primary(tmp_path: Path) -> None:
    load = fail_over(tmp_path, kills=1)
    assert load.searches > 5
    assert load.acknowledged


def job_of(client: httpx.Client, id: str) -> dict[str, Any]:
    return dict(client.get(f"/v1/admin/jobs/{id}").raise_for_status().json())


def generation(client: httpx.Client) -> int:
    return int(client.get("/readyz").json()["generation"])


def test_a_gallery_goes_to_postgres_and_back_and_loses_nothing(
    tmp_path: Path, address: str, postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=COUNT)
    with serving(settings_of(gallery)) as client:
        client.headers.update(admin_headers(gallery))
        put(client, 100)
        client.delete(f"/v1/images/{image_id(1)}").raise_for_status()
        client.patch(f"/v1/images/{image_id(2)}", json={"metadata": {"label": "x"}})
        jobs = Jobs(gallery)
        jobs.finish(jobs.create("duplicates", {"cosine": 0.9}).id, error="what it says")
        expected = answers(client)
        log_of_then = (gallery.root / "gallery.sqlite-wal").read_bytes()
        gallery.store.close()
        assert main(["migrate", "--gallery", str(gallery.root), "--store", address]) == 1
        assert "served or built" in capsys.readouterr().err
    taken = other_gallery(postgres.new_schema(), tmp_path / "taken", current=1)
    assert main(["migrate", "--gallery", str(gallery.root), "--store", taken]) == 1
    assert "differ in images, " in capsys.readouterr().err
    migrate(gallery, address)
    with pytest.raises(GalleryError, match="are in PostgreSQL"):
        open_store(gallery.root)
    with pytest.raises(GalleryError, match="another gallery"):
        open_store(gallery.root, other_gallery(postgres.new_schema(), tmp_path / "other"))
    assert main(["doctor", "--gallery", str(gallery.root), "--store", address]) == 0
    assert "12 images, PostgreSQL at 127.0.0.1" in capsys.readouterr().out
    moved = Gallery(gallery.root, store=address)
    with serving(settings_of(moved, store=address)) as client:
        client.headers.update(admin_headers(moved))
        assert answers(client) == expected
        backup = client.post("/v1/admin/backups", json={}).raise_for_status().json()
        put(client, 103)
        with restore_into(moved, moved.root / "backups" / backup["name"], Progress()) as apply:
            assert apply() == {"added": 0, "removed": 1, "unchanged": COUNT}
        assert answers(client)["images"] == expected["images"]
        put(client, 104)
        expected = answers(client)
    encoder = Encoder(tmp_path / "encoder")
    assert publish(moved, encoder) == 2
    moved.store.close()
    (gallery.root / "gallery.sqlite-wal").write_bytes(log_of_then)  # as of a process that had it open, and was killed
    migrate(gallery, address, "--back")
    back = Gallery(gallery.root)
    assert back.current() == 2
    with serving(settings_of(back)) as client:
        client.headers.update(admin_headers(back))
        assert answers(client)["images"] == expected["images"]
        assert [job["kind"] for job in client.get("/v1/admin/jobs").json()] == ["duplicates"]
    back.store.close()


def other_gallery(address: str, root: Path, *, current: int | None = None) -> str:
    root.mkdir()
    store = open_store(root, address, create=True)
    if current is not None:
        store.activate(current)
    store.close()
    return address


def answers(client: httpx.Client) -> dict[str, Any]:
    """What a gallery answers: all images, and searches for some."""
    listed = client.get("/v1/images?limit=100").raise_for_status().json()
    images = [client.get(f"/v1/images/{entry['id']}").json() for entry in listed["images"]]
    searches = [found(client, seed, k=COUNT) for seed in (1, 2, 100)]
    contents = [client.get(f"/v1/images/{entry['id']}/content").content for entry in listed["images"]]
    return {
        "images": [(image["id"], image["metadata"], image["sha256"]) for image in images],
        "searches": searches,
        "contents": contents,
        "jobs": client.get("/v1/admin/jobs").json(),
    }
