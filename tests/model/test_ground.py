"""Things on a light ground, to an encoder that learned from things on black."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eigenlens.model.images.decode import load_square
from eigenlens.model.images.ground import are_on_black, show_on_black
from eigenlens.model.images.preprocessing import ON_BLACK, STANDARD

SIDE = 28
Grey = NDArray[np.uint8]


def boot(side: int = 280) -> Grey:
    """A light thing on black, as high as its picture, with a lighter and a darker part."""
    picture = np.zeros((side, side), np.uint8)
    picture[: side // 2, side // 5 : side // 2] = 180
    picture[side // 2 :, side // 5 : 4 * side // 5] = 220
    picture[-side // 8 :, side // 5 : 4 * side // 5] = 255
    return picture


def placed(thing: Grey, *, ground: int, height: int, width: int) -> Grey:
    """A picture in the middle of a larger one."""
    whole = np.full((height, width), ground, np.uint8)
    top, left = (height - len(thing)) // 2, (width - len(thing)) // 2
    whole[top : top + len(thing), left : left + len(thing)] = thing
    return whole


def seen(picture: Grey, *, preprocessing: int = ON_BLACK, format: str = "JPEG") -> NDArray[np.int_]:
    """What an encoder sees of a file of the picture."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format)
    pixels = load_square(file.getvalue(), SIDE, preprocessing=preprocessing)
    assert isinstance(pixels, np.ndarray)
    return pixels.astype(int)


@pytest.mark.parametrize("ground", [255, 235])
@pytest.mark.parametrize(("height", "width"), [(280, 280), (400, 900), (2000, 1500)])
def test_a_thing_on_a_light_ground_is_seen_as_on_black(ground: int, height: int, width: int) -> None:
    """A dark one is its negative; a light one, here in other proportions of light, stays light."""
    expected, thing = seen(boot(), preprocessing=STANDARD), boot(min(height, width) * 7 // 10)
    dark = (ground * (1 - thing / 255)).astype(np.uint8)
    light = np.where(thing > 0, thing // 2 + 50, ground).astype(np.uint8)
    assert abs(seen(placed(dark, ground=ground, height=height, width=width)) - expected).mean() < 6
    shown = seen(placed(light, ground=ground, height=height, width=width))
    assert ((shown > 100) == (expected > 100)).mean() > 0.95


@pytest.mark.parametrize("picture", ["on black", "textured", "dark photograph", "blank", "dust"])
def test_other_pictures_are_seen_as_they_are(picture: str) -> None:
    rng = np.random.default_rng(0)
    dust = np.full((280, 280), 255, np.uint8)
    dust[100:110, 90:96] = 0
    pictures = {
        "on black": boot(),
        "textured": (200 + rng.normal(0, 30, (280, 280))).clip(0, 255).astype(np.uint8),
        "dark photograph": rng.integers(0, 120, (280, 280), dtype=np.uint8),
        "blank": np.full((280, 280), 255, np.uint8),
        "dust": dust,
    }
    image = Image.fromarray(pictures[picture]).convert("RGB")
    assert show_on_black(image, SIDE) is image


def test_coloured_pictures_have_no_ground_to_restore() -> None:
    grey = np.repeat(boot(SIDE)[None, :, :, None], 3, axis=3)
    coloured = grey.copy()
    coloured[..., 2] //= 2
    assert are_on_black(grey)
    assert not are_on_black(coloured)
    assert not are_on_black(255 - grey)
