"""How far a search has to reach under a filter that another server follows: told by a sample of the codes.

The server's shortlist holds selected rows only, so that a filter that has nothing to do with the query needs no more of
them than a search without a filter. Against the query, the selected rows that are near by their prefix are many that
are farther by the whole code. Of all rows, thinned out by the filter's share, so many are nearer than the results as
the plan has to find.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.reach import Reach, is_against

_SAMPLE = 4096
# The nearest rows of the sample that are looked at: as many as hold so many selected ones of a filter that has nothing
# to do with the query.
_EXPECTED = 10


class SampledReach:
    """Estimates reach from a random sample of the codes. Several threads may ask at once."""

    def __init__(self, codes: Codes) -> None:
        """Read the sample."""
        self._count = len(codes)
        size = min(_SAMPLE, len(codes))
        self._rows = np.sort(np.random.default_rng(0).choice(len(codes), size, replace=False))
        self._unit = codes.codes[self._rows].astype(np.float32) / codes.norms[self._rows, None]

    def estimate(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> list[Reach]:
        """Return the reach of each query (q, code_length): k, or more where few of the nearest are selected."""
        share, mask = selection.share, selection.mask[self._rows]
        seen = min(len(mask), int(np.ceil(_EXPECTED / max(share, 1e-9))))
        # Of a smaller sample than this nothing is certain.
        if not mask.any() or seen > len(mask) // 2:
            return [Reach(k)] * len(queries)
        scores = unit_prefix(queries, self._unit.shape[1]) @ self._unit.T
        nearest = np.argsort(-scores, axis=1)
        selected = mask[nearest]
        place = max(1, int(np.ceil(k * len(mask) / self._count)))
        reaches = []
        for of_query in selected:
            if not is_against(int(np.count_nonzero(of_query[:seen])), seen, share=share):
                reaches.append(Reach(k))
                continue
            places = np.flatnonzero(of_query)
            nearer = int(places[min(place, len(places)) - 1]) + 1
            reaches.append(Reach(max(k, int(share * nearer * self._count / len(mask))), is_against=True))
        return reaches
