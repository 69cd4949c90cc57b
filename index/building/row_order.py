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
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

_GROUPING_LENGTH = 32
_VECTORS_PER_GROUP = 40
_CHUNK = 65_536
_MAX_QUERIES = 2000
_MIN_CODES = 50


def sample_size(count: int) -> int:
    """Return how many of the last rows of so many codes are a random sample; none of very few."""
    return min(_MAX_QUERIES, count // 10) if count >= _MIN_CODES else 0


def order_rows(
    read: Callable[[int, int], Floats],
    count: int,
    *,
    seed: int = 0,
    gpu: Gpu | None = None,
    tuning: Tuning = DEFAULT_TUNING,
) -> NDArray[np.int64]:
    """Return the order in which to write `count` codes: for each row the index that its code has now, (count,).

    Args:
        read: the codes from start to stop, (stop - start, code_length).
        gpu: that computes which are near; the CPU when None.
    """
    order = np.random.default_rng(seed).permutation(count)
    if count < tuning.min_codes_for_groups:
        return order
    held_in = count - sample_size(count)
    # Indices of the k-means sample come in one run of the random order, sorted: reads go forwards.
    trained = np.sort(order[: min(held_in, _VECTORS_PER_GROUP * tuning.row_groups)])
    sample = np.concatenate([_prefix(_pick(read, part)) for part in np.array_split(trained, 64)])
    # Groups of one section are numbered one after the other, so that near groups lie near each other too.
    groups = two_level_centroids(sample, tuning.row_groups, seed=seed, gpu=gpu)
    starts = range(0, count, _CHUNK)
    ranks = np.concatenate([nearest(groups, _prefix(read(i, min(i + _CHUNK, count))), gpu=gpu) for i in starts])
    grouped = order[:held_in]
    return np.concatenate([grouped[np.argsort(ranks[grouped], kind="stable")], order[held_in:]])


def _pick(read: Callable[[int, int], Floats], indices: NDArray[np.int64]) -> Floats:
    start = int(indices[0])
    return read(start, int(indices[-1]) + 1)[indices - start]


def _prefix(codes: Floats) -> NDArray[np.float32]:
    return unit_prefix(codes, min(_GROUPING_LENGTH, codes.shape[1]))
