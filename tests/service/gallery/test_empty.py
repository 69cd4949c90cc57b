"""An empty gallery: built without images, served, and filled through the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens.command import main
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import admin_headers, pixels_of, png, serving, settings_of, wait_for, write_encoder


@pytest.fixture
def empty(tmp_path: Path) -> Gallery:
    encoder, root = write_encoder(tmp_path / "encoder"), tmp_path / "gallery"
    assert main(["build", "--encoder", str(encoder), "--gallery", str(root), "--lengths", "2,4"]) == 0
    return Gallery(root)


def ids(client: httpx.Client, seed: int, **parameters: Any) -> list[str]:
    found = client.post("/v1/search", params={"k": 3, **parameters}, files={"image": png(pixels_of(seed))})
    assert found.status_code == 200, found.text
    return [result["id"] for result in found.json()["results"]]


def add(client: httpx.Client, seed: int) -> httpx.Response:
    headers = {"content-type": "image/png"}
    return client.put(f"/v1/images/{seed}.png", content=png(pixels_of(seed)), headers=headers)


def rebuild(client: httpx.Client) -> dict[str, Any]:
    job = client.post("/v1/admin/rebuild").headers["location"]
    ended = wait_for(lambda: (told := client.get(job).json())["state"] in ("done", "failed") and told)
    return dict(ended)


def test_it_is_served_filled_searched_rebuilt_and_emptied_again(empty: Gallery) -> None:
    with serving(settings_of(empty)) as client:
        client.headers.update(admin_headers(empty))
        for path in ("/readyz", "/v1/images", "/v1/map", "/v1/admin/stats", "/metrics", "/"):
            assert client.get(path).status_code == 200, path
        assert client.get("/v1/lengths").json()["count"] == 0
        assert client.get("/v1/eigenfunctions").json()["type"] == "/problems/eigenfunction-not-found"
        assert ids(client, 1) == []
        for seed in range(8):
            stored = add(client, seed)
            assert stored.status_code == 201, stored.text
        filter = {"filter": '{"colour": "none"}'}
        for parameters in ({}, {"length": 2}, {"length": 4, "rerank": "full"}, {"max_latency_ms": 5}):
            assert ids(client, 5, **parameters)[0] == "5.png"
            assert ids(client, 5, **parameters, **filter) == []
        assert client.delete("/v1/images/5.png").status_code == 204
        before = ids(client, 5)
        assert "5.png" not in before
        assert rebuild(client)["state"] == "done"
        assert client.get("/v1/lengths").json() | {"count": 7, "pending": 0} == client.get("/v1/lengths").json()
        assert ids(client, 5) == before
        for seed in {*range(8)} - {5}:
            client.delete(f"/v1/images/{seed}.png")
        assert main(["build", "--gallery", str(empty.root)]) == 0
        wait_for(lambda: client.get("/v1/lengths").json()["removed"] == 0)
        assert ids(client, 5) == []


def test_a_rebuild_pays_once_additions_take_time(empty: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.index.live.delta._FIRST_TIMED", 5)
    with serving(settings_of(empty)) as client:
        client.headers.update(admin_headers(empty))
        assert client.get("/v1/admin/stats").json()["rebuild_advice"] is None
        for seed in range(8):
            add(client, seed)
        ids(client, 0)
        assert "compared one by one" in client.get("/v1/admin/stats").json()["rebuild_advice"]["reason"]
