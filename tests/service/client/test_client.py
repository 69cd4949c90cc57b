"""The client: every method against a running service, blocking and asynchronous alike, and its patience."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import numpy as np
import pytest

from eigenlens.image_files import Skipped
from eigenlens.service.api.report import Report
from eigenlens.service.api.search import SearchParameters
from eigenlens.service.client import ApiError, AsyncClient, Client, Retries, UnreachableError
from eigenlens.service.client.calls import SearchOptions
from eigenlens.service.client.upload_progress import UploadProgress
from eigenlens.service.client.uploads import Upload, UploadOptions, halves_of, merged, of_folder
from eigenlens.service.gallery.layout import Gallery
from tests.support.generate_client import FOLDER, generate
from tests.support.service import (
    CODE_LENGTH,
    admin_headers,
    code_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 30
NOTHING_FOUND = {"results": [], "plan": {"length": 4, "kind": "flat"}, "generation": 1}


gallery = gallery_fixture(count=COUNT)


@pytest.fixture(scope="module")
def service(gallery: Gallery) -> Iterator[httpx.Client]:
    root = gallery.root.parent / "server" / "b"
    root.mkdir(parents=True)
    (root / "x.png").write_bytes(png(pixels_of(888)))
    with serving(settings_of(gallery, max_image_bytes=20_000, import_root=root.parent)) as running:
        yield running


@pytest.fixture
def client(gallery: Gallery, service: httpx.Client) -> Iterator[Client]:
    key = admin_headers(gallery)["Authorization"].removeprefix("Bearer ")
    with Client(str(service.base_url), key=key) as opened:
        yield opened


def write_folder(folder: Path) -> Path:
    for seed in range(700, 740):
        path = folder / ("red" if seed % 2 else "blue") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels_of(seed)))
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "large.png").write_bytes(png(pixels_of(1)) + bytes(50_000))
    (folder / "huge.png").write_bytes(bytes(70 * 2**20))
    (folder / ".hidden.png").write_bytes(png(pixels_of(2)))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_is_uploaded_with_progress_and_what_is_bad_fails_alone(client: Client, tmp_path: Path) -> None:
    told: list[UploadProgress] = []
    folder = write_folder(tmp_path / "folder")
    added = client.add_folder(folder, prefix="up/", on_progress=told.append)
    ids = {image["id"] for image in added["images"]}
    assert (len(ids), added["added"]) == (40, 40)
    assert {image["id"] for image in added["failed"]} == {"up/bad.jpg", "up/large.png", "up/huge.png"}
    assert all(image["reason"] for image in added["failed"])
    size = sum(file.stat().st_size for file in folder.rglob("[!.]*") if file.suffix not in ("", ".txt"))
    assert told[-1] == UploadProgress(43, 43, size, size)
    images, sent = [progress.images for progress in told], [progress.bytes for progress in told]
    assert images == sorted(images)
    # huge.png, the last but for the small ones, is sent alone, and is told in pieces.
    assert len([at for at in sent if 2**20 < at < 69 * 2**20]) > 100
    assert max(sent) == size
    assert client.get("up/red/701.png")["metadata"] == {"label": "red"}
    assert client.search(folder / "red" / "701.png", k=1)["results"][0]["id"] == "up/red/701.png"
    again = client.add_folder(folder, options=UploadOptions("up/", skip_present=True), on_progress=told.append)
    assert (again["added"], again["unchanged"], len(again["failed"])) == (0, 40, 3)
    assert told[-1] == UploadProgress(43, 43, size, size)
    for id in ids:
        client.remove(id)


def test_searches_of_every_kind(client: Client) -> None:
    by_image = client.search(png(pixels_of(3)), k=2, length=4, filter={"label": "odd"}, include=["metadata", "code"])
    assert by_image["results"][0]["id"] == image_id(3)
    assert by_image["results"][0]["metadata"] == {"label": "odd"}
    assert "timing_ms" not in by_image
    by_code = client.search(by_image["code"], k=1)
    assert by_code["results"][0]["id"] == image_id(3)
    by_id = client.search(image_id(3), k=3, offset=1)
    assert image_id(3) not in {result["id"] for result in by_id["results"]}
    items = client.search_batch([png(pixels_of(1)), image_id(2), b"no image"], k=1)
    assert [item["status"] for item in items] == [200, 200, 415]
    assert items[0]["answer"]["results"][0]["id"] == image_id(1)
    expected = code_of(pixels_of(1))[:3]
    found = client.embed([png(pixels_of(1))], dimensions=3)[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
    assert client.lengths()["code_length"] == CODE_LENGTH


def test_images_and_administration(client: Client, tmp_path: Path) -> None:
    assert client.add({"a/ü b.png": png(pixels_of(800))}, [{"price": 1}])["images"][0]["status"] == "added"
    assert client.change_metadata("a/ü b.png", {"price": 2})["metadata"] == {"price": 2}
    assert client.get("a/ü b.png")["metadata"] == {"price": 2}
    states = list(client.follow(client.rebuild(lengths=[3, 6])["id"]))
    assert states[-1]["state"] == "done"
    assert client.jobs()[0] == client.job(states[-1]["id"]) == states[-1]
    with pytest.raises(ApiError) as ended:
        client.cancel(states[-1]["id"])
    assert (ended.value.status, ended.value.type) == (409, "/problems/job-ended")
    assert [found["number"] for found in client.generations()] == [2, 1]
    assert client.activate(1)["served"]
    client.remove_generation(2)
    assert client.stats()["generations"] == [1]
    path = tmp_path / "a.tar"
    told: list[tuple[int, int]] = []
    size = client.backup(path, files=True, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (size, size) == (path.stat().st_size, path.stat().st_size)
    kept = client.keep_backup("kept.tar")
    assert client.backups() == [kept]
    client.remove("a/ü b.png")
    assert list(client.follow(client.restore("kept.tar")["id"]))[-1]["result"] == {
        "added": 1,
        "removed": 0,
        "unchanged": COUNT,
    }
    client.remove("a/ü b.png")
    imported = list(client.follow(client.import_folder("b")["id"]))[-1]
    assert imported["result"] is not None
    assert imported["result"]["added"] == 1
    client.remove("b/x.png")


def test_the_asynchronous_client_does_the_same(client: Client, service: httpx.Client, gallery: Gallery) -> None:
    key = admin_headers(gallery)["Authorization"].removeprefix("Bearer ")

    async def use(folder: Path) -> None:
        async with AsyncClient(str(service.base_url), key=key) as opened:
            answers = await asyncio.gather(*(opened.search(png(pixels_of(seed)), k=1) for seed in range(10)))
            assert [answer["results"][0]["id"] for answer in answers] == [image_id(seed) for seed in range(10)]
            added = await opened.add_folder(folder, prefix="async/")
            assert (added["added"], len(added["failed"])) == (40, 3)
            for image in added["images"]:
                await opened.remove(image["id"])
            job = await opened.rebuild()
            states = [state async for state in opened.follow(job["id"])]
            assert states[-1]["state"] == "done"
            await opened.backup(folder.parent / "async.tar")
            with pytest.raises(ApiError, match="no image"):
                await opened.get("nowhere")

    asyncio.run(use(write_folder(gallery.root.parent / "folder")))
    assert client.job(client.jobs()[0]["id"])["state"] == "done"


def test_both_clients_have_the_same_methods() -> None:
    def methods(of: type[Any]) -> dict[str, Any]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {name: inspect.signature(f).parameters for name, f in found if not name.startswith("__")}

    assert methods(Client) == methods(AsyncClient)
    for name, function in inspect.getmembers(AsyncClient, inspect.isfunction):
        assert name == "__init__" or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function), name


def test_the_clients_search_options_are_the_parameters_of_the_wire() -> None:
    assert set(get_type_hints(SearchOptions)) == set(SearchParameters.model_fields)


def test_an_answer_is_read_by_attribute_and_by_name(client: Client) -> None:
    answer = client.search(image_id(3), k=2, include=[])
    assert answer["results"][0]["id"] == answer.results[0].id
    assert {**answer.plan} == dict(answer.plan.items()) == answer.plan.model_dump(exclude_unset=True)
    assert answer.timing_ms is None
    assert "timing_ms" not in answer
    assert answer.get("timing_ms", {}) == {}
    with pytest.raises(KeyError, match="timing_ms"):
        answer["timing_ms"]
    assert {*client.stats().keys()} == set(type(client.stats()).model_fields)


def test_the_blocking_client_is_generated_from_the_asynchronous_one() -> None:
    assert (FOLDER / "sync_client.py").read_text() == generate(), "stale: run `make client`"


# What only the service, the training and the commands need.
HEAVY = (
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic_settings", "multipart", "cachetools"),
    *("numpy", "PIL", "onnxruntime", "faiss", "torch", "tqdm"),
    *("eigenlens.index", "eigenlens.model", "eigenlens.service.gallery", "eigenlens.service.http"),
)


def test_the_client_imports_light_packages_alone() -> None:
    program = f"import sys; from eigenlens import AsyncClient, Client; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[float]]]:
    """A server that gives these answers in turn, the last one for ever; its address and when it was asked."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, headers = answers[min(len(asked), len(answers) - 1)]
            asked.append(time.monotonic())
            self.send_response(status)
            body = json.dumps({"detail": "busy", **NOTHING_FOUND}).encode()
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(url: str, **retries: Any) -> Any:
    with Client(url, retries=Retries(**retries)) as client:
        return client.search("id")


