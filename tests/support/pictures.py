"""Small pictures and their files, for tests of decoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eigenlens.model.images.decode import FORMATS, decode
from tests.support.codes import encoded

Pixels = NDArray[np.uint8]


ORIENTATION = 0x0112


LOSSLESS: dict[str, dict[str, object]] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "BMP": {},
}


# With these options a flat or small picture survives within a few levels.
OPTIONS: dict[str, dict[str, object]] = LOSSLESS | {
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 10, "max_threads": 1},
    "GIF": {},
    "HEIF": {"quality": -1, "chroma": 444},
    "JPEG2000": {},
}
# Every format, and JPEGs of several pictures, which are JPEGs to whoever looks for one.
FILES = (*FORMATS, "MPO")


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(data: bytes) -> Pixels:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def as_file(array: Pixels, format: str, **more: object) -> bytes:
    return encoded(Image.fromarray(array), format, **(OPTIONS[format] | more))


def assert_close(found: Pixels, expected: Pixels, *, levels: int) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= levels


def flat(*colour: int, height: int = 8, width: int = 8) -> Pixels:
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (height, width, 3)).copy()
