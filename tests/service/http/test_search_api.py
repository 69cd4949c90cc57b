"""POST /v1/search through a real socket: results against a reference by hand, plans, and every refusal."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.service import (
    CODE_LENGTH,
    LENGTHS,
    build_gallery,
    client_fixture,
    code_of,
    database_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 40
QUERY = pixels_of(1234)


gallery = gallery_fixture(count=COUNT)
client = client_fixture(max_k=100)


def search(client: httpx.Client, image: bytes = png(QUERY), **parameters: Any) -> httpx.Response:
    return client.post("/v1/search", params=parameters, files={"image": ("query.png", image)})


def expected(length: int, *, among: list[int] | None = None) -> list[tuple[str, float]]:
    """Ids and cosines by hand, best first: slice, then normalise."""
    query = code_of(QUERY)[:length]
    scored = []
    for seed in among if among is not None else range(COUNT):
        code = code_of(pixels_of(seed))[:length]
        scored.append((image_id(seed), float(query @ code / np.linalg.norm(query) / np.linalg.norm(code))))
    return sorted(scored, key=lambda pair: -pair[1])


def assert_results(response: httpx.Response, wanted: list[tuple[str, float]]) -> None:
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [r["id"] for r in results] == [id for id, _ in wanted]
    np.testing.assert_allclose([r["score"] for r in results], [score for _, score in wanted], atol=2e-3)


@pytest.mark.parametrize("length", LENGTHS)
def test_results_are_the_nearest_by_the_prefix_that_was_asked_for(client: httpx.Client, length: int) -> None:
    response = search(client, k=5, length=length)
    assert_results(response, expected(length)[:5])
    plan = response.json()["plan"]
    assert (plan["length"], plan["kind"], plan["exact"]) == (length, "flat", length == CODE_LENGTH)
    assert response.json()["generation"] == 1


def test_without_a_length_the_full_code_is_searched(client: httpx.Client) -> None:
    response = search(client)
    assert_results(response, expected(CODE_LENGTH)[:10])
    assert response.json()["plan"]["length"] == CODE_LENGTH


def test_a_rerank_of_everything_is_a_search_of_the_full_code(client: httpx.Client) -> None:
    response = search(client, k=5, length=2, rerank="full", shortlist=COUNT)
    assert_results(response, expected(CODE_LENGTH)[:5])
    expected_plan = {"length": 2, "kind": "flat", "shortlist": COUNT, "rerank": CODE_LENGTH, "exact": False}
    assert response.json()["plan"] == expected_plan
    assert search(client, k=5, length=2).json()["results"] != response.json()["results"]


def test_a_rerank_rescores_the_shortlist_and_nothing_else(client: httpx.Client) -> None:
    shortlist = {id for id, _ in expected(2)[:7]}
    among = [seed for seed in range(COUNT) if image_id(seed) in shortlist]
    assert_results(search(client, k=5, length=2, rerank=4, shortlist=7), expected(4, among=among)[:5])


def test_parameters_may_be_form_fields_and_dimensions_means_length(client: httpx.Client) -> None:
    files = {"image": ("query.png", png(QUERY))}
    response = client.post("/v1/search", data={"k": "3", "dimensions": "4"}, files=files)
    assert_results(response, expected(4)[:3])


def test_a_code_that_was_answered_searches_again_without_encoding(client: httpx.Client) -> None:
    first = search(client, k=3, include="code").json()
    np.testing.assert_allclose(first["code"], code_of(QUERY), atol=1e-4)
    response = client.post("/v1/search", json={"code": first["code"], "k": 3, "length": 4})
    assert_results(response, expected(4)[:3])
    assert "encode" not in response.json()["timing_ms"]


def test_an_image_in_base64_is_the_same_as_an_upload(client: httpx.Client) -> None:
    encoded = base64.b64encode(png(QUERY)).decode()
    for image in (encoded, f"data:image/png;base64,{encoded}"):
        assert_results(client.post("/v1/search", json={"image": image, "k": 3}), expected(CODE_LENGTH)[:3])


def test_more_like_an_image_leaves_it_out(client: httpx.Client) -> None:
    response = client.post("/v1/search", json={"id": image_id(3), "k": COUNT})
    assert response.status_code == 200
    found = {r["id"] for r in response.json()["results"]}
    assert found == {image_id(seed) for seed in range(COUNT) if seed != 3}


def test_more_results_than_images_are_all_images(client: httpx.Client) -> None:
    assert len(search(client, k=100).json()["results"]) == COUNT


def test_every_stage_is_timed(client: httpx.Client) -> None:
    response = search(client)
    timing = response.json()["timing_ms"]
    assert set(timing) == {"queue", "decode", "encode", "search", "total"}
    assert 0 < timing["decode"] + timing["encode"] + timing["search"] <= timing["total"] + 0.01
    assert "encode;dur=" in response.headers["server-timing"]


def test_results_open_as_images(client: httpx.Client) -> None:
    for result in search(client, k=COUNT).json()["results"]:
        content = client.get(result["content"])
        seed = int(result["id"].split("/")[1][:4])
        assert content.content == png(pixels_of(seed))
        assert content.headers["content-type"] == "image/png"
        assert client.get(result["thumbnail"]).headers["content-type"].startswith("image/")


@pytest.mark.parametrize(
    ("parameters", "status", "problem", "says"),
    [
        ({"length": 3}, 422, "prefix-length-not-built", "2, 4, 12"),
        ({"length": 0}, 422, "parameters", "length"),
        ({"k": 0}, 422, "parameters", "k"),
        ({"k": "many"}, 422, "parameters", "k"),
        ({"k": 101}, 422, "result-count", "100"),
        ({"length": 4, "rerank": 4}, 422, "rerank-length", "5 to 12"),
        ({"length": 4, "rerank": 13}, 422, "rerank-length", "5 to 12"),
        ({"length": 12, "rerank": "full"}, 422, "rerank-length", "already uses all 12"),
        ({"rerank": "full"}, 422, "plan-conflict", "give them with a length"),
        ({"length": 4, "target_recall": 0.9, "effort": 3}, 422, "plan-conflict", "give them with a length"),
        ({"length": 4, "effort": 3}, 422, "effort", "has no effort"),
        ({"target_recall": 1.5}, 422, "parameters", "target_recall"),
        ({"length": 2, "max_latency_ms": 1e-9}, 422, "target", "the fastest takes"),
        ({"max_latency_ms": 1e-9}, 422, "target", "the fastest takes"),
        ({"target_recall": 0.9, "max_latency_ms": 1e-9}, 422, "target", "cannot both be met"),
        ({"filter": "{"}, 422, "parameters", "filter: a filter is a JSON object, such as"),
        ({"filter": '{"label": {"$like": 1}}'}, 422, "filter", "there is no $like"),
        ({"rerank": "some"}, 422, "parameters", "rerank"),
        ({"shortlist": 5}, 422, "plan-conflict", "rerank"),
        ({"length": 2, "rerank": 4, "shortlist": 5}, 422, "result-count", "10 or more"),
        ({"lenght": 4}, 422, "parameters", "lenght"),
        ({"include": "everything"}, 422, "parameters", "include"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: httpx.Client, parameters: dict[str, Any], status: int, problem: str, says: str
) -> None:
    response = search(client, **parameters)
    assert_problem(response, status, problem, says)
    assert search(client).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "object"),
        (b"{}", "exactly one"),
        (b'{"id": "a", "code": [1]}', "exactly one"),
        (b'{"image": "###"}', "base64"),
        (b'{"code": [1, 2]}', "12 finite numbers"),
        (b'{"code": [NaN,1,1,1,1,1,1,1,1,1,1,1]}', "finite"),
    ],
)
def test_a_wrong_json_body_is_refused(client: httpx.Client, body: bytes, says: str) -> None:
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, None, says)


def test_an_unknown_image_is_not_found(client: httpx.Client) -> None:
    assert_problem(client.post("/v1/search", json={"id": "nowhere.png"}), 404, "image-not-found", "nowhere.png")


def test_a_body_of_no_known_type_is_refused(client: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}):
        assert_problem(client.post("/v1/search", content=b"hello", headers=headers), 415, "content-type", "multipart")


def test_a_form_without_an_image_says_what_is_missing(client: httpx.Client) -> None:
    response = client.post("/v1/search", files={"picture": ("a.png", png(QUERY))})
    assert_problem(response, 422, "request", "`image`")


def test_lengths_tell_what_each_costs(client: httpx.Client) -> None:
    body = client.get("/v1/lengths").json()
    assert [entry["length"] for entry in body["lengths"]] == list(LENGTHS)
    assert [entry["full"] for entry in body["lengths"]] == [False, False, True]
    assert body["count"] == COUNT
    assert body["code_length"] == CODE_LENGTH
    for entry in body["lengths"]:
        assert entry["bytes"] >= entry["length"] * 4 * COUNT
        assert entry["bytes_per_image"] == pytest.approx(entry["bytes"] / COUNT, abs=0.1)


def test_probes_need_no_key(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").json() == {"status": "ready", "generation": 1}


def test_routes_and_methods_that_are_not_there_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/nothing"), 404, None, "")
    assert_problem(client.delete("/v1/search"), 405, None, "")


def test_a_request_keeps_its_id_and_gets_one_otherwise(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(client.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"]) == 32


def test_the_openapi_document_lists_every_call(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {"/v1/search", "/v1/lengths", "/v1/admin/rebuild", "/v1/admin/jobs/{id}", "/healthz", "/readyz"}
    assert wanted <= set(paths)
    bodies = set(paths["/v1/search"]["post"]["requestBody"]["content"])
    assert bodies == {"multipart/form-data", "application/json", "application/octet-stream", "image/*"}


def assert_problem(response: httpx.Response, status: int, problem: str | None, says: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert says in body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    if problem is not None:
        assert body["type"] == f"/problems/{problem}"


def test_removed_images_are_never_results_and_others_take_their_place(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=COUNT)
    best = [id for id, _ in expected(4)]
    with database_of(gallery).transaction() as connection:
        connection.executemany("DELETE FROM images WHERE id = ?", [(id,) for id in best[:6]])
    with serving(settings_of(gallery)) as client:
        assert [r["id"] for r in search(client, k=5, length=4).json()["results"]] == best[6:11]
        assert len(search(client, k=COUNT).json()["results"]) == COUNT - 6


def test_an_image_of_the_gallery_takes_no_place_of_its_own_shortlist(client: httpx.Client) -> None:
    """It took one of the candidates that are rescored, so that a search by id found less than one by its code."""
    plan = {"length": 2, "rerank": "full", "include": []}
    for seed in range(COUNT):
        by_id = client.post("/v1/search", json={"id": image_id(seed), "k": 5, "shortlist": 10, **plan})
        code = code_of(pixels_of(seed)).tolist()
        by_code = client.post("/v1/search", json={"code": code, "k": 6, "shortlist": 11, **plan})
        others = [result["id"] for result in by_code.json()["results"]][1:]
        assert [result["id"] for result in by_id.json()["results"]] == others
        assert by_id.json()["plan"]["shortlist"] == 10