def test_it_tries_again_as_late_as_the_service_asks() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with answering((429, {"retry-after": "0.5"}), (503, {"retry-after": soon}), (200, {})) as (url, asked):
        assert ask(url, first_pause_s=0.01)["results"] == []
    assert len(asked) == 3
    assert 0.5 <= asked[1] - asked[0] < 1.5
    assert asked[2] - asked[1] > 0.2


def test_it_backs_off_and_gives_up() -> None:
    with answering((429, {})) as (url, asked), pytest.raises(ApiError, match="busy") as refused:
        ask(url, max_retries=4, first_pause_s=0.05)
    pauses = np.diff(asked)
    assert len(pauses) == 4
    assert all(pause >= 0.5 * 0.05 * 2**place for place, pause in enumerate(pauses))
    assert (refused.value.status, refused.value.exit_status) == (429, 5)


@pytest.mark.parametrize(
    ("answer", "tries"), [((429, {"retry-after": "3600"}), 1), ((500, {}), 1), ((422, {}), 1), ((503, {}), 3)]
)
def test_it_does_not_try_what_is_of_no_use(answer: tuple[int, dict[str, str]], tries: int) -> None:
    with answering(answer) as (url, asked), pytest.raises(ApiError):
        ask(url, max_retries=2, first_pause_s=0.01)
    assert len(asked) == tries


