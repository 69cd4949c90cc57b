"""Rebuilds, roll backs and cancelled jobs of a gallery that is changed meanwhile: nothing is lost."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import httpx
import pytest

from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.http.startup import open_state
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.jobs.worker import end_when_cancelled
from tests.support.living import COUNT, add, client, gallery, nearest, rebuild
from tests.support.service import (
    admin_headers,
    database_of,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
    write_encoder,
    write_images,
)

__all__ = ["client", "gallery"]


def test_a_rollback_keeps_what_was_added_and_removed_since(client: httpx.Client) -> None:
    add(client, [500])
    assert client.delete(f"/v1/images/{image_id(5)}").status_code == 204
    rebuild(client)
    add(client, [501])
    listed = client.get("/v1/admin/generations").json()
    assert [(entry["number"], entry["served"], entry["count"]) for entry in listed] == [(2, True, 30), (1, False, 30)]
    for number in (1, 2, 1):
        assert client.post(f"/v1/admin/generations/{number}/activate").json()["number"] == number
        assert nearest(client, 500)[0] == "new/500.png"
        assert nearest(client, 501)[0] == "new/501.png"
        assert image_id(5) not in nearest(client, 5, k=100)
        assert client.get("/v1/lengths").json()["count"] == COUNT + 1


def test_a_generation_that_is_served_no_more_goes_at_once(gallery: Gallery) -> None:
    """Its indexes are gigabytes, and a process that serves looks through what it has at the start never again."""
    settings = settings_of(gallery)
    with serving(settings, opened=(state := open_state(settings))) as client:
        client.headers.update(admin_headers(gallery))
        snapshots = state.snapshots

        queries: list[dict[str, Any]] = [{}, {"length": 4}, {"filter": {"label": "even"}}, {"k": 25, "offset": 2}]
        for query in (*queries, {"filter": {"$code": {"1": {"$gte": -1}}}}, {"include": ["code", "metadata"]}):
            assert client.post("/v1/search", json={"id": image_id(5), **query}).status_code == 200
        for _ in range(4):  # every thread has had one
            photograph = {"image": ("q.png", png(pixels_of(7)))}
            assert client.post("/v1/search", files=photograph).status_code == 200
        for path in ("lengths", "eigenfunctions", "map", "facets", "admin/generations", "images"):
            assert client.get(f"/v1/{path}").status_code == 200
        served = snapshots.current
        references = [weakref.ref(one) for one in (served, served.engine)]
        del served
        gc.disable()
        try:
            rebuild(client)  # nobody searches afterwards: no thread takes other work
            wait_for(lambda: all(reference() is None for reference in references))
        finally:
            gc.enable()
        assert snapshots.current.number == 2


def test_a_rollback_to_another_encoder_encodes_what_came_since(client: httpx.Client, gallery: Gallery) -> None:
    other = write_encoder(gallery.root.parent / "other", shift=100.0)
    with gallery.writing():
        gallery.adopt_encoder(other)
        publish_generation(gallery, Encoder(other), Progress())
    wait_for(lambda: client.get("/v1/lengths").json()["generation"] == 2)
    add(client, [500])
    client.post("/v1/admin/generations/1/activate")
    result = client.post("/v1/search", params={"k": 1}, files={"image": ("q.png", png(pixels_of(500)))}).json()
    assert result["results"][0]["id"] == "new/500.png"
    assert result["results"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_a_rollback_leaves_out_what_can_no_longer_be_encoded_and_serves_the_rest(
    client: httpx.Client, gallery: Gallery
) -> None:
    other = Encoder(write_encoder(gallery.root.parent / "other", shift=100.0))
    folder = write_images(gallery.root.parent / "images", COUNT + 2)
    with gallery.writing():
        gallery.adopt_encoder(other.artifact.path)
        publish_generation(gallery, other, Progress())
        add_images(gallery, other, FolderSource(folder), Progress())
    (folder / image_id(COUNT)).unlink()
    assert client.post("/v1/admin/generations/1/activate").status_code == 200
    assert nearest(client, COUNT + 1)[0] == image_id(COUNT + 1)
    assert image_id(COUNT) not in nearest(client, COUNT, k=100)
    with serving(settings_of(gallery)) as started_again:
        assert len(nearest(started_again, 1, k=100)) == COUNT + 1


def test_nothing_that_arrives_during_a_rebuild_is_lost(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, added = threading.Event(), []

    def arrive() -> None:
        seed = 1000
        while not stop.wait(0.02):
            add(client, [seed])
            added.append(seed)
            if seed % 3 == 0:
                assert client.delete(f"/v1/images/new/{seed}.png").status_code == 204
                added.remove(seed)
            seed += 1

    arriving = threading.Thread(target=arrive)
    arriving.start()
    try:
        for number in (2, 3):
            assert rebuild(client)["generation"] == number
    finally:
        stop.set()
        arriving.join()
    rebuild(client)
    assert client.get("/v1/lengths").json()["count"] == COUNT + len(added)
    for seed in added:
        assert nearest(client, seed, k=1) == [f"new/{seed}.png"]


def test_a_job_can_be_cancelled(client: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    with database_of(gallery).transaction() as connection:  # keys that no generation has: everything has to be encoded
        connection.execute("DELETE FROM codes")
        connection.execute("UPDATE images SET key = key - 100000")
    jobs = Jobs(gallery)
    with gallery.writing():  # the worker cannot begin
        job = client.post("/v1/admin/rebuild").json()["id"]
        failed = wait_for(lambda: jobs.get(job).finished and jobs.get(job))
    assert failed.state == "failed"
    job = client.post("/v1/admin/rebuild").json()["id"]
    answer = client.post(f"/v1/admin/jobs/{job}/cancel")
    ended = wait_for(lambda: jobs.get(job).finished and jobs.get(job))
    assert (answer.status_code, ended.state) in ((202, "cancelled"), (409, "done"))
    if ended.state == "cancelled":
        assert gallery.numbers() == [1]
    again = client.post(f"/v1/admin/jobs/{job}/cancel")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/job-ended")
    assert rebuild(client)["state"] == "done"


def test_a_job_that_has_switched_is_not_cancelled_any_more(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    jobs, commit_lock = Jobs(gallery), threading.Lock()
    for switched, exits in ((True, []), (False, [4])):
        job = jobs.create("rebuild", {})
        with commit_lock:  # the cancellation comes while the worker switches
            jobs.cancel(job.id)
            waiting = threading.Thread(target=end_when_cancelled, args=(jobs, job.id, commit_lock))
            waiting.start()
            if switched:
                jobs.record_generation(job.id, 2)
        waiting.join()
        assert ended == exits
        jobs.finish(job.id, error=None if switched else "the process ended")
        assert jobs.get(job.id).state == ("done" if switched else "cancelled")
