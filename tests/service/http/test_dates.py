"""Photographs by date: what the camera wrote becomes metadata, and lists are in its order."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from eigenlens.command import main
from eigenlens.service.client import Client
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import admin_headers, client_fixture, gallery_fixture, image_id, pixels_of

PLAIN = 10
# Of every year two, one of them with a moment of its own; the last is later in the day.
MOMENTS = {
    f"trip/{year}-{part}.jpg": f"{year}:07:0{part} 1{part}:00:00" for year in (1999, 2012, 2024) for part in (1, 2)
}
TAKEN = {name: moment.replace(":", "-", 2).replace(" ", "T") for name, moment in MOMENTS.items()}


gallery = gallery_fixture(count=PLAIN)
client = client_fixture()


def photograph(moment: str, seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0132], exif[0x010F] = moment, "Maker"
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(seed)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def opened(gallery: Gallery, client: httpx.Client) -> Iterator[Client]:
    key = admin_headers(gallery)["Authorization"].removeprefix("Bearer ")
    with Client(str(client.base_url), key=key) as opened:
        added = opened.add({name: photograph(moment, seed) for seed, (name, moment) in enumerate(MOMENTS.items())})
        assert added.added == len(MOMENTS)
        yield opened


def in_order(listed: dict[str, str]) -> list[str]:
    return sorted(listed, key=lambda name: listed[name], reverse=True)


def test_what_the_camera_wrote_is_metadata_and_sending_it_again_changes_nothing(opened: Client) -> None:
    name = next(iter(MOMENTS))
    assert opened.get(name).metadata == {"taken": TAKEN[name]}
    assert opened.exif(name) == {"taken": TAKEN[name], "camera": "Maker"}
    assert opened.add({name: photograph(MOMENTS[name], 0)}).unchanged == 1
    own = {"taken": "by hand"}
    assert opened.add({"own.jpg": photograph("2020:01:01 00:00:00", 77)}, [own]).added == 1
    assert opened.get("own.jpg").metadata == own
    opened.remove("own.jpg")
    late = opened.search(image_id(0), k=20, filter={"taken": {"$gte": "2012-07-02"}})
    assert {result.id for result in late.results} == {name for name in TAKEN if TAKEN[name] >= "2012-07-02"}


def test_lists_are_by_date_page_by_page_also_while_images_go(opened: Client, client: httpx.Client) -> None:
    opened.change_metadata(image_id(0), {"taken": ""})  # no date
    opened.change_metadata(image_id(1), {})  # neither, and newer
    names = [image.id for image in opened.images(order="taken")]
    assert names[: len(TAKEN)] == in_order(TAKEN)
    newest = [image.id for image in opened.images(order="newest")]
    assert names[len(TAKEN) :] == [name for name in newest if name not in TAKEN]
    assert len(names) == PLAIN + len(TAKEN)
    listed: list[str] = []
    after: str | None = None
    while after is not None or not listed:
        more = {} if after is None else {"after": after}
        page = client.get("/v1/images", params={"order": "taken", "limit": 2, **more}).json()
        listed += [image["id"] for image in page["images"]]
        after = page["next"]
        if len(listed) == 2:  # the place where the next page begins is gone
            opened.remove(listed[1])
    assert listed == names
    opened.add({names[1]: photograph(MOMENTS[names[1]], 1)})
    assert [image.id for image in opened.images(order="taken", prefix="trip/", contains="-2.J", limit=2)] == [
        "trip/2024-2.jpg",
        "trip/2012-2.jpg",
    ]
    for wrong in ("", "an id", "12", "9" * 19 + " x"):
        assert client.get("/v1/images", params={"order": "taken", "after": wrong}).status_code == 422


def test_a_field_whose_values_hardly_any_images_share_is_no_facet(opened: Client) -> None:
    assert [facet.field for facet in opened.facets()] == ["label"]


def test_the_command_lists_images_one_of_them_and_facets(
    opened: Client, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["images", "--url", str(client.base_url), *arguments]) == 0
        return capsys.readouterr().out

    by_date = [line.split()[0] for line in run("--order", "taken", "--limit", "3").splitlines()[1:]]
    assert by_date == in_order(TAKEN)[:3]
    assert [image["id"] for image in json.loads(run("--contains", "2012", "--json"))] == [
        "trip/2012-1.jpg",
        "trip/2012-2.jpg",
    ]
    one = run("trip/2012-1.jpg")
    assert "EXIF camera" in one
    assert "2012-07-01T11:00:00" in one
    assert json.loads(run("trip/2012-1.jpg", "--json"))["exif"]["camera"] == "Maker"
    assert run("--facets").split() == ["label", "images", "even", "5", "odd", "5"]
    assert json.loads(run("--facets", "--json"))[0]["field"] == "label"
    assert main(["images", "--url", str(client.base_url), "x", "--facets"]) == 1
