"""A real service process, killed in the middle of a rebuild: it starts again on the old generation."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.service.jobs.store import Jobs
from tests.support.service import admin_headers, build_gallery, database_of, image_id, pixels_of, png, wait_for

COUNT = 1500


def search(client: httpx.Client) -> dict[str, Any]:
    response = client.post("/v1/search?k=1", files={"image": ("x.png", png(pixels_of(5)))})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stage", ["encode", "assemble"])
def test_a_service_killed_in_mid_rebuild_starts_again_on_the_old_generation(tmp_path: Path, stage: str) -> None:
    gallery = build_gallery(tmp_path, count=COUNT)
    # Give the rebuild everything to encode.
    with database_of(gallery).transaction() as connection:
        connection.execute("DELETE FROM codes")
        # Under new keys the codes of the old generation cannot be used.
        connection.execute("UPDATE images SET key = key - ?", (10 * COUNT,))

    jobs = Jobs(gallery)
    process, address = start_service(gallery.root, tmp_path / "first.log")
    try:
        headers = admin_headers(gallery)
        job = httpx.post(f"{address}/v1/admin/rebuild", headers=headers).json()["id"]

        workers = children(process.pid)
        assert workers, "the rebuild runs in a process of its own"

        def reached() -> bool:
            found = jobs.get(job)
            assert found.finished is None, found
            return found.stage == stage

        wait_for(reached, every_s=0.001)
        if stage == "assemble":  # over in a moment: stop it here, and not when it sees that the service is gone
            os.kill(workers[0], signal.SIGKILL)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not any(alive(pid) for pid in workers))
    finally:
        process.kill()
        process.wait()
    assert (gallery.current(), gallery.numbers()) == (1, [1])

    process, address = start_service(gallery.root, tmp_path / "second.log")
    client = httpx.Client(base_url=address, headers=admin_headers(gallery), timeout=30, verify=False)
    try:
        assert client.get("/v1/lengths").json()["generation"] == 1
        listed = client.get("/v1/admin/jobs").json()
        assert [entry["state"] for entry in listed] == ["failed"]
        again = client.post("/v1/admin/rebuild").json()["id"]

        def ended() -> dict[str, Any] | None:
            body = client.get(f"/v1/admin/jobs/{again}").json()
            return body if body["finished"] else None

        assert wait_for(ended)["state"] == "done"
        wait_for(lambda: search(client)["generation"] >= 2)
        assert search(client)["results"][0]["id"] == image_id(5)
        assert not list(gallery.generations.glob(".building*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in (0, -signal.SIGTERM)
    finally:
        client.close()
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Processes that the process started."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def test_a_service_that_is_not_there_and_a_file_that_is_not_there_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eigenlens.command import main

    (tmp_path / "x.png").write_bytes(png(pixels_of(0)))
    assert main(["search", str(tmp_path / "x.png"), "--url", "http://127.0.0.1:9"]) == 5
    assert "eigenlens serve" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "none.png")]) == 1
    assert "cannot read" in capsys.readouterr().err
