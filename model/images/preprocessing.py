"""The version of preprocessing: how files become an encoder's pixels. Codes of two versions must not be compared.

An encoder's manifest records the version that its codes are made with; one without a record is of version 1.

version 1: colour profiles are ignored, transparency is laid on white, 16-bit samples keep their high byte.
version 2: colours are sRGB's, the ground of transparency suits the picture, deep samples are shown by their real range.
version 3: as 2, and a thing on a plain light ground is shown light on black: the training images show theirs so.
version 4: as 2, and the whole picture is squeezed into the square, where the others see its largest centred square.
version 5: as 2, and the largest squares at both ends of the picture are seen beside the centred one.
"""

from __future__ import annotations

Preprocessing = int
FIRST: Preprocessing = 1
STANDARD: Preprocessing = 2
ON_BLACK: Preprocessing = 3
WHOLE: Preprocessing = 4
CROPS: Preprocessing = 5
LATEST = CROPS

FRAMINGS = {"centre": STANDARD, "whole": WHOLE, "crops": CROPS}
"""What a person can choose of a picture for an encoder to see."""
CROP_PLACES = (0.5, 0.0, 1.0)
"""Where the squares of version 5 lie along the longer side."""


def input_shape(size: int, preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the shape of one picture's pixels for an encoder: a square of `size` pixels, or several."""
    square = (size, size, 3)
    return (len(CROP_PLACES), *square) if preprocessing == CROPS else square
