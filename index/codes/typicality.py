"""How far a code lies from all those of a gallery: its Mahalanobis distance, and where that stands among theirs.

A picture of another kind often has some image near its code, since the encoder keeps only what tells the gallery's
images apart. But it combines coordinates as no image of the gallery does, which the covariance of the codes tells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import Floats, unit_prefix

# A query farther out than all but so many in 100 of the gallery's images is unlike everything.
UNLIKE_PERCENTILE = 1.0
_AXES_FILE = "typicality-axes.npy"
_QUANTILES_FILE = "typicality-quantiles.npy"
_QUANTILES = 1001
# Leading coordinates that are looked at, at most: a covariance of more costs more than it tells.
_MAX_LENGTH = 256
# Images whose distances are kept, and the fewest of which the farthest is a rare one.
_SAMPLE, _MIN_CODES = 2000, 50
# Of the mean variance, added to each: with fewer images than coordinates some have none.
_RIDGE = 1e-3
# Norms outside of these may have lost squares to the bounds of float32.
_SMALL, _LARGE = 1e-15, 1e15


def write_typicality(directory: Path, codes: Codes) -> None:
    """Write the mean of the unit codes, their whitening and quantiles of their distances; nothing of very few codes.

    In one pass over the codes. The last rows, a random sample, give the quantiles. A code that took part in the
    covariance is nearer to its centre than a new one of its kind: with h its squared distance by the scatter of all,
    h / (1 - h) is that by the scatter of the others (Sherman-Morrison).
    """
    count = len(codes)
    if count < _MIN_CODES:
        return
    length = min(codes.code_length, _MAX_LENGTH)
    total, products = np.zeros(length), np.zeros((length, length))
    for _, run in codes.runs(0, count):
        units = unit_prefix(run, length)
        total += units.sum(0, dtype=np.float64)
        products += units.T @ units
    mean = total / count
    variances, axes = np.linalg.eigh(products - count * np.outer(mean, mean))
    variances = variances.clip(min=0)
    whitening = axes / np.sqrt(variances + max(_RIDGE * variances.mean(), np.finfo(np.float32).tiny))
    sample = unit_prefix(codes.read(max(0, count - _SAMPLE), count), length)
    within = _squared_distances(sample, mean, whitening)
    distances = within / (1 - within).clip(min=np.finfo(np.float32).eps)
    np.save(directory / _AXES_FILE, np.vstack([mean, whitening]).astype(np.float32))
    np.save(directory / _QUANTILES_FILE, np.quantile(distances, np.linspace(0, 1, _QUANTILES)).astype(np.float32))


def _squared_distances(units: Floats, mean: Floats, whitening: Floats) -> NDArray[np.floating]:
    whitened = (units - mean) @ whitening
    return np.asarray(np.einsum("nd,nd->n", whitened, whitened))


class Typicality:
    """The distances of a generation's codes from their centre, to compare that of a query with."""

    def __init__(self, generation: artifact.Artifact) -> None:
        """Open what `write_typicality` left in a generation. Raises: ArtifactDamagedError."""
        axes = np.load(generation.file(_AXES_FILE), allow_pickle=False)
        self._whitening = np.ascontiguousarray(axes[1:])
        self._centre = axes[0] @ self._whitening
        self._quantiles = np.load(generation.file(_QUANTILES_FILE), allow_pickle=False)

    @staticmethod
    def is_in(generation: artifact.Artifact) -> bool:
        """Whether the generation has it; those of earlier versions and of very few images do not."""
        return _AXES_FILE in generation.files

    def percentile_of(self, code: Floats) -> float:
        """Return the share of the gallery's images, in per cent, that are as far out as a code or farther.

        The code, (code_length,), may have any norm. Below UNLIKE_PERCENTILE nothing in the gallery is like it.
        """
        return self.percentiles_of(code[None])[0]

    def percentiles_of(self, codes: Floats) -> list[float]:
        """Return `percentile_of` for each of several codes, (n, code_length), which takes less time together."""
        prefixes = codes[:, : len(self._centre)]
        norms = np.sqrt(np.einsum("nd,nd->n", prefixes, prefixes))
        if not ((norms > _SMALL) & (norms < _LARGE)).all():
            prefixes, norms = unit_prefix(codes, prefixes.shape[1]), np.ones(len(codes), dtype=np.float32)
        whitened = prefixes @ self._whitening / norms[:, None] - self._centre
        below = np.searchsorted(self._quantiles, np.einsum("nd,nd->n", whitened, whitened))
        shares: list[float] = (100 * (1 - below.clip(max=_QUANTILES - 1) / (_QUANTILES - 1))).tolist()
        return shares
