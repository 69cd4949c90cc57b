"""Principal components: what any code has to beat at the same length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]


def principal_components(features: Features) -> Callable[[Features], Features]:
    """Fit principal components to features (n, d).

    Returns: a function that centres features and rotates them to their components, the largest first.
    """
    mean = features.mean(0)
    centred = (features - mean).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].astype(np.float32)
    return lambda other: np.ascontiguousarray((other - mean) @ axes)
