"""The ground of pictures: where an encoder learned from things on black, a thing on a light ground is shown so too.

Shops photograph a thing on white, and a sample such as Fashion-MNIST shows its negative. To an encoder that never saw
a light ground the ground is most of the picture: a boot on white looks like a bag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# A ground is plain where this share of the picture's edge is within so many levels of the edge's median. Textures of
# sheets, floors and walls vary by more. Chosen on validation images (docs/decisions/0019).
_PLAIN_SHARE, _PLAIN_LEVELS = 0.6, 12
# A light ground is of a level from here on; a dark one of no more than the other.
_LIGHT, _DARK = 128, 24
# Share of the training images with a plain dark ground from which on all are taken to have one.
_MOST = 0.95
# Pixels for each pixel of the encoder's input, to find the thing in: it may be a part of the picture only.
OVERSAMPLING = 4
# What is smaller than this share of the picture is dust.
_LEAST_SIDE = 1 / 8


def are_on_black(pixels: NDArray[np.uint8]) -> bool:
    """Return whether training images, (n, side, side, 3), are grey pictures of things on a plain dark ground."""
    sample = pixels[:: max(1, len(pixels) // 2000)]
    grey = sample[..., 0]
    if not (sample == grey[..., None]).all():
        return False
    edges = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    plain = (edges <= _DARK).mean(axis=1) >= _PLAIN_SHARE
    return bool(plain.mean() >= _MOST)


def show_on_black(image: Image.Image, size: int) -> Image.Image:
    """Return a thing on a plain light ground as a grey square, light on black and as large as it fits.

    A dark thing becomes its negative; of a light one only the ground is replaced. Any other picture is returned as
    it is.

    Args:
        size: side of the encoder's input, in pixels; the square may be larger.
    """
    grey = image.convert("L")
    longest = 2 * OVERSAMPLING * size
    if max(grey.size) > longest:
        grey.thumbnail((longest, longest), Image.Resampling.BOX)
    levels = np.asarray(grey)
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    if np.count_nonzero(edge >= _LIGHT - _PLAIN_LEVELS) < _PLAIN_SHARE * len(edge):
        return image
    ground = float(np.median(edge))
    if ground < _LIGHT or np.count_nonzero(abs(edge - ground) <= _PLAIN_LEVELS) < _PLAIN_SHARE * len(edge):
        return image
    thing = levels < ground - 2 * _PLAIN_LEVELS
    rows, columns = np.flatnonzero(thing.any(axis=1)), np.flatnonzero(thing.any(axis=0))
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < _LEAST_SIDE * max(levels.shape):
        return image
    is_dark = np.median(levels[thing]) < ground / 2
    shown = (ground - levels).clip(min=0) if is_dark else np.where(thing, levels, 0.0)
    shown = shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * (255 / shown.max())
    height, width = shown.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = shown
    return Image.fromarray(square).convert("RGB")
