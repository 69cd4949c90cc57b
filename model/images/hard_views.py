"""Hard views of photographs: another cut, another angle, another light, as if the same thing were taken again.

Settings of a head are chosen by hard views of photographs that it was not fitted to: nearly every setting finds a
photograph by a mild view, and what finds it by a hard one is more likely to find another photograph of the thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from eigenlens.model.images.decode import View
from eigenlens.model.images.sources import Source, SourceImage

HARD_VIEWS = 1
"""The version of how they are drawn: features of another one are not those of this."""
# Share of the picture's area that a cut keeps, and by how much its sides may change.
_AREA, _RATIO = (0.2, 0.8), 1.5
# A corner of the view lies up to this share of a side inside of the cut's.
_CORNER = 0.2
SCALE = 1 / math.sqrt(_AREA[0])
"""A cut keeps a part of a side only: so many more pixels are needed."""
_LIGHT, _TINT, _GAMMA = 0.4, 0.13, 0.28
_LEAST_SIDE = 8


class HardViews:
    """One hard view of each image of a source, always the same one.

    views = HardViews(open_source("~/Pictures"))
    squares = [view.load(224) for view in views]
    """

    def __init__(self, source: Source, *, seed: int = 0) -> None:
        self._source, self._seed = source, seed
        self.name = f"hard views of {source.name}" + (f", seed {seed}" if seed else "")
        self.skipped = source.skipped

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        for position, image in enumerate(self._source):
            yield hard_view_of(image, seed=(self._seed, position))


def hard_view_of(image: SourceImage, *, seed: tuple[int, int]) -> SourceImage:
    """Return an image that loads as a hard view of another, the same one for the same seed."""
    return replace(image, view=View(lambda picture: hard_view(picture, np.random.default_rng(seed)), SCALE))


def hard_view(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw a hard view of an RGB picture: a cut seen from another angle in another light, never mirrored."""
    return _in_other_light(_from_another_angle(_cut(picture, rng), rng), rng)


def _cut(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = picture.size
    area, ratio = rng.uniform(*_AREA), math.exp(rng.uniform(-math.log(_RATIO), math.log(_RATIO)))
    cut_width = min(width, max(_LEAST_SIDE, round(width * math.sqrt(area * ratio))))
    cut_height = min(height, max(_LEAST_SIDE, round(height * math.sqrt(area / ratio))))
    left, top = (round(rng.uniform(0, side)) for side in (width - cut_width, height - cut_height))
    return picture.crop((left, top, left + cut_width, top + cut_height))


def _from_another_angle(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw four corners inside of the picture and stretch what is between them to the whole."""
    width, height = picture.size
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)], dtype=np.float64)
    inwards = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * (width, height)
    seen = corners + inwards * rng.uniform(0, _CORNER, (4, 2))
    # u = (a x + b y + c) / (g x + h y + 1), v = (d x + e y + f) / (g x + h y + 1) at each corner: eight equations.
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, seen, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values))
    return picture.transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BICUBIC
    )


def _in_other_light(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, the tint of the light and gamma."""
    brightness, contrast = rng.uniform(1 - _LIGHT, 1 + _LIGHT, 2)
    tint, gamma = rng.uniform(1 - _TINT, 1 + _TINT, 3), math.exp(rng.uniform(-_GAMMA, _GAMMA))
    light = np.asarray(picture, dtype=np.float32) / 255 * np.float32(brightness)
    grey = light.mean()
    light = ((light - grey) * np.float32(contrast) + grey) * tint.astype(np.float32)
    return Image.fromarray((light.clip(0, 1) ** np.float32(gamma) * 255).round().astype(np.uint8))
