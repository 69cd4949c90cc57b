"""The order of rows: near codes lie near each other, so that a search touches few pages and cache lines.

The last rows are a random sample of all: calibration holds them out of the indexes and searches for their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.clustering import nearest, two_level_centroids
from eigenlens.index.codes.prefix import Floats, unit_prefix
from eigenlens.index.faiss_engine.gpu import Gpu

_WORTH_GROUPS = 20_000
_GROUPING_LENGTH = 32
_GROUPS = 4096
_VECTORS_PER_GROUP = 40
_CHUNK = 65_536
_MOST_QUERIES = 2000
_FEWEST_CODES = 50


def sample_size(count: int) -> int:
    """How many of the last rows of so many codes are a random sample; none of very few."""
    return min(_MOST_QUERIES, count // 10) if count >= _FEWEST_CODES else 0


def order_rows(
    read: Callable[[int, int], Floats], count: int, *, seed: int = 0, gpu: Gpu | None = None
) -> NDArray[np.int64]:
    """The order in which to write `count` codes: for each row the place that its code has now, (count,).

    Args:
        read: the codes at the places from start to stop, (stop - start, code_length).
        gpu: that computes which are near; the CPU when None.
    """
    order = np.random.default_rng(seed).permutation(count)
    if count < _WORTH_GROUPS:
        return order
    kept = count - sample_size(count)
    # Places for the k-means sample come in one run of the random order, sorted: reads go forwards.
    trained = np.sort(order[: min(kept, _VECTORS_PER_GROUP * _GROUPS)])
    sample = np.concatenate([_prefix(_pick(read, part)) for part in np.array_split(trained, 64)])
    groups = two_level_centroids(
        sample, _GROUPS, seed=seed, gpu=gpu
    )  # those of a section are numbered one after the other
    starts = range(0, count, _CHUNK)
    ranks = np.concatenate([nearest(groups, _prefix(read(i, min(i + _CHUNK, count))), gpu=gpu) for i in starts])
    grouped = order[:kept]
    return np.concatenate([grouped[np.argsort(ranks[grouped], kind="stable")], order[kept:]])


def _pick(read: Callable[[int, int], Floats], places: NDArray[np.int64]) -> Floats:
    start = int(places[0])
    return read(start, int(places[-1]) + 1)[places - start]


def _prefix(codes: Floats) -> NDArray[np.float32]:
    return unit_prefix(codes, min(_GROUPING_LENGTH, codes.shape[1]))
