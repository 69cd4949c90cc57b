"""Pages of results, a least score, what an answer includes, and near-duplicates, against lists made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.service import (
    CODE_LENGTH,
    admin_headers,
    build_gallery,
    code_of,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 40
MAX_K = 100
QUERY = pixels_of(1234)


def variant(seed: int) -> NDArray[np.uint8]:
    """The image of a seed with one sample a little changed."""
    pixels = pixels_of(seed).copy()
    pixels[0, 0, 0] ^= 12
    return pixels


@pytest.fixture(scope="module")
def pictures() -> dict[str, NDArray[np.uint8]]:
    """A gallery with near-duplicates (variants) and copies of the same bytes, half of them in the delta."""
    found = {image_id(seed): pixels_of(seed) for seed in range(COUNT)}
    for seed in range(0, COUNT, 4):
        found[f"variant/{seed}.png"] = variant(seed)
        found[f"copy/{seed}.png"] = pixels_of(seed)
    return found


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, NDArray[np.uint8]]) -> Iterator[httpx.Client]:
    gallery = build_gallery(tmp_path_factory.mktemp("paging"), count=COUNT)
    with serving(settings_of(gallery, max_k=MAX_K)) as running:
        added = [(id, pixels) for id, pixels in pictures.items() if "/" in id and id[0] in "vc"]
        files = [("image", (id, png(pixels))) for id, pixels in added]
        data = {"id": [id for id, _ in added]}
        answer = running.post("/v1/images", files=files, data=data, headers=admin_headers(gallery))
        assert answer.json()["added"] == len(added)
        yield running


def search(client: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/search", params=parameters, files={"image": ("query.png", png(QUERY))})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_pages_put_together_are_one_long_answer(client: httpx.Client) -> None:
    for length in (2, CODE_LENGTH):
        whole = search(client, k=MAX_K, length=length)
        pages = [search(client, k=7, length=length, offset=offset) for offset in range(0, len(whole) + 7, 7)]
        stitched = [result for page in pages for result in page]
        np.testing.assert_allclose([r["score"] for r in stitched], [r["score"] for r in whole], atol=1e-6)
        assert {r["id"] for r in stitched} == {r["id"] for r in whole}
        assert pages[-1] == []


@pytest.mark.parametrize(
    "plan", [{"length": CODE_LENGTH}, {"length": 2, "rerank": "full", "shortlist": 2 * COUNT}, {}], ids=str
)
def test_a_page_begins_where_it_is_told_to(client: httpx.Client, plan: dict[str, Any]) -> None:
    whole, page = search(client, k=20, **plan), search(client, k=5, offset=8, **plan)
    np.testing.assert_allclose([r["score"] for r in page], [r["score"] for r in whole[8:13]], atol=1e-6)


def test_worse_results_than_the_least_score_are_left_out(
    client: httpx.Client, pictures: dict[str, NDArray[np.uint8]]
) -> None:
    scores = {id: cosine(code_of(QUERY), code_of(pixels)) for id, pixels in pictures.items()}
    good = {id for id, score in scores.items() if score >= 0.2}
    assert 3 < len(good) < len(pictures)
    assert {r["id"] for r in search(client, k=MAX_K, min_score=0.2)} == good
    assert len(search(client, k=MAX_K, min_score=0.2, offset=3)) == len(good) - 3
    assert search(client, min_score=1) == []


def test_near_duplicates_take_no_place_of_their_own(
    client: httpx.Client, pictures: dict[str, NDArray[np.uint8]]
) -> None:
    threshold = 0.98
    ranked = sorted(pictures, key=lambda name: -cosine(code_of(QUERY), code_of(pictures[name])))
    groups: list[list[str]] = []
    for id in ranked:
        mine = code_of(pictures[id])
        near = [group for group in groups if cosine(code_of(pictures[group[0]]), mine) >= threshold]
        if near:
            near[0].append(id)
        else:
            groups.append([id])
    assert len(groups) < COUNT + 3
    found = search(client, k=len(groups), group_duplicates=threshold)
    scores = [cosine(code_of(QUERY), code_of(pictures[group[0]])) for group in groups]
    np.testing.assert_allclose([r["score"] for r in found], scores, atol=2e-3)
    together = {frozenset([r["id"], *(d["id"] for d in r["duplicates"])]) for r in found}
    assert together == {frozenset(group) for group in groups}
    page = search(client, k=4, offset=6, group_duplicates=threshold)
    assert [r["id"] for r in page] == [r["id"] for r in found[6:10]]
    for result in found:
        best = [result["score"], *(duplicate["score"] for duplicate in result["duplicates"])]
        assert best == sorted(best, reverse=True)


def test_the_same_bytes_are_one_result_at_any_threshold(client: httpx.Client) -> None:
    found = search(client, k=MAX_K, group_duplicates=1)
    assert len(found) == COUNT + 10
    copied = {r["id"]: [d["id"] for d in r["duplicates"]] for r in found if r["duplicates"]}
    assert {frozenset([id, *others]) for id, others in copied.items()} == {
        frozenset([image_id(seed), f"copy/{seed}.png"]) for seed in range(0, COUNT, 4)
    }
    assert all("duplicates" not in result for result in search(client))


def test_an_answer_includes_what_is_asked_for(client: httpx.Client) -> None:
    def parts(**parameters: Any) -> set[str]:
        answer = client.post("/v1/search", params=parameters, files={"image": ("q.png", png(QUERY))}).json()
        named = {"timing": "timing_ms", "code": "code"}
        metadata = {"metadata"} if all("metadata" in result for result in answer["results"]) else set()
        return {name for name, member in named.items() if member in answer} | metadata

    assert parts() == {"metadata", "timing"}
    assert parts(include="code") == {"code"}
    assert parts(include="") == set()
    assert parts(include="timing, code,metadata") == {"metadata", "timing", "code"}


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"offset": -1}, "parameters"),
        ({"offset": 10 * MAX_K}, "result-count"),
        ({"offset": 10**30}, "result-count"),
        ({"offset": MAX_K, "group_duplicates": 0.9}, "result-count"),
        ({"group_duplicates": 1.5}, "parameters"),
        ({"min_score": "nan"}, "parameters"),
        ({"min_score": 2}, "parameters"),
        ({"offset": 10, "k": 10, "length": 2, "rerank": "full", "shortlist": 15}, "result-count"),
        ({"include": "metadata,secrets"}, "parameters"),
    ],
)
def test_wrong_pages_are_refused(client: httpx.Client, parameters: dict[str, Any], problem: str) -> None:
    response = client.post("/v1/search", params=parameters, files={"image": ("q.png", png(QUERY))})
    assert (response.status_code, response.json()["type"]) == (422, f"/problems/{problem}"), response.text
