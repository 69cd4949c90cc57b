"""Looking around in a gallery: page by page, by the beginning of an id, at random."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest

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
    assert client.get("/v1/images", params={"order": "newest", "after": "an id"}).status_code == 422


def test_facets_count_what_the_metadata_say(client: httpx.Client) -> None:
    listed = client.get("/v1/images", params={"limit": 200}).json()["images"]
    counts = Counter(image["metadata"]["label"] for image in listed)
    facets = {facet["field"]: facet for facet in client.get("/v1/facets").json()["facets"]}
    assert {value["value"]: value["count"] for value in facets["label"]["values"]} == counts
    few = client.get("/v1/facets", params={"limit": 1}).json()["facets"][0]
    assert (len(few["values"]), few["others"]) == (1, len(counts) - 1)
    assert client.get("/v1/exif", params={"id": listed[0]["id"]}).json() == {"exif": {}}
    assert client.get("/v1/exif", params={"id": "none"}).status_code == 404
