"""Folders of the server taken in, generations removed, figures, jobs as events, and searches through all of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens import artifact
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import (
    SEARCH_EVERY_S,
    admin_headers,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
)

COUNT = 30


gallery = gallery_fixture(count=COUNT, scope="function")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that may be taken in: two good images, a bad one, and a link that leads outside."""
    folder = tmp_path / "served" / "2026" / "boots"
    folder.mkdir(parents=True)
    for seed in (700, 701):
        (folder / f"{seed}.png").write_bytes(png(pixels_of(seed)))
    (folder / "bad.png").write_bytes(b"no image")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "702.png").write_bytes(png(pixels_of(702)))
    (folder / "link.png").symlink_to(secret / "702.png")
    (tmp_path / "served" / "out").symlink_to(secret)
    return tmp_path / "served"


@pytest.fixture
def client(gallery: Gallery, root: Path) -> Iterator[httpx.Client]:
    with serving(settings_of(gallery, import_root=root)) as running:
        running.headers.update(admin_headers(gallery))
        yield running


def nearest(client: httpx.Client, seed: int) -> str:
    answer = client.post("/v1/search", params={"k": 1}, files={"image": ("q.png", png(pixels_of(seed)))})
    return str(answer.json()["results"][0]["id"])


def events_of(client: httpx.Client, location: str) -> list[tuple[str, dict[str, Any]]]:
    with client.stream("GET", f"{location}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    events = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_a_folder_of_the_server_is_taken_in_and_its_job_is_told_as_events(client: httpx.Client) -> None:
    response = client.post("/v1/admin/import", json={"folder": "2026", "rebuild": True})
    assert response.status_code == 202, response.text
    events = events_of(client, response.headers["location"])
    assert [name for name, _ in events[:-1]] == ["progress"] * (len(events) - 1)
    name, job = events[-1]
    assert (name, job["state"], job["error"]) == ("end", "done", None)
    assert {key: job["result"][key] for key in ("added", "unchanged", "failed")} == {
        "added": 2,
        "unchanged": 0,
        "failed": 2,
    }
    reasons = {entry["id"]: entry["reason"] for entry in job["result"]["reasons"]}
    assert "no image" in reasons["2026/boots/bad.png"]
    assert "outside" in reasons["2026/boots/link.png"]
    assert job["generation"] == 2
    for seed in (700, 701):
        assert nearest(client, seed) == f"2026/boots/{seed}.png"
    assert nearest(client, 702) != "2026/boots/link.png"
    assert client.get("/v1/images/2026/boots/700.png").json()["metadata"] == {"label": "boots"}
    again = client.post("/v1/admin/import", json={"folder": "./2026/../2026/"})
    assert events_of(client, again.headers["location"])[-1][1]["result"]["unchanged"] == 2


@pytest.mark.parametrize(
    "folder",
    ["..", "../secret", "/etc", "2026/../../secret", "out", "none", "2026/boots/700.png", "a\x00b", "x" * 4000],
)
def test_no_folder_outside_of_the_root_is_taken_in(client: httpx.Client, folder: str) -> None:
    response = client.post("/v1/admin/import", json={"folder": folder})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/folder")
    assert client.get("/v1/admin/jobs").json() == []


def test_without_a_root_no_folder_is_taken_in(gallery: Gallery) -> None:
    with serving(settings_of(gallery)) as client:
        response = client.post("/v1/admin/import", json={"folder": "/"}, headers=admin_headers(gallery))
    assert (response.status_code, response.json()["type"]) == (422, "/problems/folder")


def test_an_empty_folder_is_a_failed_job_that_says_why(client: httpx.Client, root: Path) -> None:
    (root / "empty").mkdir()
    response = client.post("/v1/admin/import", json={"folder": "empty"})
    job = events_of(client, response.headers["location"])[-1][1]
    assert job["state"] == "failed"
    assert "holds no image file" in job["error"]


def test_events_of_an_unknown_job_are_not_found(client: httpx.Client) -> None:
    assert client.get("/v1/admin/jobs/none/events").status_code == 404


def test_a_generation_is_removed_unless_it_is_served(client: httpx.Client, gallery: Gallery) -> None:
    client.post("/v1/images", files={"image": ("new/500.png", png(pixels_of(500)))})
    rebuilt = client.post("/v1/admin/rebuild", json={"optimise": "latency"})
    assert events_of(client, rebuilt.headers["location"])[-1][1]["generation"] == 2
    properties = artifact.read(gallery.generation_path(2), kind="generation", verify=False).properties
    assert (properties["optimise"], properties["graph"]) == ("latency", None), "so few images need no graph"
    assert client.get("/v1/lengths").json()["graph"] is None
    served = client.delete("/v1/admin/generations/2")
    assert (served.status_code, served.json()["type"]) == (409, "/problems/generation-in-use")
    assert client.delete("/v1/admin/generations/1").status_code == 204
    assert client.delete("/v1/admin/generations/1").status_code == 404
    assert [entry["number"] for entry in client.get("/v1/admin/generations").json()] == [2]
    assert sorted(path.name for path in gallery.codes.iterdir()) == ["000002"], "its codes are gone too"
    assert nearest(client, 500) == "new/500.png"
    with serving(settings_of(gallery)) as again:
        assert nearest(again, 500) == "new/500.png"


def test_figures_are_those_of_the_gallery(client: httpx.Client, gallery: Gallery) -> None:
    client.post("/v1/images", files={"image": ("new/500.png", png(pixels_of(500)))})
    client.delete(f"/v1/images/{image_id(1)}")
    found = client.get("/v1/admin/stats").json()
    assert (found["images"], found["searchable"], found["pending"], found["removed"]) == (COUNT, COUNT, 1, 1)
    assert (found["generation"], found["generations"], found["jobs"]) == (1, [1], [])
    codes = sum(path.stat().st_size for path in gallery.codes.rglob("*") if path.is_file())
    assert found["bytes"]["codes"] == codes
    assert found["free_bytes"] > 0
    assert found["resident_bytes"] > 10_000_000


def test_no_search_fails_while_all_of_administration_goes_on(client: httpx.Client, gallery: Gallery) -> None:
    stop, failures, answered = threading.Event(), [], [0]

    def search() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30, verify=False) as own:
            while not stop.wait(SEARCH_EVERY_S):
                answer = own.post("/v1/search?k=3", files={"image": ("q.png", png(pixels_of(7)))})
                if answer.status_code != 200 or answer.json()["results"][0]["id"] != image_id(7):
                    failures.append(answer.text)
                answered[0] += 1

    def finish(response: httpx.Response) -> None:
        assert response.status_code == 202, response.text
        assert events_of(client, response.headers["location"])[-1][1]["state"] == "done"

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        client.post("/v1/images", files={"image": ("new/500.png", png(pixels_of(500)))})
        assert client.post("/v1/admin/backups", json={"name": "load.tar"}).status_code == 201
        finish(client.post("/v1/admin/rebuild"))
        numbers = [entry["number"] for entry in client.get("/v1/admin/generations").json()]
        assert client.post(f"/v1/admin/generations/{numbers[-1]}/activate").status_code == 200
        assert client.delete(f"/v1/admin/generations/{numbers[0]}").status_code == 204
        finish(client.post("/v1/admin/import", json={"folder": "2026"}))
        finish(client.post("/v1/admin/restore", json={"backup": "load.tar"}))
        assert client.get("/v1/admin/backup").status_code == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    assert answered[0] > 20
    assert wait_for(lambda: nearest(client, 500) == "new/500.png")
