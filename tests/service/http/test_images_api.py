"""Images of the gallery over HTTP: bytes, thumbnails, caching, ids with slashes and spaces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery import thumbnails
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.progress import Progress
from tests.support.service import build_gallery, image_id, pixels_of, png, serving, settings_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    gallery = build_gallery(folder, count=6)
    photographs = folder / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 255, (300, 900, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(photographs / "turned é.jpg", exif=exif)
    encoder = Encoder(folder / "encoder")
    with gallery.writing():
        add_images(gallery, encoder, FolderSource(photographs), Progress())
        publish_generation(gallery, encoder, Progress(), GenerationOptions(lengths=[4]))
    with serving(settings_of(gallery)) as running:
        yield running


@pytest.mark.parametrize("path", [image_id(3), quote(image_id(3)), quote(image_id(3), safe="")])
def test_an_id_with_slashes_and_spaces_is_found_quoted_or_not(client: httpx.Client, path: str) -> None:
    assert client.get(f"/v1/images/{path}/content").content == png(pixels_of(3))
    assert client.get(f"/v1/images/{path}").json()["id"] == image_id(3)


def test_a_record_tells_what_is_known(client: httpx.Client) -> None:
    record = client.get(f"/v1/images/{image_id(2)}").json()
    assert record["metadata"] == {"label": "even"}
    assert (record["width"], record["height"], record["media_type"]) == (2, 2, "image/png")


def test_a_thumbnail_is_small_upright_and_never_enlarged(client: httpx.Client) -> None:
    turned = client.get(f"/v1/images/{quote('turned é.jpg')}/thumbnail")
    picture = Image.open(io.BytesIO(turned.content))
    assert picture.size == (64, 192)
    assert turned.headers["content-type"] == "image/jpeg"
    assert client.get(f"/v1/images/{quote('turned é.jpg')}").json()["width"] == 300
    small = client.get(f"/v1/images/{image_id(0)}/thumbnail")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(small.content))), pixels_of(0))


@pytest.mark.parametrize("kind", ["content", "thumbnail"])
def test_an_image_that_is_known_is_not_sent_again(client: httpx.Client, kind: str) -> None:
    address = client.get(f"/v1/images/{image_id(1)}").json()[kind]
    first = client.get(address)
    assert "immutable" in first.headers["cache-control"]
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    unnamed = client.get(f"/v1/images/{image_id(1)}/{kind}")
    assert "no-cache" in unnamed.headers["cache-control"]


def test_a_thumbnail_that_looks_different_has_another_address(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.get(f"/v1/images/{image_id(1)}").json()
    tag = client.get(before["thumbnail"]).headers["etag"]
    monkeypatch.setattr(thumbnails, "VERSION", thumbnails.VERSION + 1)
    after = client.get(f"/v1/images/{image_id(1)}").json()
    assert (after["content"], after["thumbnail"] == before["thumbnail"]) == (before["content"], False)
    old = client.get(before["thumbnail"], headers={"If-None-Match": tag})
    assert (old.status_code, old.headers["cache-control"]) == (200, "private, no-cache")


def test_images_are_sent_as_what_they_are_and_nothing_else(client: httpx.Client) -> None:
    response = client.get(f"/v1/images/{image_id(1)}/content")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["nothing.png", "../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "%00", "a/b/c/content"])
@pytest.mark.parametrize("kind", ["", "/content", "/thumbnail"])
def test_an_unknown_id_is_not_found(client: httpx.Client, path: str, kind: str) -> None:
    response = client.get(f"/v1/images/{path}{kind}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_file_that_was_changed_or_removed_is_gone_and_says_so(client: httpx.Client, folder: Path) -> None:
    path = folder / "images" / image_id(4)
    original = path.read_bytes()
    try:
        path.write_bytes(png(pixels_of(99)))
        changed = client.get(f"/v1/images/{image_id(4)}/content")
        path.unlink()
        removed = client.get(f"/v1/images/{image_id(4)}/content")
    finally:
        path.write_bytes(original)
    assert (changed.status_code, removed.status_code) == (410, 410)
    assert "was changed" in changed.json()["detail"]
    assert "cannot be read" in removed.json()["detail"]
