"""The choice of the one prefix that finds shortlists: as short as the codes allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.faiss_engine.graph.vamana import VAMANA, require_svs
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# How many of the exact nearest of some codes, among a sample, a shortlist by the prefix alone has to hold.
_SAMPLE, _QUERIES, _NEIGHBOURS = 100_000, 200, 10
_SHORTLIST, _MIN_RECALL = 40, 0.99
# A walk visits each candidate of its shortlist, which takes longer than a longer prefix does.
_GRAPH_SHORTLIST = 20
# Compact codes score more candidates in little time.
_COMPACT_SHORTLIST = 80
# Between prefixes of at least so many coordinates, there may be one that takes half a line of the cache more.
_LONG, _STEP = 64, 64


def choose_prefix(codes: Codes, lengths: Sequence[int], *, shortlist: int = _SHORTLIST) -> int:
    """Return the shortest of the lengths whose shortlists hold nearly all nearest neighbours by full codes.

    A graph or lists over a shorter prefix are quicker to walk and smaller, but need longer shortlists; below this
    length the shortlists cost more than that saves.
    """
    sample = codes.sample(_SAMPLE)
    sample = sample[np.random.default_rng(0).permutation(len(sample))]
    queries, gallery = sample[:_QUERIES].astype(np.float32), sample[_QUERIES:]
    _, exact = exact_search(gallery, queries, length=codes.code_length, k=_NEIGHBOURS)
    shorter = sorted(length for length in lengths if length < codes.code_length)
    for length in shorter:
        _, shortlists = exact_search(gallery, queries, length=length, k=shortlist)
        if np.mean([np.isin(*pair).mean() for pair in zip(exact, shortlists, strict=True)]) >= _MIN_RECALL:
            return length
    return shorter[-1] if shorter else codes.code_length


def choose_graph(codes: Codes, lengths: Sequence[int], *, tuning: Tuning = DEFAULT_TUNING) -> IndexSpec | None:
    """Return the graph to build beside the indexes of these lengths; None for codes so few that a scan is quick.

    Raises: IndexKindError, where SVS is not installed.
    """
    if len(codes) < tuning.min_codes_for_ivf:
        return None
    require_svs()
    return IndexSpec(choose_prefix(codes, with_lengths_between(lengths), shortlist=_GRAPH_SHORTLIST), VAMANA.name)


def add_prefix_between(codes: Codes, lengths: Sequence[int]) -> Sequence[int]:
    """Return the lengths of a build with compact codes, with one between two of them where that finds shortlists."""
    between = set(with_lengths_between(lengths)).difference(lengths)
    if not between:
        return lengths
    chosen = choose_prefix(codes, [*lengths, *between], shortlist=_COMPACT_SHORTLIST)
    return sorted({*lengths, chosen})


def with_lengths_between(lengths: Sequence[int]) -> list[int]:
    """Return the prefixes that may find shortlists: those of the lengths, and from 64 coordinates on some between.

    Half a line of the processor's cache for each row is a tenth of a graph's memory, and of lists beside compact codes.
    """
    shorter = sorted(lengths)[:-1]
    between = [(a + b) // 2 for a, b in pairwise(shorter) if a >= _LONG and (b - a) % _STEP == 0]
    return sorted({*lengths, *between})


def choose_fewest(codes: Codes, lengths: Sequence[int], *, tuning: Tuning = DEFAULT_TUNING) -> Sequence[int]:
    """Return the fewest lengths that answer every search."""
    if len(codes) < tuning.min_codes_for_ivf:
        return lengths
    return sorted({choose_prefix(codes, lengths), codes.code_length})
