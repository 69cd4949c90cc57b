"""Whether anything looks like the query, over a real socket: against plain loops, in each way to ask."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.service.client import Client
from tests.support import oracles
from tests.support.codes import without_similarities
from tests.support.service import (
    CODE_LENGTH,
    build_gallery,
    client_fixture,
    code_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 200
gallery = gallery_fixture(count=COUNT)
client = client_fixture()


@pytest.fixture(scope="module")
def codes() -> NDArray[np.float64]:
    return np.stack([code_of(pixels_of(seed)) for seed in range(COUNT)])


@pytest.fixture(scope="module")
def stranger(codes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels whose nearest image is further away than that of any image of the gallery."""
    pixels = [pixels_of(seed) for seed in range(10_000, 12_000)]
    best = oracles.cosine(np.stack([code_of(each) for each in pixels]), codes, length=CODE_LENGTH).max(1)
    return pixels[int(best.argmin())]


@pytest.fixture(scope="module")
def outlier(codes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels whose code lies farther out than that of any image of the gallery."""
    pixels = [pixels_of(seed) for seed in range(10_000, 12_000)]
    far = oracles.scatter_distance(np.stack([code_of(each) for each in pixels]), codes)
    return pixels[int(far.argmax())]


def percentile_of(score: float, codes: NDArray[np.float64], *, length: int) -> float:
    """The share of the gallery's images, in per cent, whose nearest other is no nearer than a score, slowly."""
    return float(100 * (nearest_other(codes.tobytes(), length) <= score).mean())


@cache
def nearest_other(codes: bytes, length: int) -> NDArray[np.float64]:
    """The cosine of each image and the one that is nearest to it, (n,)."""
    rows = np.frombuffer(codes).reshape(-1, CODE_LENGTH)
    cosines = oracles.cosine(rows, rows, length=length)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.max(1))


def search(client: httpx.Client, pixels: NDArray[np.uint8], **parameters: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", params=parameters, files={"image": png(pixels)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("length", [4, CODE_LENGTH])  # at 2 the nearest are as near as half precision can tell
def test_the_best_score_stands_where_counting_puts_it(
    client: httpx.Client, codes: NDArray[np.float64], length: int
) -> None:
    for seed in range(500, 520):
        answer = search(client, pixels_of(seed), length=length, offset=seed % 3)
        best = oracles.cosine(code_of(pixels_of(seed))[None], codes, length=length).max()
        assert answer["best_percentile"] == pytest.approx(percentile_of(best, codes, length=length), abs=2)


@pytest.mark.parametrize("length", [2, 4, CODE_LENGTH, "auto"])
def test_an_outlier_is_unlike_everything_and_an_image_of_the_gallery_is_not(
    client: httpx.Client, codes: NDArray[np.float64], outlier: NDArray[np.uint8], length: int | str
) -> None:
    told = search(client, outlier, length=length)
    assert (told["query_percentile"], told["unlike_everything"]) == (0.0, True)
    assert len(told["results"]) == 10  # it is told, and not kept back
    usual = search(client, pixels_of(501), length=length)
    assert usual["query_percentile"] > 5
    assert usual["unlike_everything"] is False
    farthest = int(oracles.scatter_distance(codes, codes).argmax())
    assert search(client, pixels_of(farthest), length=length)["unlike_everything"] is False, "it is itself there"


def test_results_below_a_percentile_are_cut_off_in_each_way_to_ask(
    client: httpx.Client, codes: NDArray[np.float64], stranger: NDArray[np.uint8]
) -> None:
    cosines = oracles.cosine(codes, codes, length=CODE_LENGTH)
    np.fill_diagonal(cosines, -np.inf)
    least = float(np.quantile(cosines.max(1), 0.25))
    pixels = pixels_of(501)
    scores = np.sort(oracles.cosine(code_of(pixels)[None], codes, length=CODE_LENGTH)[0])[::-1]
    expected = int((scores >= least).sum())
    assert 0 < expected < COUNT
    asked = {"min_similarity": 25, "k": COUNT, "length": CODE_LENGTH}
    image, code = {"image": png(pixels)}, {"code": code_of(pixels).tolist()}
    form = {name: str(value) for name, value in asked.items()}
    answers = [
        client.post("/v1/search", params=asked, files=image).json(),
        client.post("/v1/search", data=form, files=image).json(),
        client.post("/v1/search", json={**asked, **code}).json(),
        client.post("/v1/search", params=asked, content=png(pixels), headers={"content-type": "image/png"}).json(),
        client.post("/v1/search", params={**asked, "group_duplicates": 1}, json=code).json(),
        client.post("/v1/search/batch", json={**asked, "searches": [code]}).json()["answers"][0]["answer"],
        client.post("/v1/search/batch", data=form, files=image).json()["answers"][0]["answer"],
    ]
    for answer in answers:
        assert len(answer["results"]) == pytest.approx(expected, abs=1)
        assert min(result["score"] for result in answer["results"]) >= least - 2e-3
        assert answer["best_percentile"] == answers[0]["best_percentile"]
    nothing = search(client, stranger, min_similarity=1, length=CODE_LENGTH)
    assert (nothing["results"], nothing["best_percentile"]) == ([], 0.0)
    assert search(client, pixels, **asked, min_score=0.999)["results"] == []  # the higher of the two counts
    assert search(client, pixels, **asked, min_score=-1)["results"] == answers[0]["results"]


def test_the_client_asks_for_it_and_tells_it(
    client: httpx.Client, stranger: NDArray[np.uint8], outlier: NDArray[np.uint8]
) -> None:
    with Client(str(client.base_url)) as asking:
        answer = asking.search(png(stranger), length=CODE_LENGTH, min_similarity=1)
        assert (answer.results, answer.best_percentile) == ([], 0.0)
        answer = asking.search(png(outlier))
        assert (answer.query_percentile, answer.unlike_everything) == (0.0, True)
        assert asking.search(image_id(3), length=CODE_LENGTH).unlike_everything is False


def test_a_percentile_out_of_bounds_is_refused(client: httpx.Client) -> None:
    for value in (-1, 101, "much"):
        refused = client.post("/v1/search", params={"min_similarity": value}, json={"id": image_id(1)})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/parameters")


def test_scores_at_a_length_that_was_not_built_have_no_percentile(client: httpx.Client) -> None:
    asked = {"id": image_id(1), "length": 2, "rerank": 7}
    answer = client.post("/v1/search", json=asked).json()
    assert (answer["best_percentile"], answer["unlike_everything"]) == (None, False)
    refused = client.post("/v1/search", json={**asked, "min_similarity": 5})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/similarity")
    assert f"2, 4, {CODE_LENGTH} coordinates, not of 7" in refused.json()["detail"]


def test_where_nothing_is_found_nothing_is_told(client: httpx.Client) -> None:
    answer = client.post("/v1/search", json={"id": image_id(1), "filter": {"label": "none"}}).json()
    assert (answer["results"], answer["best_percentile"], answer["unlike_everything"]) == ([], None, None)


def test_a_generation_of_an_earlier_version_answers_null_and_says_what_to_do(tmp_path: Path) -> None:
    older = build_gallery(tmp_path, count=60)
    _, generation = older.open_current()
    without_similarities(generation.artifact)
    with serving(settings_of(older)) as running:
        answer = running.post("/v1/search", json={"id": image_id(1)}).json()
        told = [answer[name] for name in ("best_percentile", "query_percentile", "unlike_everything")]
        assert told == [None, None, None]
        refused = running.post("/v1/search", json={"id": image_id(1), "min_similarity": 5})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/similarity")
        assert "rebuild" in refused.json()["detail"]
    older.store.close()
