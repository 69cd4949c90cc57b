"""A gallery that is served and changed: tests import the fixtures `gallery` and `client`."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.service import (
    JOB_EVERY_S,
    client_fixture,
    gallery_fixture,
    pixels_of,
    png,
    wait_for,
)

COUNT = 30


gallery = gallery_fixture(count=COUNT, scope="function")
client = client_fixture(scope="function", admin=True, max_image_bytes=200_000)


def add(client: httpx.Client, seeds: list[int], **fields: Any) -> dict[str, Any]:
    files = [("image", (f"new/{seed}.png", png(pixels_of(seed)))) for seed in seeds]
    response = client.post("/v1/images", files=files, data=fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def nearest(client: httpx.Client, seed: int, **parameters: Any) -> list[str]:
    response = client.post(
        "/v1/search", params={"k": 3, **parameters}, files={"image": ("q.png", png(pixels_of(seed)))}
    )
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


def rebuild(client: httpx.Client, **options: Any) -> dict[str, Any]:
    job = client.post("/v1/admin/rebuild", json=options).json()["id"]

    def ended() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(f"/v1/admin/jobs/{job}").json()
        return body if body["finished"] else None

    found: dict[str, Any] = wait_for(ended, every_s=JOB_EVERY_S)
    return found