@pytest.mark.parametrize(("status", "halved"), [(408, True), (413, True), (429, False), (500, False)])
def test_a_request_that_is_too_slow_or_too_large_is_sent_in_halves(status: int, halved: bool) -> None:
    uploads = [Upload(Path(name), name, {}) for name in "abc"]
    halves = halves_of(uploads, ApiError(status, {}))
    assert halves == ([uploads[:2], uploads[2:]] if halved else None)


def test_two_skipped_files_whose_names_are_no_utf8_are_told_apart_as_in_every_report() -> None:
    skipped = [Skipped(os.fsdecode(name), "video") for name in (b"\xfc.mov", b"\xf6.mov")]
    report = Report()
    report.skip(skipped)
    assert [entry.path for entry in report.skipped_files] == ["\\xfc.mov", "\\xf6.mov"]
    assert of_folder(merged([]), skipped).skipped == report.skipped_files


def test_what_is_not_there_is_tried_again_and_then_told() -> None:
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="eigenlens serve"):
        ask("http://127.0.0.1:9", max_unreachable_retries=3, first_pause_s=0.1)
    assert time.monotonic() - began > 0.35
    for url in ("nonsense", "http://[", "http://127.0.0.1:99999"):
        with pytest.raises(UnreachableError):
            ask(url, max_retries=0)
