"""Looking around in a gallery: page by page, by the beginning of an id, at random."""

from __future__ import annotations

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
