"""The map over a real socket: regions, representatives and counts, beside a plain computation."""

from __future__ import annotations

import csv
import json
import re
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.records import Changes, Position
from eigenlens.service.search.gallery_map import Box, GalleryMap
from tests.support.service import client_fixture, code_of, gallery_fixture, image_id, pixels_of, png

COUNT = 40
EVERYWHERE = {"left": -1, "right": 1, "bottom": -1, "top": 1}
gallery = gallery_fixture(count=COUNT, scope="function")
client = client_fixture(scope="function", admin=True)


def place(seed: int) -> tuple[float, float]:
    code = code_of(pixels_of(seed))
    unit = code / np.linalg.norm(code)
    return float(unit[0]), float(unit[1])


def test_a_region_shows_its_images_at_their_places(client: httpx.Client, gallery: Gallery) -> None:
    whole = client.get("/v1/map", params={"columns": 40, "rows": 40, "parts": 7}).json()
    assert (whole["generation"], whole["x"], whole["y"], whole["axes"], whole["count"]) == (1, 1, 2, 8, COUNT)
    assert sum(map(sum, whole["counts"])) == COUNT
    places = {image_id(seed): place(seed) for seed in range(COUNT)}
    for image in whole["images"]:
        assert (image["x"], image["y"]) == pytest.approx(places[image["id"]], abs=2e-3)

    box: dict[str, Any] = {"left": 0.0, "right": 0.5, "bottom": -0.5, "top": 0.25}
    region = client.get("/v1/map", params=box | {"columns": 2, "rows": 3, "parts": 2}).json()
    inside = {id for id, (x, y) in places.items() if 0 <= x <= 0.5 and -0.5 <= y <= 0.25}
    assert region["count"] == len(inside)
    cells: dict[tuple[int, int], list[str]] = {}
    for image in region["images"]:
        cells.setdefault((int(image["x"] / 0.25), int((image["y"] + 0.5) / 0.25)), []).append(image["id"])
    assert all(len(ids) == 1 for ids in cells.values())
    expected = {(int(places[id][0] / 0.25), int((places[id][1] + 0.5) / 0.25)) for id in inside}
    assert cells.keys() == expected
    ids = [image_id(3), image_id(7), "none.png"]  # named ones are told wherever they are
    named = client.get("/v1/map", params=box | {"ids": ids}).json()["named"]
    assert {image["id"]: (image["x"], image["y"]) for image in named} == {
        id: pytest.approx(places[id], abs=2e-3) for id in ids[:2]
    }
    # Other axes, the other way round.
    turned = client.get("/v1/map", params={"x": 2, "y": 1, "left": -0.5, "right": 0.25, "bottom": 0, "top": 0.5}).json()
    assert turned["count"] == len(inside)


def test_what_is_added_and_removed_is_on_the_map_at_once(client: httpx.Client, gallery: Gallery) -> None:
    def ids() -> set[str]:
        answer = client.get("/v1/map", params={"columns": 40, "rows": 40} | EVERYWHERE)
        return {image["id"] for image in answer.json()["images"]}

    before = ids()
    removed = next(iter(before))
    assert client.put(
        "/v1/images/new.png", content=png(pixels_of(77)), headers={"content-type": "image/png"}
    ).is_success
    assert client.delete(f"/v1/images/{removed}").is_success
    assert "new.png" in ids()
    assert removed not in ids()


def test_of_smaller_cells_the_image_of_the_larger_one_is_shown_again(client: httpx.Client, gallery: Gallery) -> None:
    """So that pictures stay while someone comes closer."""
    box = {"left": -1, "right": 1, "bottom": -1, "top": 1}
    coarse = client.get("/v1/map", params=box | {"columns": 4, "rows": 4}).json()["images"]
    fine = {
        image["id"]: image["rank"]
        for image in client.get("/v1/map", params=box | {"columns": 8, "rows": 8}).json()["images"]
    }
    assert {image["id"]: image["rank"] for image in coarse}.items() <= fine.items()
    assert len(set(fine.values())) == len(fine)


def test_a_region_is_the_filter_of_a_search_and_a_table(client: httpx.Client, gallery: Gallery) -> None:
    box = {"left": 0.0, "right": 0.5, "bottom": -0.5, "top": 0.25}
    places = {image_id(seed): place(seed) for seed in range(COUNT)}
    inside = sorted(id for id, (x, y) in places.items() if 0 <= x <= 0.5 and -0.5 <= y <= 0.25)
    table = client.get("/v1/map/images", params=box)
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(table.text.splitlines()))
    assert rows[0] == ["id", "number_1", "number_2"]
    assert [row[0] for row in rows[1:]] == inside
    assert [float(value) for value in rows[1][1:]] == pytest.approx(places[inside[0]], abs=2e-3)
    ranges = {"1": {"$gte": 0, "$lte": 0.5}, "2": {"$gte": -0.5, "$lte": 0.25}}
    body = {"id": image_id(0), "k": COUNT, "filter": {"$code": ranges}}
    found = client.post("/v1/search", json=body).json()["results"]
    assert {result["id"] for result in found} == set(inside) - {image_id(0)}
    wrong = client.post("/v1/search", json=body | {"filter": {"$code": {"999": {"$gte": 0}}}})
    assert wrong.status_code == 422
    assert "there is no coordinate 999" in wrong.json()["detail"]


