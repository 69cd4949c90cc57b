"""The HTTP API answers over numpy and over PostgreSQL as it does over FAISS: the seam is all that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from eigenlens.command import main
from eigenlens.index.engine import Engine
from eigenlens.service.gallery.layout import Gallery
from tests.support.numpy_engine import NumpyEngine
from tests.support.postgres import Server
from tests.support.service import (
    CODE_LENGTH,
    LENGTHS,
    admin_headers,
    build_gallery,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 40
Services = list[tuple[httpx.Client, dict[str, str]]]


def open_numpy(gallery: Gallery, **_: Any) -> tuple[int, Engine]:
    number, generation = gallery.open_current()
    records = gallery.store.records(generation.keys.tolist())
    metadata = [records[key].metadata for key in generation.keys.tolist()]
    codes = generation.codes.codes[:]
    return number, NumpyEngine(
        generation.keys.tolist(), codes, metadata, lengths=LENGTHS, encoder_id=generation.encoder_id
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[Services]:
    """The same gallery served by FAISS, by PostgreSQL and by numpy, each with its key."""
    faiss, pgvector, numpy = [
        build_gallery(tmp_path_factory.mktemp(name), count=COUNT) for name in ("faiss", "pgvector", "numpy")
    ]
    address = postgres.new_schema()
    pgvector.store.close()
    with pytest.MonkeyPatch.context() as patch:  # so few images are compared one by one, whatever the filter
        patch.setattr("eigenlens.index.pgvector_engine.build.drawn_shares", lambda count, scored_directly: (0.1, 0.5))
        for arguments in (["migrate"], ["build", "--backend", "pgvector", "--lengths", "2,4"]):
            assert main([*arguments, "--gallery", str(pgvector.root), "--store", address]) == 0
    with (
        serving(settings_of(faiss)) as faiss_client,
        serving(settings_of(pgvector, store=address)) as pgvector_client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(Gallery, "open_engine", open_numpy)
        with serving(settings_of(numpy)) as numpy_client:
            clients = faiss_client, pgvector_client, numpy_client
            yield [(client, admin_headers(of)) for client, of in zip(clients, (faiss, pgvector, numpy), strict=True)]


SEARCHES: list[dict[str, Any]] = [
    {},
    {"length": 2, "k": 5},
    {"length": 4, "k": 100},
    {"length": CODE_LENGTH, "k": 7, "offset": 5},
    {"length": 2, "rerank": "full", "shortlist": COUNT + 10, "k": 6, "offset": 3},
    {"filter": '{"label": "odd"}', "k": 50},
    {"filter": '{"label": {"$in": ["added", "even"]}}', "length": 4},
    {"filter": '{"label": "none"}'},
    {"min_score": 0.3, "k": 50},
    {"group_duplicates": 0.9, "k": 10},
    {"target_recall": 1, "k": 3},
]


def same_answers(services: Services) -> None:
    for parameters in SEARCHES:
        for what in ({"files": {"image": ("q.png", png(pixels_of(999)))}}, {"json": {"id": image_id(4)}}):
            answers = [client.post("/v1/search", params=parameters, **what) for client, _ in services]
            assert [answer.status_code for answer in answers] == [200, 200, 200], [answer.text for answer in answers]
            expected, *others = (answer.json()["results"] for answer in answers)
            for results in others:
                assert [r["id"] for r in results] == [r["id"] for r in expected], parameters
                assert [r["score"] for r in results] == pytest.approx([r["score"] for r in expected], abs=2e-3)
    code = {"code": [float(n) for n in range(CODE_LENGTH)], "k": 9}
    expected, *others = (client.post("/v1/search", json=code).json()["results"] for client, _ in services)
    for results in others:
        assert [r["id"] for r in results] == [r["id"] for r in expected]


def test_searches_filters_and_pages(services: Services) -> None:
    same_answers(services)


def test_adds_replacements_metadata_and_removals(services: Services) -> None:
    for client, headers in services:
        files = [("image", (f"new/{n}.png", png(pixels_of(2000 + n)))) for n in range(12)]
        data = {"metadata": '{"label": "added"}'}
        assert client.post("/v1/images", files=files, data=data, headers=headers).json()["added"] == 12
        assert client.delete(f"/v1/images/{image_id(6)}", headers=headers).status_code == 204
        body, kind = png(pixels_of(3000)), {"content-type": "image/png"}
        assert client.put(f"/v1/images/{image_id(8)}", content=body, headers=headers | kind).status_code == 200
        changed = client.patch(f"/v1/images/{image_id(10)}", json={"metadata": {"label": "odd"}}, headers=headers)
        assert changed.status_code == 200, changed.text
    same_answers(services)
    told = [client.get("/v1/lengths").json() for client, _ in services]
    for member in ("count", "pending", "removed", "code_length", "encoder", "filters"):
        assert told[0][member] == told[1][member] == told[2][member], member
    for answer in told:
        assert [entry["length"] for entry in answer["lengths"]] == list(LENGTHS)


def test_figures_under_filters_are_told_of_an_engine_that_follows_them(services: Services) -> None:
    faiss, pgvector, numpy = (client.get("/v1/lengths").json() for client, _ in services)
    assert faiss["under_filters"] == numpy["under_filters"] == []
    assert [entry["share"] for entry in pgvector["under_filters"]] == [0.1, 0.5]
    for entry in pgvector["under_filters"]:
        times = [plan["latency_ms"]["p50"] for plan in entry["plans"]]
        assert times == sorted(times)
        assert any(plan["exact"] for plan in entry["plans"])


def test_batches_samples_figures_and_refusals(services: Services) -> None:
    body = {"searches": [{"id": image_id(2)}, {"id": "nobody"}, {"code": [1.0] * CODE_LENGTH, "length": 4}]}
    for client, headers in services:
        answers = client.post("/v1/search/batch", json=body).json()["answers"]
        assert [answer["status"] for answer in answers] == [200, 404, 200]
        assert len(client.get("/v1/images", params={"sample": 1, "limit": 5}).json()["images"]) == 5
        assert client.get("/v1/admin/stats", headers=headers).status_code == 200
        assert client.get("/readyz").status_code == 200
        refused = client.post("/v1/search", params={"length": 5}, json={"id": image_id(2)})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/prefix-length-not-built")
        conflict = client.post("/v1/search", params={"rerank": "full"}, json={"id": image_id(2)})
        assert (conflict.status_code, conflict.json()["type"]) == (422, "/problems/plan-conflict")
