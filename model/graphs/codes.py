"""Codes of all nodes of a graph: features projected, then smoothed over the edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.graphs.node_features import NodeFeatures, project
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sparse import Floats


def codes_of_nodes(
    features: NodeFeatures, smoother: Smoother, weight: Floats, offset: Floats, *, hops: int
) -> NDArray[np.float32]:
    """Return the codes of all nodes, (count, code_length): S^hops X weightᵀ + offset.

    Projecting commutes with smoothing, so that only the code's coordinates are smoothed, some at a time.

    Args:
        weight, offset: (code_length, p) and (code_length,).
    """
    codes = np.empty((features.count, len(weight)), dtype=np.float32)
    for start in range(0, len(weight), smoother.columns_at_once):
        rows = slice(start, start + smoother.columns_at_once)
        projected = project(features, weight[rows].T.astype(smoother.dtype))
        codes[:, rows] = smoother.smooth(projected, hops) + offset[rows]
    return codes
