"""Several service processes over one PostgreSQL and one directory; migration there and back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.command import main
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.open import open_store
from tests.support.postgres import Server
from tests.support.service import (
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
# What is promised between nodes is a second; a machine that does much else at the same time is given longer.
SECONDS = 1.0 if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else 15.0


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


@pytest.fixture
def nodes(tmp_path: Path, address: str) -> Iterator[list[httpx.Client]]:
    """Two processes and one in this process, over one gallery."""
    gallery = build_gallery(tmp_path, count=COUNT)
    gallery.store.close()
    migrate(gallery, address)
    processes, clients = [], []
    try:
        with serving(settings_of(gallery, store=address)) as here:
            clients.append(here)
            for number in range(2):
                environment = {**os.environ, "EIGENLENS_STORE": address, "EIGENLENS_RUNTIME": "onnxruntime"}
                process, url = start_service(gallery.root, tmp_path / f"{number}.log", environment=environment)
                processes.append(process)
                clients.append(httpx.Client(base_url=url, timeout=30))
            for client in clients:
                client.headers.update(admin_headers(gallery))
                client.headers["x-process"] = ""
            clients[1].headers["x-process"] = str(processes[0].pid)
            yield clients
    finally:
        for client in clients[1:]:
            client.close()
        for process in processes:
            process.kill()
            process.wait()


def test_what_one_node_changes_the_others_answer_and_a_dead_one_is_not_missed(nodes: list[httpx.Client]) -> None:
    here, first, second = nodes
    id = put(first, 100)
    begun = time.monotonic()
    wait_for(lambda: found(second, 100) == [id] == found(here, 100))
    assert time.monotonic() - begun < SECONDS
    second.delete(f"/v1/images/{id}").raise_for_status()
    assert id not in found(first, 100, k=COUNT), "the store tells what is removed, not the index"
    assert id not in found(here, 100, k=COUNT)
    put(first, 101)
    job = first.post("/v1/admin/rebuild").json()["id"]
    refused = second.post("/v1/admin/rebuild")
    wait_for(lambda: second.get(f"/v1/admin/jobs/{job}").json()["finished"], timeout_s=100)
    assert refused.status_code == 409 or refused.json()["id"] != job
    wait_for(lambda: {generation(client) for client in nodes} >= {2} and generation(here) == generation(second))
    os.kill(int(first.headers["x-process"]), signal.SIGKILL)
    second.post("/v1/admin/generations/1/activate").raise_for_status()
    begun = time.monotonic()
    wait_for(lambda: generation(here) == 1)
    assert time.monotonic() - begun < SECONDS
    assert found(here, 101) == ["new/101.png"]
    # The killed node's locks ended with it.
    wait_for(lambda: second.post("/v1/admin/rebuild").status_code == 202)


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
        job = client.post("/v1/admin/duplicates", json={}).json()["id"]
        wait_for(lambda: client.get(f"/v1/admin/jobs/{job}").json()["finished"], timeout_s=100)
        expected = answers(client)
        gallery.store.close()
        assert main(["migrate", "--gallery", str(gallery.root), "--store", address]) == 1
        assert "served or built" in capsys.readouterr().err
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
        restored = client.post("/v1/admin/restore", json={"backup": backup["name"]}).raise_for_status().json()["id"]
        wait_for(lambda: client.get(f"/v1/admin/jobs/{restored}").json()["finished"], timeout_s=100)
        assert client.get(f"/v1/admin/jobs/{restored}").json()["state"] == "done"
        assert answers(client)["images"] == expected["images"]
    encoder = Encoder(tmp_path / "encoder")
    assert publish(moved, encoder) == 2
    moved.store.close()
    migrate(gallery, address, "--back")
    back = Gallery(gallery.root)
    assert back.current() == 2
    with serving(settings_of(back)) as client:
        client.headers.update(admin_headers(back))
        assert answers(client)["images"] == expected["images"]
        assert [job["kind"] for job in client.get("/v1/admin/jobs").json()] == ["restore", "duplicates"]
    back.store.close()


def other_gallery(address: str, root: Path) -> str:
    root.mkdir()
    open_store(root, address, create=True).close()
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
