"""Looking around in a gallery: page by page, by the beginning of an id, at random."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.service.gallery.facets import Facet, Facets
from tests.support.service import client_fixture, gallery_fixture, image_id

IDS = sorted(image_id(seed) for seed in range(40))


gallery = gallery_fixture(count=40)
client = client_fixture()


def ids_of(client: httpx.Client, **parameters: str | int) -> list[str]:
    answer = client.get("/v1/images", params=parameters)
    assert answer.status_code == 200, answer.text
    return [image["id"] for image in answer.json()["images"]]


def test_pages_hold_every_image_once(client: httpx.Client) -> None:
    seen: list[str] = []
    after = ""
    while True:
        answer = client.get("/v1/images", params={"limit": 7, "after": after}).json()
        seen += [image["id"] for image in answer["images"]]
        if answer["next"] is None:
            break
        after = answer["next"]
    assert seen == IDS


def test_ids_are_found_by_their_beginning(client: httpx.Client) -> None:
    assert ids_of(client, prefix="odd/0003") == [image_id(3)]
    assert ids_of(client, prefix="odd/") == [id for id in IDS if id.startswith("odd/")]
    assert ids_of(client, prefix="nothing") == []
    assert ids_of(client, prefix="odd/", after=image_id(37)) == [image_id(39)]


def test_a_sample_is_of_different_images_and_another_number_gives_others(client: httpx.Client) -> None:
    sample = ids_of(client, limit=8, sample=0)
    assert len(set(sample)) == 8
    assert ids_of(client, limit=8, sample=0) == sample
    assert ids_of(client, limit=8, sample=1) != sample
    assert sorted(ids_of(client, limit=200, sample=5)) == IDS


@pytest.mark.parametrize("parameters", [{"limit": 0}, {"limit": 201}, {"sample": -1}, {"sample": "x"}])
def test_what_cannot_be_answered_is_refused(client: httpx.Client, parameters: dict[str, str | int]) -> None:
    assert client.get("/v1/images", params=parameters).status_code == 422


def test_an_answer_tells_where_the_pictures_are(client: httpx.Client) -> None:
    image = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    assert client.get(image["thumbnail"]).status_code == 200
    assert image["metadata"] == {"label": "even"}


def test_images_are_listed_newest_first_and_by_a_part_of_their_name(client: httpx.Client) -> None:
    names = [image["id"] for image in client.get("/v1/images", params={"limit": 200}).json()["images"]]
    part = names[3].rpartition("/")[2][1:4]
    found = client.get("/v1/images", params={"limit": 200, "contains": part.upper()}).json()["images"]
    assert [image["id"] for image in found] == [name for name in names if part.lower() in name.lower()]
    newest: list[str] = []
    after: str | None = None
    while after is not None or not newest:
        params: dict[str, str | int] = {"limit": 7, "order": "newest"}
        if after is not None:
            params["after"] = after
        page = client.get("/v1/images", params=params).json()
        newest += [image["id"] for image in page["images"]]
        after = page["next"]
    assert sorted(newest) == names
    assert newest != names
    for after in ("an id", "-1", "1.5", "", "²", "9" * 19, "9" * 5000):
        assert client.get("/v1/images", params={"order": "newest", "after": after}).status_code == 422
    for after, count in (("0", 0), ("9" * 18, len(names))):
        listed = client.get("/v1/images", params={"order": "newest", "after": after, "limit": 200}).json()["images"]
        assert len(listed) == count


def test_facets_count_what_the_metadata_say(client: httpx.Client) -> None:
    listed = client.get("/v1/images", params={"limit": 200}).json()["images"]
    counts = Counter(image["metadata"]["label"] for image in listed)
    facets = {facet["field"]: facet for facet in client.get("/v1/facets").json()["facets"]}
    assert {value["value"]: value["count"] for value in facets["label"]["values"]} == counts
    few = client.get("/v1/facets", params={"limit": 1}).json()["facets"][0]
    assert (len(few["values"]), few["others"]) == (1, len(counts) - 1)
    assert client.get("/v1/exif", params={"id": listed[0]["id"]}).json() == {"exif": {}}
    assert client.get("/v1/exif", params={"id": "none"}).status_code == 404


def test_nobody_waits_for_facets_that_another_one_counts() -> None:
    counting, may_end = threading.Event(), threading.Event()
    labels = ["x", "x"]

    def metadata_of(keys: Any) -> Any:
        if len(labels) > 2:
            counting.set()
            may_end.wait(30)
        return [{"label": label} for label in labels]

    store: Any = SimpleNamespace(
        position=lambda: (len(labels), 0), contents=lambda: (np.arange(len(labels)), 0), metadata_of=metadata_of
    )
    facets = Facets()
    before = facets.of(store)
    assert before == [Facet("label", (("x", 2),))]
    labels += ["y", "y"]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(facets.of, store)
        assert counting.wait(30)
        try:
            assert facets.of(store) == before
        finally:
            may_end.set()
        assert first.result() == facets.of(store) == [Facet("label", (("x", 2), ("y", 2)))]
