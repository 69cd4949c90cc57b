"""Promises that hold for every request: enough results, pages that fit together, filters against the query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens import AsyncClient
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from tests.support.service import LENGTHS, code_of, pixels_of, png, serving, settings_of, write_encoder

SAME, COPIED, COPIES, OTHERS = 300, 100, 3, 300
PAGE = 30
QUERY = png(pixels_of(9000))


def pictures() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Names and pixels: one picture many times, some three times, and two groups far from each other."""
    yield from ((f"same/{number:03d}.png", pixels_of(1)) for number in range(SAME))
    yield from (
        (f"copies/{seed:03d}-{copy}.png", pixels_of(100 + seed)) for seed in range(COPIED) for copy in range(COPIES)
    )
    rng = np.random.default_rng(0)
    for number in range(OTHERS):
        bright = number % 2 == 0
        noise = rng.integers(0, 60, (2, 2, 3))
        yield f"{'bright' if bright else 'dark'}/{number:03d}.png", (195 + noise if bright else noise).astype(np.uint8)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("promises")
    for name, pixels in pictures():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    gallery = Gallery(root / "gallery", create=True)
    with gallery.writing():
        gallery.adopt_encoder(write_encoder(root / "encoder"))
        encoder = Encoder(root / "encoder")
        add_images(gallery, encoder, FolderSource(root / "images"), Progress())
        kinds = {2: "ivf", 4: "ivf-sq8"}
        publish_generation(gallery, encoder, Progress(), GenerationOptions(lengths=LENGTHS, kinds=kinds))
    with serving(settings_of(gallery)) as running:
        yield running


def ids_of(client: httpx.Client, **body: Any) -> list[str]:
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


PLANS: dict[str, Mapping[str, Any]] = {
    "auto": {},
    **{f"plain-{length}": {"length": length} for length in LENGTHS},
    **{f"rescored-{length}": {"length": length, "rerank": "full"} for length in LENGTHS[:-1]},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(
    ("label", "expected"),
    [("same", SAME), ("copies", COPIED * COPIES), (None, SAME + COPIED * COPIES + OTHERS)],
    ids=["same", "copies", "all"],
)
def test_pages_are_disjoint_and_complete(
    client: httpx.Client, plan: Mapping[str, Any], label: str | None, expected: int
) -> None:
    code = code_of(pixels_of(1)).tolist()
    where = {} if label is None else {"filter": {"label": label}}
    pages = [
        ids_of(client, code=code, k=PAGE, offset=offset, include=[], **plan, **where)
        for offset in range(0, expected + PAGE, PAGE)
    ]
    shown = [image for page in pages for image in page]
    assert len(shown) == len(set(shown)) == expected
    assert [len(page) for page in pages[:-1]] == [PAGE] * (expected // PAGE)


def test_the_clients_pages_fit_together(client: httpx.Client) -> None:
    async def pages() -> list[str]:
        async with AsyncClient(str(client.base_url)) as asynchronous:
            answers = [
                await asynchronous.search(png(pixels_of(1)), k=PAGE, offset=offset, length=4, rerank="full")
                for offset in range(0, SAME, PAGE)
            ]
        return [result.id for answer in answers for result in answer.results]

    shown = asyncio.run(pages())
    assert len(set(shown)) == len(shown) == SAME


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_equal_scores_are_in_the_order_in_which_images_came(client: httpx.Client, plan: Mapping[str, Any]) -> None:
    code = code_of(pixels_of(1)).tolist()
    shown = ids_of(client, code=code, k=50, filter={"label": "same"}, **plan)
    assert shown == [f"same/{number:03d}.png" for number in range(50)]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("k", [1, 24, 500, 899, 1000])
def test_as_many_results_as_there_are(client: httpx.Client, plan: Mapping[str, Any], k: int) -> None:
    assert len(ids_of(client, id="same/000.png", k=k, **plan)) == min(k, SAME + COPIED * COPIES + OTHERS - 1)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(("query", "label"), [("bright/000.png", "dark"), ("dark/001.png", "bright")])
def test_a_filter_against_the_query_finds_the_nearest_that_match(
    client: httpx.Client, plan: Mapping[str, Any], query: str, label: str
) -> None:
    shown = ids_of(client, id=query, k=10, filter={"label": label}, **plan)
    assert len(shown) == 10
    codes = {name: code_of(pixels) for name, pixels in pictures()}
    length = plan.get("length", LENGTHS[-1]) if "rerank" not in plan else LENGTHS[-1]

    def cosine(name: str) -> float:
        a, b = codes[name][:length], codes[query][:length]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    best = sorted((cosine(name) for name in codes if name.startswith(label)), reverse=True)[:10]
    np.testing.assert_allclose(sorted(map(cosine, shown), reverse=True), best, atol=2e-3)


def test_no_recall_is_stated_that_was_not_measured(client: httpx.Client) -> None:
    def plan_of(**body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/v1/search", json={"id": "same/000.png", **body}).json()["plan"]
        return answer

    assert plan_of(k=10)["expected_recall"] >= 0.99
    filtered = plan_of(k=10, filter={"label": "dark"})
    assert filtered["exact"]
    assert filtered["expected_recall"] == 1
    assert plan_of(k=10, length=2, filter={"label": "dark"}).get("expected_recall") is None
    assert plan_of(k=1000, length=2).get("expected_recall") is None


def test_each_length_has_figures_alone_and_rescored(client: httpx.Client) -> None:
    entries = client.get("/v1/lengths").json()["lengths"]
    for entry in entries[:-1]:
        for plan, more in ((entry["alone"], {}), (entry["rescored"], {"rerank": "full"})):
            assert {"10", "24"} <= plan["recall"].keys()
            assert plan["latency_ms"]["p50"] > 0
            for k in (10, 24):
                body = {"id": "same/000.png", "k": k, "length": entry["length"], **more}
                answer = client.post("/v1/search", json=body).json()["plan"]
                assert answer["expected_recall"] == plan["recall"][str(k)]
    assert entries[-1]["rescored"] is None
