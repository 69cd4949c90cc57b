"""POST /v1/search/batch: each search as if it were alone, and one that cannot be answered fails alone."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.support.service import (
    CODE_LENGTH,
    client_fixture,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
)

JSON = {"content-type": "application/json"}


gallery = gallery_fixture(count=30)
client = client_fixture(max_image_bytes=20_000, max_k=100)


def encoded(seed: int) -> str:
    return base64.b64encode(png(pixels_of(seed))).decode()


def without_timing(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timing_ms"}


def test_each_search_is_answered_as_if_it_were_alone(client: httpx.Client) -> None:
    searches: list[dict[str, Any]] = [
        {"image": encoded(500)},
        {"id": image_id(3), "length": 2, "k": 7},
        {"code": [1.0] * CODE_LENGTH, "dimensions": 4, "include": ["code"]},
        {"image": encoded(501), "filter": {"label": "odd"}, "offset": 2},
    ]
    body = client.post("/v1/search/batch", json={"k": 3, "length": CODE_LENGTH, "searches": searches}).json()
    assert body["failed"] == 0
    for given, found in zip(searches, body["answers"], strict=True):
        shared = {"k": 3} if "dimensions" in given else {"k": 3, "length": CODE_LENGTH}
        alone = client.post("/v1/search", json={**shared, **given})
        assert found["status"] == alone.status_code == 200, found
        assert without_timing(found["answer"]) == without_timing(alone.json())


def test_parameters_of_the_address_hold_for_all(client: httpx.Client) -> None:
    body = {"searches": [{"id": image_id(1)}, {"id": image_id(1), "k": 4}], "length": 2}
    found = client.post("/v1/search/batch", params={"k": 2, "length": 4}, json=body).json()["answers"]
    assert [len(item["answer"]["results"]) for item in found] == [2, 4]
    assert {item["answer"]["plan"]["length"] for item in found} == {2}


def test_one_bad_search_fails_alone_with_the_problem_that_it_would_have_had(client: httpx.Client) -> None:
    searches = [
        {"image": encoded(1)},
        {"image": base64.b64encode(b"no image at all").decode()},
        {"image": "###"},
        {"id": "nowhere.png"},
        {"id": image_id(1), "length": 3},
        {"id": image_id(1), "k": 101},
        {"id": image_id(1), "lenght": 4},
        {},
        {"image": base64.b64encode(png(pixels_of(0)) + b"x" * 20_000).decode()},
        {"id": image_id(2)},
    ]
    body = client.post("/v1/search/batch", json={"searches": searches}).json()
    assert [found["status"] for found in body["answers"]] == [200, 415, 422, 404, 422, 422, 422, 422, 413, 200]
    assert body["failed"] == 8
    for given, found in zip(searches, body["answers"], strict=True):
        alone = client.post("/v1/search", json=given)
        assert found["status"] == alone.status_code
        if alone.status_code != 200:
            expected = alone.json() | {"instance": "/v1/search/batch"}
            assert found["problem"] | {"request_id": ""} == expected | {"request_id": ""}
    assert body["answers"][4]["problem"]["available"] == [2, 4, CODE_LENGTH]


def test_uploads_are_searched_in_one_request_and_a_bad_one_fails_alone(client: httpx.Client) -> None:
    images = [png(pixels_of(1)), b"no image", png(pixels_of(2))]
    files = [("image", (f"{n}.png", data)) for n, data in enumerate(images)]
    body = client.post("/v1/search/batch", files=files, data={"k": "1"}).json()
    assert [found["status"] for found in body["answers"]] == [200, 415, 200]
    best = [found["answer"]["results"][0]["id"] for found in body["answers"] if "answer" in found]
    assert best == [image_id(1), image_id(2)]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"json": {"searches": []}}, 422),
        ({"json": {"searches": [{}] * 101}}, 422),
        ({"json": {"searches": {}}}, 422),
        ({"json": {"k": 0, "searches": [{}]}}, 422),
        ({"json": {"length": 2, "dimensions": 2, "searches": [{}]}}, 422),
        ({"files": {"image": b""}, "data": {"k": "many"}}, 422),
        ({"files": {"picture": b""}}, 422),
        ({"content": b"[" * 100_000, "headers": JSON}, 422),
        ({"content": b"hello"}, 415),
    ],
    ids=range(9),
)
def test_what_is_no_batch_is_refused_as_a_whole(client: httpx.Client, arguments: dict[str, Any], status: int) -> None:
    response = client.post("/v1/search/batch", **arguments)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
