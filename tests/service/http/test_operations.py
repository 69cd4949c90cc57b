"""Metrics that count what happened, and several workers over one gallery."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.service.commands import serve
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.keys import add_key
from tests.support.service import (
    admin_headers,
    build_gallery,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
)


def values(client: httpx.Client) -> dict[str, float]:
    """Samples by name, with labels as they are written."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_metrics_count_requests_by_template_searches_by_stage_and_the_gallery(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=6)
    with serving(settings_of(gallery)) as client:
        for seed in range(3):
            client.post("/v1/search?length=4", files={"image": png(pixels_of(seed))}).raise_for_status()
        client.get(f"/v1/images/{image_id(1)}").raise_for_status()
        client.get("/v1/images/none")
        client.delete(f"/v1/images/{image_id(1)}")
        client.delete(f"/v1/images/{image_id(2)}", headers=admin_headers(gallery)).raise_for_status()
        client.request("PROPFIND", "/v1/lengths")
        found = values(client)
    count = "http_server_request_duration_seconds_count"
    assert found[f"{count}{{method=POST,route=/v1/search,status=200}}"] == 3
    assert found[f"{count}{{method=GET,route=/v1/images/{{id:image}},status=200}}"] == 1
    assert found[f"{count}{{method=GET,route=/v1/images/{{id:image}},status=404}}"] == 1
    assert found["eigenlens_requests_refused_total{status=401}"] == 1
    assert found["eigenlens_search_duration_seconds_count{length=4}"] == 3
    for stage in ("queue", "decode", "encode", "search"):
        assert found[f"eigenlens_stage_duration_seconds_count{{stage={stage}}}"] >= 1
    assert found["eigenlens_batch_size_sum"] == 3
    assert found["eigenlens_generation"] == 1
    assert found["eigenlens_gallery_images"] == 5
    assert found["eigenlens_removed_images"] == 1
    assert found["eigenlens_queue_depth"] == 0
    assert not any("none" in name or "PROPFIND" in name for name in found), "labels are bounded"


def test_what_a_process_has_loaded_is_left_alone_by_the_garbage_collector(tmp_path: Path) -> None:
    """Looking through all of it takes 45 ms, and every search waits for that. So does what is imported later."""
    gallery = build_gallery(tmp_path, count=4)
    program = """
import gc, time
from fastapi.testclient import TestClient
from eigenlens.service.http.app import from_environment
with TestClient(from_environment()) as client:
    client.get("/livez")
    print(gc.get_freeze_count(), len(gc.get_objects()))
    import xml.dom.minidom as later
    time.sleep(2)
    print(gc.is_tracked(vars(later)), any(one is vars(later) for one in gc.get_objects()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"EIGENLENS_GALLERY": str(gallery.root)},
        capture_output=True,
        check=True,
    )
    frozen, watched, is_tracked, is_watched = done.stdout.decode().split()
    assert int(frozen) > 4 * int(watched)
    assert (is_tracked, is_watched) == ("True", "False")


def test_a_client_is_who_connects_whatever_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = build_gallery(tmp_path, count=4)
    monkeypatch.setenv("EIGENLENS_RATE_LIMIT", "0.01")
    monkeypatch.setenv("EIGENLENS_RATE_BURST", "2")
    process, address = start_service(gallery.root, tmp_path / "log")
    try:
        statuses = [
            httpx.get(f"{address}/v1/lengths", headers={"X-Forwarded-For": f"10.0.0.{number}"}).status_code
            for number in range(3)
        ]
    finally:
        process.terminate()
        process.wait()
    assert statuses == [200, 200, 429]


def test_a_hangup_ends_nothing_and_new_keys_are_known(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=4)
    process, address = start_service(gallery.root, tmp_path / "log")
    try:
        key = add_key(gallery.root / "keys.json", name="new", scopes=["admin"])[1]
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert httpx.get(f"{address}/v1/admin/stats", headers={"api-key": key}).status_code == 200
    finally:
        process.terminate()
        process.wait()


def test_two_workers_one_gallery(tmp_path: Path) -> None:
    """What one writes the other finds within a second; one that is killed loses nothing and is replaced."""
    gallery = build_gallery(tmp_path, count=4)
    command = [sys.executable, "-m", "eigenlens", "serve", "--gallery", str(gallery.root), "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, "--workers", "2", "--compute-threads", "1"], stderr=errors)
    try:
        address = wait_for(lambda: re.search(r"at (http://\S+)", log.read_text()), timeout_s=30)[1]
        wait_for(lambda: log.read_text().count("Application startup complete") == 2, timeout_s=60)
        survive(gallery, address, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_workers_may_take_their_time_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a worker has imported nothing after 5 seconds, uvicorn's default, and was ended for that."""
    configs = []

    def supervisor(config: uvicorn.Config, sockets: list[socket.socket]) -> SimpleNamespace:
        configs.append(config)
        return SimpleNamespace(run=lambda: None)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(serve, "_Supervisor", supervisor)
    with socket.socket() as listener:
        serve._serve_with_workers(settings_of(build_gallery(tmp_path, count=4), workers=2), listener)
    assert [config.timeout_worker_healthcheck for config in configs] == [60]


def survive(gallery: Gallery, address: str, log: Path) -> None:
    workers = [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", log.read_text())]
    assert len(workers) == 2
    headers = admin_headers(gallery)

    def best_everywhere(client: httpx.Client, seed: int) -> set[str]:
        """The best of twenty searches, each over a connection of its own, so that either worker answers some."""
        answers = [client.post("/v1/search?k=1&length=12", files={"image": png(pixels_of(seed))}) for _ in range(20)]
        return {answer.json()["results"][0]["id"] for answer in answers}

    def add(client: httpx.Client, seed: int) -> None:
        upload = {"image": (f"new{seed}.png", png(pixels_of(seed)), "image/png")}
        client.post("/v1/images", files=upload, headers=headers).raise_for_status()

    with httpx.Client(
        base_url=address, limits=httpx.Limits(max_keepalive_connections=0), timeout=30, verify=False
    ) as client:
        add(client, 100)
        time.sleep(1)
        assert best_everywhere(client, 100) == {"new100.png"}
        add(client, 101)
        os.kill(workers[0], signal.SIGSTOP)  # an instant after the answer, whichever gave it
        time.sleep(1)  # the supervisor waits for a sign of life
        os.kill(workers[0], signal.SIGKILL)
        wait_for(lambda: log.read_text().count("Application startup complete") == 3, timeout_s=60)
        time.sleep(1)
        assert best_everywhere(client, 101) == {"new101.png"}
        assert best_everywhere(client, 100) == {"new100.png"}
        add(client, 102)
        time.sleep(1)
        assert best_everywhere(client, 102) == {"new102.png"}
        name = "http_server_request_duration_seconds_count{method=POST,route=/v1/search,status=200}"
        assert values(client)[name] >= 60, "any worker answers for all"
