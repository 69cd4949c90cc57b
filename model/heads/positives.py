"""Which features belong together: the choice of positives that decides what a head's codes keep.

`views`: two views of one image, so codes distinguish single objects. `neighbours`: an image and one of its
nearest in the space of features, so codes group objects of a kind. `both`: half of the pairs from each.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from eigenlens.model.errors import TrainingError
from eigenlens.model.spectrum.moments import PairMoments

Positives = Literal["views", "neighbours", "both"]
# Products of features with themselves are summed over this many images at a time.
_CHUNK = 4096


def pair_moments(
    features: NDArray[np.float32], *, positives: Positives, graph: NDArray[np.int64] | None = None
) -> PairMoments:
    """Sum the moments of the positive pairs, chunk by chunk.

    Args:
        features: (n, 1 + views, length), of images and of their views.
        graph: rows of each image's neighbours, (n, count); needed unless positives are views.

    Raises: TrainingError, if there are no views or neighbours to make pairs of.
    """
    n, drawn, length = features.shape
    count = 0 if graph is None else graph.shape[1]
    if (positives != "neighbours" and drawn < 2) or (positives != "views" and count < 1):
        raise TrainingError(f"positives '{positives}' need at least one view or neighbour of each image")
    # Around a ring of the views first, then between those farther apart: with `both`, as many as there are neighbours.
    rings = [(i, (i + apart) % drawn) for apart in range(1, drawn) for i in range(drawn)]
    between = {"views": rings[:drawn], "neighbours": [], "both": (rings * count)[:count]}[positives]
    moments = PairMoments(length)
    for start in range(0, n, _CHUNK):
        chunk = torch.from_numpy(features[start : start + _CHUNK])
        for a, b in between:
            moments.update(chunk[:, a], chunk[:, b])
        if graph is not None and positives != "views":
            for rows in graph[start : start + _CHUNK].T:
                moments.update(chunk[:, 0], torch.from_numpy(features[rows, 0]))
    return moments
