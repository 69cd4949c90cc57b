"""Administration: the key, rebuild jobs, and searches that go on meanwhile."""

from __future__ import annotations

import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens.service.errors import KeyFileError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.keys import load_or_create_key
from tests.support.service import (
    JOB_EVERY_S,
    SEARCH_EVERY_S,
    admin_headers,
    client_fixture,
    database_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
)

gallery = gallery_fixture(count=40, scope="function")
client = client_fixture(scope="function")


def finished(client: httpx.Client, job: str, headers: dict[str, str]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(f"/v1/admin/jobs/{job}", headers=headers).json()
        return body if body["finished"] else None

    found: dict[str, Any] = wait_for(look, every_s=JOB_EVERY_S)
    return found


def generation(client: httpx.Client) -> int:
    return int(client.get("/v1/lengths").json()["generation"])


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/admin/rebuild"), ("GET", "/v1/admin/jobs"), ("GET", "/v1/admin/jobs/x")]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic a2V5"},
        {"api-key": ""},
        {"api-key": "é".encode()},
    ],
)
def test_without_the_key_administration_is_refused(
    client: httpx.Client, gallery: Gallery, method: str, path: str, headers: dict[str, Any]
) -> None:
    response = client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"
    assert not Jobs(gallery).list()


def test_every_admin_route_needs_the_key(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if path.startswith("/v1/admin"):
            for method in methods:
                assert client.request(method.upper(), path.replace("{id}", "x")).status_code == 401, (method, path)


def test_a_rebuild_publishes_a_higher_generation_and_no_search_fails_meanwhile(
    client: httpx.Client, gallery: Gallery
) -> None:
    stop, failures, generations = threading.Event(), [], []

    def search_in_a_loop() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30, verify=False) as own:
            while not stop.wait(SEARCH_EVERY_S):
                answer = own.post("/v1/search?k=1", files={"image": ("x.png", png(pixels_of(7)))})
                if answer.status_code != 200 or answer.json()["results"][0]["id"] != image_id(7):
                    failures.append(answer.text)
                else:
                    generations.append(answer.json()["generation"])

    threads = [threading.Thread(target=search_in_a_loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        headers = admin_headers(gallery)
        response = client.post("/v1/admin/rebuild", headers=headers)
        assert response.status_code == 202
        assert response.headers["location"] == f"/v1/admin/jobs/{response.json()['id']}"
        job = finished(client, response.json()["id"], headers)
        assert (job["state"], job["generation"], job["error"]) == ("done", 2, None)
        assert generation(client) == 2, "when a job is done, its generation is served"
        wait_for(lambda: generations and generations[-1] == 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert set(generations) == {1, 2}


def test_a_rebuild_can_change_the_lengths(client: httpx.Client, gallery: Gallery) -> None:
    headers = {"api-key": admin_headers(gallery)["Authorization"].removeprefix("Bearer ")}
    response = client.post("/v1/admin/rebuild", json={"lengths": [3, 6]}, headers=headers)
    assert finished(client, response.json()["id"], headers)["state"] == "done"
    assert [entry["length"] for entry in client.get("/v1/lengths").json()["lengths"]] == [3, 6, 12]


@pytest.mark.parametrize("body", [{"lengths": []}, {"lengths": [0]}, {"lengths": [13]}, {"length": [4]}, []])
def test_wrong_rebuild_options_are_refused(client: httpx.Client, gallery: Gallery, body: Any) -> None:
    response = client.post("/v1/admin/rebuild", json=body, headers=admin_headers(gallery))
    assert response.status_code == 422
    assert not Jobs(gallery).list()


def test_a_second_rebuild_waits_for_the_first(client: httpx.Client, gallery: Gallery) -> None:
    jobs = Jobs(gallery)
    lock = jobs.take()
    running = jobs.create("rebuild", {})
    response = client.post("/v1/admin/rebuild", headers=admin_headers(gallery))
    lock.close()
    assert response.status_code == 409
    assert running.id in response.json()["detail"]


def test_a_rebuild_while_a_command_builds_fails_and_says_why(client: httpx.Client, gallery: Gallery) -> None:
    headers = admin_headers(gallery)
    with gallery.writing():
        response = client.post("/v1/admin/rebuild", headers=headers)
        job = finished(client, response.json()["id"], headers)
    assert job["state"] == "failed"
    assert "being built already" in job["error"]
    assert generation(client) == 1


def test_a_generation_that_another_process_activates_is_served(client: httpx.Client, gallery: Gallery) -> None:
    headers = admin_headers(gallery)
    finished(client, client.post("/v1/admin/rebuild", headers=headers).json()["id"], headers)
    wait_for(lambda: generation(client) == 2)
    gallery.activate(1)
    wait_for(lambda: generation(client) == 1)


def test_a_damaged_new_generation_is_not_switched_to(
    client: httpx.Client, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    (gallery.generations / "000002").mkdir()
    (gallery.generations / "000002" / "manifest.json").write_text("{}")
    gallery.activate(2)
    wait_for(lambda: "generation 2 cannot be served" in caplog.text)
    assert generation(client) == 1
    time.sleep(2.5)
    assert caplog.text.count("generation 2 cannot be served") == 1, "it is tried once, not every second"
    assert client.post("/v1/search", files={"image": ("x.png", png(pixels_of(0)))}).status_code == 200


def test_an_unknown_job_is_not_found(client: httpx.Client, gallery: Gallery) -> None:
    response = client.get("/v1/admin/jobs/none", headers=admin_headers(gallery))
    assert response.status_code == 404


def test_jobs_that_a_killed_service_left_are_ended_at_start(gallery: Gallery) -> None:
    left = Jobs(gallery).create("rebuild", {})
    with serving(settings_of(gallery)) as client:
        body = client.get(f"/v1/admin/jobs/{left.id}", headers=admin_headers(gallery)).json()
    assert body["state"] == "failed"
    assert "start it again" in body["error"]


def test_a_job_starts_while_the_process_of_the_last_one_still_ends(gallery: Gallery) -> None:
    jobs = Jobs(gallery)
    lock = jobs.take()
    jobs.finish(jobs.create("rebuild", {}).id)
    threading.Timer(0.2, lock.close).start()
    jobs.take().close()


def test_a_clock_that_was_set_back_keeps_no_job_alive(gallery: Gallery) -> None:
    jobs = Jobs(gallery)
    left = jobs.create("rebuild", {})
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds")
    with database_of(gallery).transaction() as connection:
        connection.execute("UPDATE jobs SET created = ? WHERE id = ?", (tomorrow, left.id))
    with serving(settings_of(gallery)) as client:
        headers = admin_headers(gallery)
        assert client.get(f"/v1/admin/jobs/{left.id}", headers=headers).json()["state"] == "failed"
        again = client.post("/v1/admin/rebuild", headers=headers).json()["id"]
        assert finished(client, again, headers)["state"] == "done"


def test_a_service_that_starts_while_a_dead_ones_worker_still_runs_ends_its_job_afterwards(gallery: Gallery) -> None:
    jobs = Jobs(gallery)
    lock = jobs.take()
    left = jobs.create("rebuild", {})
    with serving(settings_of(gallery)) as client:
        headers = admin_headers(gallery)
        assert client.post("/v1/admin/rebuild", headers=headers).status_code == 409
        lock.close()
        wait_for(lambda: client.get(f"/v1/admin/jobs/{left.id}", headers=headers).json()["state"] == "failed")
        again = client.post("/v1/admin/rebuild", headers=headers).json()["id"]
        assert finished(client, again, headers)["state"] == "done"


def test_a_job_whose_result_was_published_before_the_kill_is_done(gallery: Gallery) -> None:
    jobs = Jobs(gallery)
    left = jobs.create("rebuild", {})
    jobs.record_generation(left.id, 1)
    with serving(settings_of(gallery)) as client:
        body = client.get(f"/v1/admin/jobs/{left.id}", headers=admin_headers(gallery)).json()
    assert (body["state"], body["generation"], body["error"]) == ("done", 1, None)


def test_a_rebuild_that_cannot_be_started_fails_and_the_next_one_is_free_to(
    client: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = admin_headers(gallery)
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/nowhere/python")
        job = client.post("/v1/admin/rebuild", headers=headers).json()
    assert job["state"] == "failed"
    assert "no process could be started" in job["error"]
    again = client.post("/v1/admin/rebuild", headers=headers).json()["id"]
    assert finished(client, again, headers)["state"] == "done"


def test_what_goes_wrong_in_following_does_not_end_it(
    client: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    headers = admin_headers(gallery)
    assert finished(client, client.post("/v1/admin/rebuild", headers=headers).json()["id"], headers)["state"] == "done"
    with monkeypatch.context() as broken:
        broken.setattr(Gallery, "current", lambda self: (_ for _ in ()).throw(PermissionError("no")))
        wait_for(lambda: "looking for a new generation failed" in caplog.text)
    gallery.activate(1)
    wait_for(lambda: generation(client) == 1)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    key = load_or_create_key(path)
    assert len(key) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path) == key


def test_a_key_file_that_others_read_or_that_is_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    load_or_create_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_key(path)
    for mode in (0o400, 0o440, 0o444, 0o600, 0o640):  # as Docker and Kubernetes mount secrets
        path.chmod(mode)
        assert load_or_create_key(path) == path.read_text().strip()
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="chmod 600"):
            load_or_create_key(path)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(KeyFileError, match="no key"):
        load_or_create_key(path)
    with pytest.raises(KeyFileError, match="cannot be written"):
        load_or_create_key(tmp_path / "nowhere" / "admin.key")
