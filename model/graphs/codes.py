"""Codes of all nodes of a graph: features projected, then smoothed over the edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.graphs.fit import GraphCodes
from eigenlens.model.graphs.node_features import NodeFeatures, project
from eigenlens.model.graphs.smoothing import Smoother

_ROWS = 1 << 13


def codes_of_nodes(features: NodeFeatures, smoother: Smoother, codes: GraphCodes, *, hops: int) -> NDArray[np.float32]:
    """Return the codes of all nodes, (count, code_length).

    Projecting commutes with smoothing, so that only projections are smoothed, some columns at a time.
    """
    columns = codes.projection.shape[1]
    smoothed = np.empty((features.count, columns), dtype=np.float32)
    for start in range(0, columns, smoother.columns_at_once):
        part = slice(start, start + smoother.columns_at_once)
        smoothed[:, part] = smoother.smooth(project(features, codes.projection[:, part].astype(smoother.dtype)), hops)
    if len(codes.offset) != columns:
        return np.concatenate([codes.finish(block).astype(np.float32) for block in _blocks(smoothed)])
    for block in _blocks(smoothed):
        block[:] = codes.finish(block)
    return smoothed


def _blocks(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (values[start : start + _ROWS] for start in range(0, len(values), _ROWS))
