"""A gallery whose codes are in Qdrant: built, rebuilt, taken back, and refused where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from eigenlens.command import main
from eigenlens.index.qdrant_engine.names import CollectionNames
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import admin_headers, build_gallery, code_of, pixels_of, serving, settings_of, wait_for

if TYPE_CHECKING:
    from tests.support.qdrant_double import QdrantDouble

pytest.importorskip("qdrant_edge")

COUNT = 12


def nearest(client: httpx.Client, seed: int, **more: object) -> list[str]:
    answer = client.post("/v1/search", json={"code": code_of(pixels_of(seed)).tolist(), "k": COUNT, **more})
    return [result["id"] for result in answer.raise_for_status().json()["results"]]


def test_a_gallery_goes_to_qdrant_with_its_codes_and_back(
    tmp_path: Path, qdrant: QdrantDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=COUNT)
    names = CollectionNames(gallery.root)
    with serving(settings_of(gallery)) as client:
        expected = nearest(client, 3)
        filtered = nearest(client, 3, filter={"label": "odd"})
    gallery.store.close()
    build, at = ["build", "--gallery", str(gallery.root)], ["--backend-url", qdrant.url]
    assert main([*build, "--backend", "qdrant"]) == 1
    assert "give its address as EIGENLENS_BACKEND_URL" in capsys.readouterr().err
    assert main([*build, *at, "--backend", "qdrant", "--kinds", "4=pg-hnsw"]) == 1
    assert "qdrant has no index of kind 'pg-hnsw'" in capsys.readouterr().err
    assert main([*build, *at, "--backend", "qdrant"]) == 0
    assert "12 images; in Qdrant: vectors 0.0 MB" in capsys.readouterr().err
    server = QdrantServer(qdrant.url)
    assert names.among(server.names()) == [names.of(2)]
    moved = Gallery(gallery.root)
    with serving(settings_of(moved, backend_url=qdrant.url, deadline_s=30)) as client:
        client.headers.update(admin_headers(moved))
        assert nearest(client, 3) == expected
        assert nearest(client, 3, filter={"label": "odd"}) == filtered
        refused = client.post(
            "/v1/search", json={"code": code_of(pixels_of(3)).tolist(), "filter": {"label": {"$gt": "a"}}}
        )
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/filter")
        client.delete(f"/v1/images/{expected[0]}").raise_for_status()
        assert nearest(client, 3) == expected[1:]
        refused = client.post("/v1/admin/rebuild", json={"kinds": {"4": "ivf"}})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/index-kind")
        job = client.post("/v1/admin/rebuild").raise_for_status().json()["id"]
        wait_for(lambda: client.get(f"/v1/admin/jobs/{job}").json()["state"] == "done", timeout_s=100)
        wait_for(lambda: client.get("/readyz").json()["generation"] == 3)
        assert nearest(client, 3) == expected[1:]
        assert client.get("/v1/lengths").json()["lengths"][-1]["kind"] == "qd-scan"
        qdrant.lose_shard(names.of(3), 0)
        missing = client.post("/v1/search", json={"code": code_of(pixels_of(3)).tolist()})
        assert (missing.status_code, missing.json()["type"]) == (503, "/problems/engine-unavailable")
        qdrant.restore_shards(names.of(3))
    capsys.readouterr()
    assert main(["doctor", "--gallery", str(gallery.root), *at]) == 0
    assert "backend qdrant" in capsys.readouterr().out
    assert main(["doctor", "--gallery", str(gallery.root)]) == 1
    assert "generation 3 is damaged, 1 is served" in capsys.readouterr().out
    moved.qdrant = server
    moved.remove_generation(2)
    assert names.among(server.names()) == [names.of(3)]
    moved.store.close()
    assert main([*build, *at, "--backend", "faiss"]) == 0
    with serving(settings_of(Gallery(gallery.root))) as client:
        assert nearest(client, 3) == expected[1:]
    server.close()
