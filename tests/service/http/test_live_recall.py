"""Live recall and recalibration over a real socket: searches with other images than the gallery's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from eigenlens import Client
from eigenlens.command import main
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from tests.support.service import (
    LENGTHS,
    admin_headers,
    build_gallery,
    code_of,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
    write_encoder,
)

COUNT, SEARCHES = 400, 120
# Its recall is measured at build: four coordinates tell all about the gallery's images.
PLAN: dict[str, Any] = {"length": 4, "k": 10}


def alike(seed: int) -> NDArray[np.uint8]:
    """Pixels (2, 2, 3) of which the first four numbers tell the others."""
    first = np.random.default_rng(seed).integers(20, 236, 4)
    return np.tile(first, 3).reshape(2, 2, 3).astype(np.uint8)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    (tmp_path / "images").mkdir()
    for seed in range(COUNT):
        (tmp_path / "images" / f"{seed:03d}.png").write_bytes(png(alike(seed)))
    gallery = Gallery(tmp_path / "gallery", create=True)
    with gallery.writing():
        gallery.adopt_encoder(write_encoder(tmp_path / "encoder"))
        encoder = Encoder(tmp_path / "encoder")
        add_images(gallery, encoder, FolderSource(tmp_path / "images"), Progress())
        publish_generation(gallery, encoder, Progress(), GenerationOptions(lengths=LENGTHS))
    return gallery


@pytest.fixture
def client(gallery: Gallery) -> Iterator[httpx.Client]:
    with serving(settings_of(gallery, recall_share=1.0, recent_queries=150)) as running:
        running.headers.update(admin_headers(gallery))
        yield running


def search(client: httpx.Client, pixels: list[NDArray[np.uint8]]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for start in range(0, len(pixels), 60):
        searches = [{"code": code_of(p).tolist()} for p in pixels[start : start + 60]]
        answer = client.post("/v1/search/batch", json={**PLAN, "searches": searches})
        assert answer.status_code == 200, answer.text
        answers += [item["answer"] for item in answer.json()["answers"]]
    return answers


def stats_of(client: httpx.Client) -> dict[str, Any]:
    stats: dict[str, Any] = client.get("/v1/admin/stats").json()
    return stats


def reached(client: httpx.Client, searches: int) -> dict[str, Any]:
    """What is told of the plan, once so many searches were repeated."""

    def told() -> dict[str, Any] | None:
        plans: list[dict[str, Any]] = stats_of(client)["live_recall"]["plans"]
        return plans[0] if plans and plans[0]["searches"] >= searches else None

    plan: dict[str, Any] = wait_for(told)
    return plan


def calibrated_recall(client: httpx.Client) -> float:
    """Recall that the plan is said to have."""
    entries = client.get("/v1/lengths").json()["lengths"]
    return float(next(entry for entry in entries if entry["length"] == PLAN["length"])["alone"]["recall"]["10"])


def test_recall_below_its_promise_is_told_and_recalibration_mends_the_promise(
    client: httpx.Client, gallery: Gallery
) -> None:
    client.post("/v1/images", files={"image": ("new.png", png(pixels_of(7777)))}).raise_for_status()
    # 1. Searches with other images find less than was promised; the admin and Prometheus say so.
    promised = search(client, [alike(5000)])[0]["plan"]["expected_recall"]
    assert promised == calibrated_recall(client) > 0.9
    search(client, [pixels_of(seed) for seed in range(1000, 1000 + SEARCHES)])
    told = reached(client, 20)
    assert told["recall"] < told["recall_high"] < promised - 0.1
    assert told["below_promise"]
    assert (told["k"], told["filtered"], told["target_recall"]) == (10, False, None)
    assert told["plan"]["expected_recall"] == promised
    metrics = {
        family.name: sample
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if family.name.startswith(("eigenlens_live_recall", "eigenlens_promised"))
    }
    assert metrics["eigenlens_live_recall_high"].value < metrics["eigenlens_promised_recall"].value - 0.1
    assert metrics["eigenlens_live_recall"].labels == {"plan": "4 flat", "k": "10", "target": "", "filtered": "no"}
    # 2. Recalibration publishes a generation with the same indexes; its promise is what searches of this kind find.
    client.delete("/v1/images/000.png").raise_for_status()
    with Client(str(client.base_url), key=client.headers["Authorization"].removeprefix("Bearer ")) as python:
        assert python.stats().recent_queries == SEARCHES + 1
        job = list(python.follow(python.recalibrate().id))[-1]
        assert (job.state, job.generation, job.error) == ("done", 2, None)
        assert job.options == {"queries": SEARCHES + 1}, "no code is recorded"
        assert [entry.calibrated_on for entry in python.generations()] == ["searches", "gallery"]
        for path in gallery.generation_path(1).iterdir():
            assert path.name == "manifest.json" or path.samefile(gallery.generation_path(2) / path.name)
        answers = search(client, [pixels_of(seed) for seed in range(3000, 3000 + SEARCHES)])
        assert {answer["generation"] for answer in answers} == {2}
        assert answers[0]["best_percentile"] is not None
        fresh = reached(client, 40)
        assert fresh["recall_low"] - 0.03 <= calibrated_recall(client) <= fresh["recall_high"] + 0.03
        # 3. What was added and removed stays so, and there is a way back.
        everything = client.post("/v1/search?k=400", files={"image": png(pixels_of(7777))}).json()["results"]
        ids = [result["id"] for result in everything]
        assert ids[0] == "new.png"
        assert "000.png" not in ids
        assert len(ids) == COUNT
        python.activate(1)
        assert calibrated_recall(client) == promised
        python.forget_queries()
        assert python.stats().recent_queries == 0


def test_too_few_searches_are_no_ground_for_recalibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = build_gallery(tmp_path)
    with serving(settings_of(gallery)) as client:
        client.headers.update(admin_headers(gallery))
        search(client, [pixels_of(seed) for seed in range(3)])
        answer = client.post("/v1/admin/recalibrate")
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/too-few-queries")
        assert "3 recent searches" in answer.json()["detail"]
        command = ["--url", str(client.base_url), "--key-file", str(gallery.root / "admin.key")]
        assert main(["recalibrate", *command]) == 1
        assert "takes 100 or more" in capsys.readouterr().err
        assert main(["recalibrate", "--forget", *command]) == 0
        assert stats_of(client)["recent_queries"] == 0


def test_another_worker_forgets_too(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path)
    with serving(settings_of(gallery)) as one, serving(settings_of(gallery)) as other:
        headers = admin_headers(gallery)
        for client in (one, other):
            client.headers.update(headers)
            search(client, [pixels_of(1)])
        one.delete("/v1/admin/recent-queries").raise_for_status()
        wait_for(lambda: stats_of(other)["recent_queries"] == 0)
