"""The choice of the prefix that a graph is built over: as short as the codes allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.faiss_engine.vamana import VAMANA, require_svs
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

_QUERIES, _NEIGHBOURS = 200, 10
_SAMPLE = 100_000
_SHORTLIST = 40
_TARGET = 0.99


def choose_graph(codes: Codes, lengths: Sequence[int], *, tuning: Tuning = DEFAULT_TUNING) -> IndexSpec | None:
    """Return the graph to build beside the indexes of these lengths; None for codes so few that a scan is quick."""
    if len(codes) < tuning.min_codes_for_ivf:
        return None
    require_svs()
    rng = np.random.default_rng(0)
    sample = codes.sample(_SAMPLE)
    sample = sample[rng.permutation(len(sample))]
    queries, gallery = sample[:_QUERIES].astype(np.float32), sample[_QUERIES:]
    _, exact = exact_search(gallery, queries, length=codes.code_length, k=_NEIGHBOURS)
    shorter = sorted(length for length in lengths if length < codes.code_length)
    for length in shorter:
        _, rows = exact_search(gallery, queries, length=length, k=_SHORTLIST)
        recall = np.mean([np.isin(best, candidates).mean() for best, candidates in zip(exact, rows, strict=True)])
        if recall >= _TARGET:
            return IndexSpec(length, VAMANA.name)
    return IndexSpec(shorter[-1] if shorter else codes.code_length, VAMANA.name)
