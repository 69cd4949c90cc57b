"""Reach under filters that another server follows: a share of the rows that are nearer, against plain counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.sampled_reach import SampledReach
from eigenlens.index.plans.reach import Reach
from tests.index.filters.test_filtered import GROUPS, grouped
from tests.support.codes import write_codes

COUNT, QUERIES, K = 8000, 50, 10


def test_only_a_filter_against_the_query_asks_for_more_than_the_results(tmp_path: Path) -> None:
    """A filter that left out the query's own group had a recall of 0.755 for 0.9 in pgvector and in Qdrant."""
    codes, groups = grouped(1, COUNT)
    sampled = SampledReach(write_codes(tmp_path / "codes", codes))
    draws = np.random.default_rng(2).random(COUNT)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    for share in (0.5, 0.1):
        neutral, ratios = [], []
        for query, group in zip(*grouped(3, QUERIES), strict=True):
            neutral += sampled.estimate(query[None], Selection(draws < share), k=K)
            selection = Selection((groups != group) & (draws < share))
            (reach,) = sampled.estimate(query[None], selection, k=K)
            cosines = unit @ query / np.linalg.norm(query)
            rank = np.count_nonzero(cosines >= np.sort(cosines[selection.mask])[-K])
            ratios.append(reach.count / max(K, selection.share * rank))
        assert neutral.count(Reach(K)) >= 0.9 * QUERIES
        assert 0.5 < np.median(ratios) < 2
        assert np.quantile(ratios, 0.1) > 0.2
    own = Selection(groups == GROUPS - 1)
    assert sampled.estimate(codes[groups == GROUPS - 1][:1], own, k=K) == [Reach(K)]
    assert sampled.estimate(codes[:1], Selection(np.zeros(COUNT, dtype=bool)), k=K) == [Reach(K)]