def test_parts_are_coloured_by_the_commonest_value_of_a_field(client: httpx.Client, gallery: Gallery) -> None:
    """As a plain count has it; an image that comes or goes is counted at once."""
    field, cells = 'a "b".c', 4
    for seed in range(100, 130):
        values = json.dumps({field: ["x", "y", True, 3][seed % 4]} if seed % 5 else {})
        form = {"image": (image_id(seed), png(pixels_of(seed)), "image/png")}
        assert client.post("/v1/images", files=form, data={"metadata": values}).is_success
    params: dict[str, Any] = EVERYWHERE | {"columns": 40, "rows": 40, "parts": cells, "colour": field}
    answer = client.get("/v1/map", params=params).json()
    images = client.get("/v1/images", params={"limit": 200}).json()["images"]
    given = {image["id"]: image["metadata"].get(field) for image in images}
    texts = {id: {True: "true", 3: "3"}.get(value, value) for id, value in given.items() if value is not None}
    counted = Counter(texts.values())
    assert {entry["value"]: entry["count"] for entry in answer["legend"]} == counted
    assert [entry["count"] for entry in answer["legend"]] == sorted(counted.values(), reverse=True)
    names = [entry["value"] for entry in answer["legend"]]
    votes: dict[tuple[int, int], Counter[str | None]] = {}
    for image in images:
        x, y = place(int(re.sub(r"\D", "", image["id"])))
        votes.setdefault((int((y + 1) * cells / 2), int((x + 1) * cells / 2)), Counter())[texts.get(image["id"])] += 1
    for row in range(cells):
        for column in range(cells):
            entry = answer["commonest"][row][column]
            part = votes.get((row, column), Counter())
            assert part[None if entry < 0 else names[entry]] == max(part.values(), default=0)
    removed = next(id for id in texts if texts[id] == "x")
    assert client.delete(f"/v1/images/{removed}").is_success
    legend = client.get("/v1/map", params=params).json()["legend"]
    assert {entry["value"]: entry["count"] for entry in legend}["x"] == counted["x"] - 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"x": 9},
        {"x": 1, "y": 1},
        {"left": 0},
        {"left": 1, "right": 0, "bottom": 0, "top": 1},
        {"columns": 0},
        {"left": "nan"},
    ],
)
def test_what_is_no_region_is_refused(client: httpx.Client, parameters: dict[str, Any]) -> None:
    assert client.get("/v1/map", params=parameters).status_code == 422


class Drawn(NamedTuple):
    """A gallery and an engine of which only what a map asks for is there."""

    store: Any
    engine: Any

    def position_of(self, number: int) -> Position:
        return Position(0, 0)


class StandIn(SimpleNamespace):
    """Of an engine: other than its base, it can be referred to weakly."""


def drawn(count: int, changes: list[Changes]) -> Drawn:
    """A gallery of random codes, and what the store tells of its changes, call by call."""
    codes = np.random.default_rng(0).standard_normal((count, 8), dtype=np.float32)

    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    engine = StandIn(keys=np.arange(count), code_length=8, encoder_id="x", leading=lambda width: unit[:, :width])
    return Drawn(SimpleNamespace(changes=lambda since, encoder_id: changes.pop(0)), engine)


def changed(keys: list[int], codes: list[Any], removed: list[int], position: Position) -> Changes:
    return Changes(keys, codes, [{} for _ in keys], removed, position)


def test_an_image_whose_code_comes_later_is_looked_for_again() -> None:
    code = np.ones(8, dtype=np.float32)
    start, end = Position(0, 0), Position(100, 0)
    asked: list[Position] = []
    answers = [changed([100], [None], [], end), changed([100], [code], [], end), changed([], [], [], end)]
    gallery = drawn(50, [])

    def changes(since: Position, encoder_id: str) -> Changes:
        asked.append(since)
        return answers.pop(0)

    gallery.store.changes = changes
    seen = []
    plan = GalleryMap()
    for _ in range(3):
        plan.update(gallery, number=1, engine=gallery.engine)  # type: ignore[arg-type]
        region = plan.region(1, 2, Box(-2, 2, -2, 2), cells=(40, 40), parts=(1, 1))
        seen.append(region.count)
        plan.whole(1, 2 + len(seen))
        assert all(keys is plan._points[0] for keys, _ in plan._whole.values()), "none of before is kept in memory"
    assert seen == [50, 51, 51]
    assert asked == [start, start, end]


@pytest.mark.timing
def test_a_region_of_a_million_images_takes_less_than_a_tenth_of_a_second_while_images_come_and_go() -> None:
    code = np.ones(8, dtype=np.float32)
    events = [changed([10**7 + i], [code], [i], Position(10**7 + i, i)) for i in range(6)]
    gallery, plan = drawn(1_000_000, [changed([], [], [], Position(0, 0)), *events]), GalleryMap()
    plan.update(gallery, number=1, engine=gallery.engine)  # type: ignore[arg-type]
    took = []
    for scale in (4.0, 1.0, 0.1, 0.01, 2.0):
        begun = time.perf_counter()
        region = plan.region(1, 2, Box(-scale, scale, -scale, scale), cells=(24, 16), parts=(40, 40))
        took.append(time.perf_counter() - begun)
        assert region.count > 0
    assert np.median(took) < 0.1
    took.clear()
    for _ in events[:5]:
        begun = time.perf_counter()
        plan.update(gallery, number=1, engine=gallery.engine)  # type: ignore[arg-type]
        took.append(time.perf_counter() - begun)
    assert plan.region(1, 2, Box(-4, 4, -4, 4), cells=(1, 1), parts=(1, 1)).count == 1_000_000
    assert np.median(took) < 0.1
