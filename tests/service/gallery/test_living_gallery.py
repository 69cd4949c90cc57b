"""A gallery that changes while it is served: what was acknowledged is found, what was removed is not."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.service.gallery.layout import Gallery
from tests.support.living import COUNT, add, client, gallery, nearest, rebuild
from tests.support.service import (
    CODE_LENGTH,
    code_of,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
)

__all__ = ["client", "gallery"]
NESTED = '{"x":' * 100 + "1" + "}" * 100
JSON = {"content-type": "application/json"}
HALF_A_PAIR = b'{"id": "even/0000.png", "filter": {"\\ud800": {"$like": 1}}}'


def test_an_added_image_is_found_by_the_next_search_and_after_a_rebuild(client: httpx.Client) -> None:
    body = add(client, [500, 501])
    assert (body["added"], body["failed"]) == (2, [])
    for parameters in ({}, {"length": 2}, {"length": 4, "rerank": "full"}, {"length": CODE_LENGTH}):
        assert nearest(client, 500, **parameters)[0] == "new/500.png", parameters
    lengths = client.get("/v1/lengths").json()
    assert (lengths["count"], lengths["pending"]) == (COUNT + 2, 2)
    assert rebuild(client)["state"] == "done"
    lengths = client.get("/v1/lengths").json()
    assert (lengths["count"], lengths["pending"], lengths["generation"]) == (COUNT + 2, 0, 2)
    assert nearest(client, 501)[0] == "new/501.png"


def test_scores_are_the_same_in_the_delta_and_in_a_generation(client: httpx.Client) -> None:
    add(client, [600])
    asked = {"id": "new/600.png", "k": 5, "length": 4}
    before = client.post("/v1/search", json=asked).json()["results"]
    rebuild(client)
    after = client.post("/v1/search", json=asked).json()["results"]
    assert [result["id"] for result in before] == [result["id"] for result in after]
    np.testing.assert_allclose([r["score"] for r in before], [r["score"] for r in after], atol=1e-3)
    expected = code_of(pixels_of(600))[:4]
    top = code_of(next(pixels_of(seed) for seed in range(COUNT) if image_id(seed) == before[0]["id"]))[:4]
    cosine = expected @ top / np.linalg.norm(expected) / np.linalg.norm(top)
    assert before[0]["score"] == pytest.approx(cosine, abs=1e-3)


def test_a_removed_image_is_never_returned_again(client: httpx.Client) -> None:
    add(client, [500])
    for id, seed in ((image_id(5), 5), ("new/500.png", 500)):
        assert nearest(client, seed)[0] == id
        assert client.delete(f"/v1/images/{id}").status_code == 204
        assert id not in nearest(client, seed, k=100)
        assert client.delete(f"/v1/images/{id}").status_code == 404
        assert len(nearest(client, seed, length=CODE_LENGTH)) == 3, "others take its place"
        assert len(nearest(client, seed, filter='{"label": {"$exists": true}}')) == 3
    assert client.get("/v1/lengths").json()["count"] == COUNT - 1
    rebuild(client)
    assert client.get("/v1/lengths").json()["removed"] == 0
    for id, seed in ((image_id(5), 5), ("new/500.png", 500)):
        assert id not in nearest(client, seed, k=100)


def test_a_replaced_image_is_found_by_its_new_content_alone(client: httpx.Client) -> None:
    id = image_id(6)
    response = client.put(f"/v1/images/{id}", content=png(pixels_of(777)), headers={"content-type": "image/png"})
    assert response.status_code == 200
    assert nearest(client, 777)[0] == id
    assert nearest(client, 6)[0] != id
    assert client.get(f"/v1/images/{id}/content").content == png(pixels_of(777))
    assert len(nearest(client, 6, k=100)) == COUNT
    created = client.put("/v1/images/other/a.png", files={"image": png(pixels_of(778))})
    assert created.status_code == 201
    assert nearest(client, 778)[0] == "other/a.png"


def test_metadata_is_patched_and_filtered_by(client: httpx.Client) -> None:
    assert set(nearest(client, 1, k=100, filter='{"label": "odd"}')) == {image_id(s) for s in range(1, COUNT, 2)}
    changed = client.patch(f"/v1/images/{image_id(2)}", json={"metadata": {"price": 7, "label": None}})
    assert changed.json()["metadata"] == {"price": 7}
    add(client, [500, 501], metadata=json.dumps([{"price": 9, "label": "odd"}, {"tags": ["x"]}]))
    for _ in range(2):
        assert set(nearest(client, 1, k=100, filter='{"price": {"$gt": 5}}')) == {image_id(2), "new/500.png"}
        assert nearest(client, 1, k=100, filter='{"tags": "x"}') == ["new/501.png"]
        odd = {image_id(s) for s in range(1, COUNT, 2)} | {"new/500.png"}
        assert set(nearest(client, 1, k=100, filter='{"label": "odd"}')) == odd
        assert nearest(client, 1, filter='{"label": "none"}') == []
        rebuild(client)
    assert client.get("/v1/lengths").json()["filters"]["price"] == ["number"]
    assert client.get(f"/v1/images/{image_id(2)}/content").status_code == 200


def test_one_bad_image_fails_alone(client: httpx.Client) -> None:
    files = [("image", ("good.png", png(pixels_of(1)))), ("image", ("bad.png", b"no image"))]
    body = client.post("/v1/images", files=files).json()
    assert body["images"] == [{"id": "good.png", "status": "added", "note": None}]
    assert [item["id"] for item in body["failed"]] == ["bad.png"]
    assert "no image that can be read" in body["failed"][0]["reason"]
    assert client.get("/v1/images/bad.png").status_code == 404
    again = client.post("/v1/images", files=files[:1]).json()
    assert again["unchanged"] == 1
    large = client.post("/v1/images", files=[*files[:1], ("image", ("large.png", b"0" * 300_000))]).json()
    assert [item["status"] for item in large["images"]] == ["unchanged"]
    assert "at most 200000 are taken" in large["failed"][0]["reason"]


def test_metadata_that_two_patches_make_too_large_are_refused(client: httpx.Client) -> None:
    path = f"/v1/images/{image_id(2)}"
    assert client.patch(path, json={"metadata": {"a": "x" * 40_000}}).status_code == 200
    answer = client.patch(path, json={"metadata": {"b": "x" * 40_000}})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/request")
    assert set(client.get(path).json()["metadata"]) == {"label", "a"}


def test_a_filter_by_one_is_not_answered_from_a_filter_by_true(client: httpx.Client) -> None:
    add(client, [500, 501], metadata=json.dumps([{"sold": 1}, {"sold": True}]))
    rebuild(client)
    assert nearest(client, 1, filter='{"sold": 1}') == ["new/500.png"]
    assert nearest(client, 1, filter='{"sold": true}') == ["new/501.png"]


def test_metadata_that_were_edited_are_kept_where_that_is_asked_for(client: httpx.Client) -> None:
    add(client, [500], metadata=json.dumps({"price": 1}))
    files = {"image": ("new/500.png", png(pixels_of(500)))}
    kept = client.post("/v1/images", params={"keep_metadata": True}, files=files, data={"metadata": '{"price": 2}'})
    assert kept.json()["unchanged"] == 1
    assert client.get("/v1/images/new/500.png").json()["metadata"] == {"price": 1}
    assert client.post("/v1/images", files=files, data={"metadata": '{"price": 2}'}).json()["replaced"] == 1


def test_images_come_as_json_too(client: httpx.Client) -> None:
    image = base64.b64encode(png(pixels_of(900))).decode()
    body = {"images": [{"id": "a/b", "image": image, "metadata": {"n": 1}}]}
    assert client.post("/v1/images", json=body).json()["added"] == 1
    assert client.get("/v1/images/a/b").json()["metadata"] == {"n": 1}
    assert nearest(client, 900)[0] == "a/b"


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status"),
    [
        ("POST", "/v1/images", {"data": {"x": "y"}}, 415),
        ("POST", "/v1/images", {"json": {"images": []}}, 422),
        ("POST", "/v1/images", {"json": {"images": [{"id": "../x", "image": ""}]}}, 422),
        ("POST", "/v1/images", {"json": {"images": [{"id": "x", "image": "!"}]}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a/content", b"")}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"id": ["b", "c"]}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"metadata": "{"}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"metadata": "[]"}}, 422),
        ("PUT", "/v1/images/x", {"content": b"no image", "headers": {"content-type": "image/png"}}, 415),
        ("PUT", "/v1/images/x", {"content": b"{}", "headers": {"content-type": "application/json"}}, 415),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"metadata": '{"x": NaN}'}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"metadata": '{"x": "\\ud800"}'}}, 422),
        ("POST", "/v1/images", {"files": {"image": ("a", b"")}, "data": {"metadata": NESTED}}, 422),
        ("PATCH", "/v1/images/even/0000.png", {"content": b'{"metadata": {"x": Infinity}}'}, 422),
        ("PUT", "/v1/images/x", {"content": b"0" * 300_000, "headers": {"content-type": "image/png"}}, 413),
        ("POST", "/v1/search", {"content": b'{"id": "\\ud800"}', "headers": JSON}, 404),
        ("POST", "/v1/search", {"content": HALF_A_PAIR, "headers": JSON}, 422),
        ("PATCH", "/v1/images/none", {"json": {"metadata": {}}}, 404),
        ("PATCH", "/v1/images/even/0000.png", {"json": {"metadata": {"x": "y" * 70_000}}}, 422),
        ("DELETE", "/v1/images/none", {}, 404),
        ("POST", "/v1/admin/generations/9/activate", {}, 404),
        ("POST", "/v1/admin/jobs/none/cancel", {}, 404),
        ("POST", "/v1/admin/rebuild", {"json": {"kinds": {"4": "annoy"}}}, 422),
        ("POST", "/v1/admin/rebuild", {"json": {"lengths": [4], "kinds": {"2": "flat"}}}, 422),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    client: httpx.Client, method: str, path: str, arguments: dict[str, Any], status: int
) -> None:
    response = client.request(method, path, **arguments)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    lengths = client.get("/v1/lengths").json()
    assert (lengths["count"], lengths["pending"], lengths["removed"]) == (COUNT, 0, 0)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/images"),
        ("PUT", "/v1/images/x"),
        ("PATCH", "/v1/images/x"),
        ("DELETE", "/v1/images/x"),
        ("GET", "/v1/admin/generations"),
        ("POST", "/v1/admin/generations/1/activate"),
        ("POST", "/v1/admin/jobs/x/cancel"),
    ],
)
def test_changes_need_the_key(client: httpx.Client, method: str, path: str) -> None:
    client.headers["Authorization"] = "Bearer wrong"
    assert client.request(method, path, json={"metadata": {}}).status_code == 401


def test_what_one_service_writes_another_finds(
    client: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings_of(gallery)) as second:
        add(client, [500])
        wait_for(lambda: nearest(second, 500)[0] == "new/500.png", timeout_s=3)
    monkeypatch.setattr("eigenlens.service.http.startup._FOLLOW_EVERY_S", 1000)
    with serving(settings_of(gallery)) as second:
        client.delete("/v1/images/new/500.png")
        found = nearest(second, 500)
        assert "new/500.png" not in found, "removals hold at once, everywhere"
        assert len(found) == 3, "and another takes the place"


def test_an_answer_tells_when_a_rebuild_would_pay_and_what_it_saves(client: httpx.Client) -> None:
    def advice() -> list[dict[str, Any] | None]:
        answer = client.post("/v1/search?k=1", files={"image": png(pixels_of(1))}).json()
        return [answer.get("rebuild_advice"), client.get("/v1/admin/stats").json()["rebuild_advice"]]

    for seed in range(8):
        client.delete(f"/v1/images/{image_id(seed)}").raise_for_status()
    assert advice() == [None, None]
    for seed in range(8, 10):
        client.delete(f"/v1/images/{image_id(seed)}").raise_for_status()
    told, shown = advice()
    assert told == shown
    assert told is not None
    assert told["reason"] == "10 of 30 images in the indexes were removed since the build"
    assert told["gain_bytes"] > 10 * 2 * CODE_LENGTH
    assert rebuild(client)["state"] == "done"
    assert advice() == [None, None]
