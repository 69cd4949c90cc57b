"""How near the images of a gallery are to their nearest other image, by prefix length.

A score alone says little: at few coordinates everything is near something. Where it stands among the gallery's own
figures says whether a query is like what is in there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import SimilarityError

# Quantiles that are kept, from percentile 0 to 100.
_QUANTILES = 201
_STEP = 100 / (_QUANTILES - 1)
# Codes in half precision have cosines with themselves that are as far from 1, and so have those of equal images.
ROUNDING_OF_COSINE = 1e-6


@dataclass(frozen=True)
class NearestSimilarities:
    """Quantiles of the cosine of a gallery's images with their nearest other image.

        similarities = NearestSimilarities.of({16: cosines})
        similarities.percentile_of(score, length=16)  # 40.0: four in ten images have no nearer neighbour

    Attributes:
        quantiles: by prefix length: ascending cosines at equal shares of the images, from the least to the largest.
    """

    quantiles: Mapping[int, Sequence[float]]

    @classmethod
    def of(cls, cosines: Mapping[int, NDArray[np.float32]]) -> Self:
        """From the cosine of each sampled image with its nearest other, (m,), by prefix length."""
        shares = np.linspace(0, 1, _QUANTILES)
        return cls({length: np.quantile(of, shares).round(7).tolist() for length, of in cosines.items()})

    def percentile_of(self, score: float, *, length: int) -> float | None:
        """Percentile of a score among them, 0 to 100; None for a length that has no figures.

        It is the share of the gallery's images, in per cent, whose nearest other is no nearer than that.
        """
        quantiles = self.quantiles.get(length)
        if quantiles is None:
            return None
        score += ROUNDING_OF_COSINE
        place = bisect_right(quantiles, score)
        if place in (0, len(quantiles)):
            return 100.0 if place else 0.0
        low, high = quantiles[place - 1], quantiles[place]
        return _STEP * (place - 1 + (score - low) / (high - low))

    def score_at(self, percentile: float, *, length: int) -> float:
        """The least score that stands at a percentile, 0 to 100. Raises: SimilarityError, for a length without figures.

        `percentile_of` is at least `percentile` for this score and those above, and less for those below.
        """
        quantiles = self.quantiles.get(length)
        if quantiles is None:
            raise SimilarityError(
                f"min_similarity needs a search whose scores are of {', '.join(map(str, self.quantiles))} coordinates, "
                f"not of {length}: how near images are to each other was measured at these"
            )
        if percentile <= 0:
            return -math.inf
        return float(np.interp(percentile / _STEP, range(len(quantiles)), quantiles)) - ROUNDING_OF_COSINE

    def to_json(self) -> dict[str, list[float]]:
        """For a manifest."""
        return {str(length): list(quantiles) for length, quantiles in self.quantiles.items()}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """From a manifest."""
        return cls({int(length): quantiles for length, quantiles in given.items()})
