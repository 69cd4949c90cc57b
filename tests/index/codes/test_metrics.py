"""Metrics against plain loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eigenlens.index.errors import SearchError
from eigenlens.index.metrics import average_precision_at_k, precision_at_k, recall_at_k
from tests.support import oracles
from tests.support.codes import repeatable

SEEDS = st.integers(0, 2**32 - 1)


@repeatable
@given(seed=SEEDS, queries=st.integers(0, 6), n=st.integers(1, 30), k=st.integers(1, 12), more=st.integers(0, 5))
def test_recall_against_loops(seed: int, queries: int, n: int, k: int, more: int) -> None:
    rng = np.random.default_rng(seed)

    def results(width: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        rows = np.full((queries, width), -1, dtype=np.int64)
        for row in rows:
            row[: min(width, n)] = rng.permutation(n)[:width]
        return rows

    found, exact = results(k + more), results(k)
    expected = [oracles.recall_at_k(f.tolist(), e.tolist()) for f, e in zip(found, exact, strict=True)]
    np.testing.assert_allclose(recall_at_k(found, exact), expected)


@repeatable
@given(seed=SEEDS, queries=st.integers(0, 6), k=st.integers(1, 12), share=st.floats(0, 1))
def test_precision_and_average_precision_against_loops(seed: int, queries: int, k: int, share: float) -> None:
    relevant = np.random.default_rng(seed).random((queries, k)) < share
    lists = [row.tolist() for row in relevant]
    np.testing.assert_allclose(precision_at_k(relevant), [oracles.precision_at_k(row) for row in lists])
    np.testing.assert_allclose(average_precision_at_k(relevant), [oracles.average_precision_at_k(row) for row in lists])


def test_recall_by_hand() -> None:
    exact = np.array([[1, 2, 3, 4], [1, 2, -1, -1], [-1, -1, -1, -1]])
    found = np.array([[4, 9, 1, 8], [2, 1, -1, -1], [-1, 0, 0, 0]])
    np.testing.assert_allclose(recall_at_k(found, exact), [0.5, 1.0, 0.0])


def test_average_precision_by_hand() -> None:
    relevant = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    np.testing.assert_allclose(average_precision_at_k(relevant), [(1 + 2 / 3) / 2, 1 / 4, 0, 1])
    np.testing.assert_allclose(precision_at_k(relevant), [0.5, 0.25, 0, 1])


def test_average_precision_counts_places_and_precision_does_not() -> None:
    early, late = np.array([[True, False, False]]), np.array([[False, False, True]])
    assert precision_at_k(early) == precision_at_k(late)
    assert average_precision_at_k(early) > average_precision_at_k(late)


def test_results_of_other_queries_are_refused() -> None:
    with pytest.raises(SearchError, match="not of the same queries"):
        recall_at_k(np.zeros((2, 3), np.int64), np.zeros((3, 3), np.int64))
    with pytest.raises(SearchError, match="not of the same queries"):
        recall_at_k(np.zeros(3, np.int64), np.zeros((3, 3), np.int64))
