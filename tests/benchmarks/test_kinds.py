"""Photographs that find their kind in a gallery, that are told to be unlike it, and that are neither."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eigenlens.benchmarks.encoder import kinds
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import FolderSource, SourceImage, open_source
from eigenlens.service.client import Client
from tests.support import oracles
from tests.support.codes import encoded
from tests.support.service import build_gallery, code_of, image_id, pixels_of, png, serving, settings_of

IMAGES, STRANGERS = 60, 4


def test_shares_of_the_kind_and_of_what_is_told_are_those_of_plain_cosines(tmp_path: Path) -> None:
    codes = np.stack([code_of(pixels_of(seed)) for seed in range(IMAGES)])
    seeds = range(5000, 9000)
    far = oracles.scatter_distance(np.stack([code_of(pixels_of(seed)) for seed in seeds]), codes)
    strangers = [seeds[place] for place in np.argsort(far)[-STRANGERS:]]
    asked = [*range(STRANGERS), *strangers]
    photographs = [SourceImage(f"{seed}.png", png(pixels_of(seed))) for seed in asked]
    scores = oracles.cosine(np.stack([code_of(pixels_of(seed)) for seed in asked]), codes, length=12)
    of_kind = np.mean(np.argsort(-scores, axis=1)[:, :10] % 2 == 0, axis=1)  # images of even numbers are labelled so
    with serving(settings_of(build_gallery(tmp_path, count=IMAGES))) as served, Client(str(served.base_url)) as client:
        shares = kinds._measure(client, photographs, ("even",))
        nothing = kinds._measure(client, photographs[:STRANGERS], ("no such label",))
        itself = kinds._measure(client, [SourceImage(image_id(0), png(pixels_of(0)))], ("even",))
    assert shares["of_kind"] == pytest.approx(np.mean(of_kind), abs=1e-4)
    assert shares["at_least_half"] == np.mean(of_kind >= 0.5)
    assert shares["told"] == 0.5  # the strangers, and not the gallery's own images
    assert itself["of_kind"] == pytest.approx(np.mean(np.argsort(-scores[0])[1:11] % 2 == 0), abs=1e-4)
    assert nothing == {"of_kind": 0, "at_least_half": 0, "told": 0, "neither": 1}


def test_only_classes_that_have_a_kind_are_asked_and_not_more_than_wanted(tmp_path: Path) -> None:
    for label in ("shoes", "pants", "hat"):
        (tmp_path / label).mkdir()
        for seed in range(3):
            (tmp_path / label / f"{seed}.png").write_bytes(png(pixels_of(seed)))
    chosen = kinds._choose(open_source(str(tmp_path)), 2)
    assert {name: len(images) for name, images in chosen.items()} == {"pants": 2, "shoes": 2}
    with pytest.raises(ConfigError, match="dress, longsleeve"):
        kinds._choose(FolderSource(tmp_path / "hat"), 2)


def test_a_thing_on_black_is_shown_as_shops_do() -> None:
    thing = np.zeros((28, 28), np.uint8)
    thing[4:24, 8:20] = 230
    shown = np.asarray(Image.open(io.BytesIO(kinds._on_white(encoded(Image.fromarray(thing), "PNG")))))
    assert shown.shape == (600, 800)
    assert shown[0].min() > 250
    assert shown[300, 400] == pytest.approx(25, abs=3)
