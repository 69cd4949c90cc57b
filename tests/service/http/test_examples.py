"""Search by examples over a real socket, beside a plain computation."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from eigenlens import Client
from eigenlens.command import main
from eigenlens.service.gallery.layout import Gallery
from tests.support.codes import encoded
from tests.support.service import client_fixture, code_of, gallery_fixture, image_id, pixels_of, png

COUNT = 40
gallery = gallery_fixture(count=COUNT)
client = client_fixture()


def unit(seed: int) -> np.ndarray[Any, Any]:
    code = code_of(pixels_of(seed))
    return code / np.linalg.norm(code)


def expected(positive: list[int], negative: list[int], *, without: set[int], length: int = 12) -> list[str]:
    code = np.mean([unit(seed) for seed in positive], 0)
    if negative:
        code = 2 * code - np.mean([unit(seed) for seed in negative], 0)
    prefix = code[:length] / np.linalg.norm(code[:length])
    scores = {
        seed: float(unit(seed)[:length] / np.linalg.norm(unit(seed)[:length]) @ prefix)
        for seed in range(COUNT)
        if seed not in without
    }
    return [image_id(seed) for seed in sorted(scores, key=lambda seed: -scores[seed])]


@pytest.mark.parametrize("length", [4, 12])
def test_the_results_are_those_of_the_combined_code(client: httpx.Client, length: int) -> None:
    image = base64.b64encode(png(pixels_of(3))).decode()
    body = {
        # Seeds 1 and 2 are images of the gallery, named by their ids, and are left out; 3 is one as well, but sent.
        "positive": [{"id": image_id(1)}, {"image": image}, {"code": code_of(pixels_of(100)).tolist()}],
        "negative": [{"id": image_id(2)}, {"code": code_of(pixels_of(101)).tolist()}],
        "k": 10,
        "length": length,
    }
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    ids = [result["id"] for result in answer.json()["results"]]
    assert ids == expected([1, 3, 100], [2, 101], without={1, 2}, length=length)[:10]
    # All that are left, page by page, and in a batch.
    batch = client.post("/v1/search/batch", json={"searches": [body, body], "k": 50, "length": length}).json()
    assert [[r["id"] for r in item["answer"]["results"]] for item in batch["answers"]] == [ids, ids]
    rest = client.post("/v1/search", json={**body, "offset": 10, "k": 50}).json()["results"]
    assert ids + [result["id"] for result in rest] == expected([1, 3, 100], [2, 101], without={1, 2}, length=length)


def test_the_client_and_the_command_search_by_examples(
    client: httpx.Client, gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(pixels_of(100)))
    with Client(str(client.base_url)) as python:
        answer = python.search_like([image_id(1), file], [png(pixels_of(101))], k=3)
    assert [result.id for result in answer.results] == expected([1, 100], [101], without={1})[:3]
    command = ["search", "--url", str(client.base_url), "--k", "3", "--like", image_id(1), "--like", str(file)]
    assert main([*command, "--unlike", image_id(5)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:4]
    assert all(name in line for name, line in zip(expected([1, 100], [5], without={1, 5}), lines, strict=False))
    assert main(["search", "--unlike", "a"]) == 1
    assert "give an image file, --id, --like" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"positive": []}, 422, "positive"),
        ({"positive": [{}]}, 422, "exactly one of image"),
        ({"positive": [{"id": "a", "code": [1.0]}]}, 422, "exactly one of image"),
        ({"negative": [{"id": image_id(1)}]}, 422, "positive"),
        ({"positive": [{"id": "nowhere.png"}]}, 404, "nowhere.png"),
        ({"positive": [{"code": [1.0]}]}, 422, "12"),
        ({"positive": [{"image": "aGVsbG8="}]}, 415, "no image"),
        ({"positive": [{"id": image_id(1)}], "id": image_id(2)}, 422, "exactly one"),
        ({"positive": [{"id": image_id(1)}] * 21}, 422, "20"),
    ],
)
def test_what_is_refused_is_told(client: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.text


@pytest.mark.parametrize(
    ("crop", "box"), [((0.5, 0.0, 1.0, 1.0), (10, 0, 20, 10)), ((0.13, 0.2, 0.42, 0.21), (3, 2, 8, 3))]
)
def test_a_part_of_an_image_is_searched_as_that_part_alone_would_be(
    client: httpx.Client,
    tmp_path: Path,
    crop: tuple[float, ...],
    box: tuple[int, int, int, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = Image.fromarray(np.random.default_rng(5).integers(0, 256, (10, 20, 3), dtype=np.uint8))
    alone = client.post("/v1/search", files={"image": encoded(whole.crop(box), "PNG")}).json()["results"]
    image = encoded(whole, "PNG")
    text = ",".join(map(str, crop))
    answers = [
        client.post("/v1/search", params={"crop": text}, files={"image": image}),
        client.post("/v1/search", data={"crop": text}, files={"image": image}),
        client.post("/v1/search", json={"image": base64.b64encode(image).decode(), "crop": crop}),
    ]
    assert [answer.json()["results"] for answer in answers] == [alone] * 3
    address = str(client.base_url)
    with Client(address) as asking:
        assert [result.id for result in asking.search(image, crop=list(crop)).results] == [r["id"] for r in alone]
    path = tmp_path / "whole.png"
    path.write_bytes(image)
    assert main(["search", str(path), "--crop", text, "--url", address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == alone
    assert [r["id"] for r in client.post("/v1/search", files={"image": image}).json()["results"]] != [
        r["id"] for r in alone
    ]


@pytest.mark.parametrize("crop", [[0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 1.1], [-0.1, 0, 1, 1], ["a", 0, 1, 1]])
def test_what_is_no_part_of_an_image_is_refused(client: httpx.Client, crop: list[Any]) -> None:
    image = base64.b64encode(png(pixels_of(3))).decode()
    assert client.post("/v1/search", json={"image": image, "crop": crop}).status_code == 422
    text = {"crop": ",".join(map(str, crop))}
    assert client.post("/v1/search", params=text, files={"image": png(pixels_of(3))}).status_code == 422


def test_only_of_an_image_that_is_sent_a_part_is_searched(client: httpx.Client) -> None:
    for query in ({"id": image_id(1)}, {"positive": [{"id": image_id(1)}]}):
        refused = client.post("/v1/search", json={**query, "crop": [0, 0, 0.5, 0.5]})
        assert refused.status_code == 422
        assert "crop takes a part of an image" in refused.json()["detail"]
