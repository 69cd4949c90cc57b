"""What an encoder sees of a picture is the same by every way that it can take: codes by hand for each framing."""

from __future__ import annotations

import base64
import tarfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eigenlens.command import main
from eigenlens.model.images.preprocessing import FRAMINGS
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import (
    SIDE,
    admin_headers,
    code_of,
    pixels_of,
    png,
    serving,
    settings_of,
    stored_codes,
    wait_for,
    write_encoder,
)

Picture = NDArray[np.uint8]


def picture_of(seed: int) -> Picture:
    """Three squares above each other, or side by side for an odd seed; the middle one is that of all of its kind."""
    squares = [pixels_of(3 * seed + 100), pixels_of(seed % 2), pixels_of(3 * seed + 101)]
    return np.concatenate(squares, axis=seed % 2)


def seen_of(picture: Picture, framing: str) -> NDArray[np.float64]:
    """What the encoder answers, computed by hand."""
    axis = int(picture.shape[1] > picture.shape[0])
    first, centre, last = np.split(picture, 3, axis=axis)
    if framing == "whole":
        return code_of(np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return (
        np.mean([code_of(square) for square in (first, centre, last)], axis=0)
        if framing == "crops"
        else code_of(centre)
    )


def check(found: Any, picture: Picture, framing: str, *, shift: float = 127.5) -> None:
    """Compare codes of unit length: some ways store them so, in half precision."""
    found, expected = np.asarray(found, dtype=np.float64), seen_of(picture, framing) + 127.5 - shift
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-3)


def shares_of(picture: Picture, left: int, top: int, right: int, bottom: int) -> str:
    height, width = picture.shape[:2]
    return f"{left / width},{top / height},{right / width},{bottom / height}"


def code_in(answer: httpx.Response) -> NDArray[np.float64]:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["code"])


def write(folder: Path, seeds: range) -> Path:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        (folder / f"{seed}.png").write_bytes(png(picture_of(seed)))
    return folder


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_picture_has_one_code_by_every_way_that_it_can_take(tmp_path: Path, framing: str) -> None:
    encoder = write_encoder(tmp_path / "encoder", framing=framing)
    images, root = write(tmp_path / "images", range(40)), tmp_path / "gallery"
    build = ["build", "--gallery", str(root), "--lengths", "4"]
    assert main([*build, "--encoder", str(encoder), "--images", str(images)]) == 0
    built = stored_codes(Gallery(root))
    assert len(built) == 40
    for seed in range(40):  # more than fit into one call of the network
        check(built[f"{seed}.png"], picture_of(seed), framing)
    write(images, range(40, 42))
    assert main(["sync", "--gallery", str(root)]) == 0
    write(tmp_path / "more", range(42, 44))
    gallery = Gallery(root)
    with serving(settings_of(gallery, import_root=tmp_path)) as client:
        headers = admin_headers(gallery)
        started = client.post("/v1/admin/import", json={"folder": "more"}, headers=headers)
        job = started.raise_for_status().headers["location"]
        wait_for(lambda: client.get(job, headers=headers).json()["state"] == "done")
        files = [("image", (f"{seed}.png", png(picture_of(seed)))) for seed in (44, 45)]
        client.post("/v1/images", files=files, headers=headers).raise_for_status()
        client.put(
            "/v1/images/46.png", content=png(picture_of(46)), headers=headers | {"content-type": "image/png"}
        ).raise_for_status()
        for seed in (40, 41, 44, 45, 46):
            check(
                code_in(client.post("/v1/search?include=code", json={"id": f"{seed}.png"})), picture_of(seed), framing
            )
        for seed in (46, 47, 48):
            picture, image = picture_of(seed), png(picture_of(seed))
            check(code_in(client.post("/v1/search?include=code", files={"image": image})), picture, framing)
            text = base64.b64encode(image).decode()
            example = {"positive": [{"image": text}]}
            check(code_in(client.post("/v1/search?include=code", json=example)), picture, framing)
            body = {"input": [f"data:image/png;base64,{text}"], "model": "eigenlens", "modality": "image"}
            embedded = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
            check(embedded, picture, framing)
        # A part of a picture is framed as a picture of its own.
        wide = np.concatenate([picture_of(1), picture_of(3), picture_of(5)])
        asked = {"crop": shares_of(wide, 0, SIDE, 3 * SIDE, 2 * SIDE), "include": "code"}
        found = code_in(client.post("/v1/search", params=asked, files={"image": png(wide)}))
        check(found, picture_of(3), framing)
    # Another encoder encodes what is stored.
    other = write_encoder(tmp_path / "other", shift=100, framing=framing)
    assert main([*build, "--encoder", str(other)]) == 0
    again = stored_codes(Gallery(root))
    assert len(again) == 47
    for name, code in again.items():
        check(code, picture_of(int(Path(name).stem)), framing, shift=100)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_shards_are_encoded_as_a_build_encodes(tmp_path: Path, framing: str) -> None:
    encoder = write_encoder(tmp_path / "encoder", framing=framing)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(write(tmp_path / "images", range(40)), arcname="")
    encode = ["encode", "--encoder", str(encoder), "--images", str(tmp_path / "shard.tar")]
    assert main([*encode, "--out", str(tmp_path / "codes")]) == 0
    root = tmp_path / "gallery"
    build = ["build", "--encoder", str(encoder), "--gallery", str(root), "--lengths", "4"]
    assert main([*build, "--codes", str(tmp_path / "codes")]) == 0
    codes = stored_codes(Gallery(root))
    assert len(codes) == 40
    for name, code in codes.items():
        check(code, picture_of(int(Path(name).stem)), framing)
