"""Measuring how near the images of a gallery are to their nearest other image, while a generation is built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.codes.similarities import NearestSimilarities

# Of fewer images the least like the others is no rare one.
_MIN_CODES = 50
# Images that are sampled, and pairs of images that are compared: seconds at a million.
_MAX_SAMPLE, _MIN_SAMPLE, _MAX_PAIRS = 2000, 500, 200_000_000
# Codes that are compared with the sample at once.
_CHUNK = 4096


def measure_similarities(codes: Codes, *, lengths: Sequence[int]) -> NearestSimilarities | None:
    """Measure, for a sample of the images, the cosine with the nearest other at each length; None of very few images.

    Exact, in one pass over the codes. The last rows are the sample: they are a random one.
    """
    count = len(codes)
    if count < _MIN_CODES:
        return None
    size = min(count, _MAX_SAMPLE, max(_MIN_SAMPLE, _MAX_PAIRS // count))
    first = count - size
    sample = codes.read(first, count)
    prefixes = {length: unit_prefix(sample, length) for length in lengths}
    nearest = {length: np.full(size, -np.inf, dtype=np.float32) for length in lengths}
    for rows, run in codes.runs(0, count):
        for start in range(0, len(rows), _CHUNK):
            chunk, numbers = run[start : start + _CHUNK], rows[start : start + _CHUNK] - first
            itself = np.flatnonzero(numbers >= 0)
            for length in lengths:
                cosines = unit_prefix(chunk, length) @ prefixes[length].T
                cosines[itself, numbers[itself]] = -np.inf
                np.maximum(nearest[length], cosines.max(0), out=nearest[length])
    return NearestSimilarities.of(nearest)
