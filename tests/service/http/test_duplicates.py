"""Duplicates of a whole gallery over a real socket: the job, its pages, the client and the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from eigenlens import Client
from eigenlens.command import main
from eigenlens.service.gallery import duplicates
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import admin_headers, client_fixture, gallery_fixture, image_id, pixels_of, png

gallery = gallery_fixture(count=12, scope="function")
client = client_fixture(scope="function", admin=True)


def key_of(gallery: Gallery) -> str:
    return admin_headers(gallery)["Authorization"].removeprefix("Bearer ")


def test_copies_and_near_duplicates_are_grouped_with_the_best_first(
    client: httpx.Client,
    gallery: Gallery,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = client.get("/v1/duplicates")
    assert answer.status_code == 200
    assert answer.json() == {"groups": [], "total": 0} | dict.fromkeys(("cosine", "generation", "found", "next"))
    command = ["duplicates", "--url", str(client.base_url), "--key-file", str(gallery.root / "admin.key")]
    assert main([*command, "--listed"]) == 1
    assert "without --listed, this command looks for them" in capsys.readouterr().err

    with Client(str(client.base_url), key=key_of(gallery)) as python:
        # A copy of the same bytes; a larger version; one that is nearly the same; and another picture.
        original = png(pixels_of(0))
        large = tmp_path / "large.png"
        Image.fromarray(pixels_of(1)).resize((8, 8), Image.Resampling.NEAREST).save(large)
        near = (pixels_of(2) + np.array([1, -1, 1])).clip(0, 255).astype(np.uint8)
        python.add({"copy.png": original, "large.png": large.read_bytes(), "near.png": png(near)})

        *_, job = python.follow(python.find_duplicates(cosine=0.97).id)
        assert job.state == "done", job.error
        assert job.result == {"groups": 3, "images": 6, "exact_groups": 1}
        groups = {tuple(image.id for image in group.images): group for group in python.duplicates().groups}
        assert groups[image_id(0), "copy.png"].exact
        assert not groups["large.png", image_id(1)].exact
        assert {image_id(2), "near.png"} in map(set, groups)
        assert all(group.images[0].cosine == 1 and group.images[1].cosine >= 0.97 for group in groups.values())
        assert len(python.duplicates(exact=True).groups) == 1
        assert len(python.duplicates(exact=False).groups) == 2

        # Pages, and what is removed afterwards.
        first = client.get("/v1/duplicates", params={"limit": 1}).json()
        second = client.get("/v1/duplicates", params={"limit": 2, "after": first["next"]}).json()
        assert [len(page["groups"]) for page in (first, second)] == [1, 2]
        assert (first["total"], first["cosine"], first["generation"], second["next"]) == (3, 0.97, 1, None)
        # A call looks at so many groups and no more, whatever it is asked for; the next page goes on from there.
        monkeypatch.setattr("eigenlens.service.http.routes.duplicates._MAX_LOOKED_AT", 1)
        pages = [client.get("/v1/duplicates", params={"exact": True, "after": after}).json() for after in range(3)]
        assert sorted(len(page["groups"]) for page in pages) == [0, 0, 1]
        assert [page["next"] for page in pages] == [1, 2, None]
        assert len(python.duplicates(exact=True).groups) == 1
        monkeypatch.undo()
        python.remove("copy.png")
        assert len(python.duplicates().groups) == 2

    capsys.readouterr()
    assert main([*command, "--cosine", "0.97"]) == 0
    text = capsys.readouterr().out
    assert "2 groups, 4 images; keeping the first of each leaves 2 fewer" in text
    assert "1.000  8 x 8  large.png" in text
    assert main([*command, "--listed", "--json"]) == 0
    assert [len(group["images"]) for group in json.loads(capsys.readouterr().out)] == [2, 2]
    assert main([*command, "--listed", "--exact"]) == 0
    assert "0 groups, 0 images" in capsys.readouterr().out


def test_links_do_not_chain_images_that_are_less_and_less_alike(
    gallery: Gallery,
) -> None:
    """Each is near enough to the next, and the last is nothing like the first: each group is near its best image."""
    step = np.arccos(0.985)
    keys = gallery.store.contents()[0].tolist()
    codes = {key: np.array([np.cos(i * step), np.sin(i * step)], dtype=np.float32) for i, key in enumerate(keys)}
    engine = SimpleNamespace(code_length=2, codes_of=lambda asked: {key: codes[key] for key in asked})
    records = list(gallery.store.records(keys).values())
    groups = list(duplicates._divide(gallery, engine, records, cosine=0.98))
    in_groups = [key for group in groups for key in group]
    assert len(set(in_groups)) == len(in_groups) >= 8
    for group in groups:
        best = codes[next(iter(group))]
        assert 2 <= len(group) <= 3
        assert list(group.values()) == pytest.approx([float(codes[key] @ best) for key in group], abs=1e-5)
        assert min(group.values()) >= 0.98


def test_what_is_refused(client: httpx.Client, gallery: Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    for body in ({"cosine": 0.2}, {"cosine": "much"}, {"threshold": 0.9}):
        assert client.post("/v1/admin/duplicates", json=body).status_code == 422
    assert client.get("/v1/duplicates", params={"limit": 0}).status_code == 422
    assert httpx.post(f"{client.base_url}/v1/admin/duplicates").status_code == 401
    with pytest.raises(SystemExit):
        main(["duplicates", "--cosine", "2"])
    assert "'2' is not a number from 0.5 to 1" in capsys.readouterr().err
    (gallery.root / "duplicates.npz").write_bytes(b"PK\x03\x04 damaged")
    answer = client.get("/v1/duplicates")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/artifact-damaged")
    assert "look for duplicates again" in answer.json()["detail"]
