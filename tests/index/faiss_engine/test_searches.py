"""What every kind of index finds: the exact best at its greatest effort, and of a selection its rows alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens.index.faiss_engine.kinds import KINDS, graph_of_lists
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, LENGTHS, generation_of_kind, random_codes, repeatable, write_generation

TOLERANCE = 2e-4  # codes are kept in half precision


def lengths_of(kind: str) -> tuple[int, ...]:
    return (CODE_LENGTH,) if KINDS[kind].scores_codes else LENGTHS


@pytest.mark.parametrize("kind", KINDS)
@repeatable
@given(data=st.data())
def test_every_kind_finds_the_exact_best_at_its_greatest_effort(kind: str, data: st.DataObject) -> None:
    seed, n = data.draw(st.integers(0, 2**31)), data.draw(st.integers(1, 400))
    length = data.draw(st.sampled_from(lengths_of(kind)))
    codes = random_codes(seed, n)
    copies = data.draw(st.integers(0, 3))
    codes[n // 2 : n // 2 + copies] = codes[0]
    if data.draw(st.booleans()):
        codes[n - 1] = 0
    queries = np.concatenate([random_codes(seed + 1, 3), codes[:1]])
    k = data.draw(st.sampled_from([1, 10, n, n + 5]))
    with tempfile.TemporaryDirectory() as folder:
        generation = generation_of_kind(Path(folder), codes, kind, length=length)
        plan = Plan(length, kind, generation.max_effort(length), shortlist=n, rerank_length=CODE_LENGTH)
        if length == CODE_LENGTH and not KINDS[kind].lossy:
            plan = Plan(length, kind, generation.max_effort(length))
        scores, rows = generation.search(queries, plan=plan, k=k)
        cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    best = oracles.best_scores(cosines, k)
    assert scores.shape == rows.shape == (4, min(k, n))
    assert all(len(set(row.tolist())) == len(row) for row in rows)
    np.testing.assert_allclose(scores, best, atol=TOLERANCE)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), best, atol=TOLERANCE)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.effort == "nprobe"])
def test_all_of_many_lists_are_visited_at_the_greatest_effort(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph finds the nearest of many lists, and may hold some that no path leads to."""
    codes = random_codes(0, 3000)
    codes[1500:] = codes[:1500]  # copies: their centroids, being equal, are easily cut off from a graph
    monkeypatch.setattr("faiss.IO_FLAG_MMAP_IFC", 0)  # a graph that is mapped cannot be changed
    tuning = Tuning(max_scanned_lists=4, max_rows_scored_directly=0)
    generation = generation_of_kind(tmp_path, codes, kind, length=8, tuning=tuning)
    opened = generation.prefix_index(8)
    graph = graph_of_lists(opened.index)
    assert graph is not None
    assert graph.ntotal == generation.max_effort(8) == 64
    cut = np.full(graph.hnsw.neighbors.size(), -1, dtype=np.int32)
    faiss.copy_array_to_vector(cut, graph.hnsw.neighbors)  # cut every path
    mask = np.random.default_rng(1).random(3000) < 0.9
    queries = random_codes(1, 5)
    plan = Plan(8, kind, 64, shortlist=2990, rerank_length=CODE_LENGTH)
    for selection in (None, Selection(mask)):
        scores, rows = generation.search(queries, plan=plan, k=10, selection=selection)
        cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
        if selection is not None:
            cosines[:, ~mask] = -2
        np.testing.assert_allclose(scores, oracles.best_scores(cosines, 10), atol=TOLERANCE)
        assert (rows >= 0).all()


def test_what_a_quick_search_finds_says_what_the_exact_one_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = random_codes(0, 3000)
    codes[10:40] = codes[3]  # ties at the last place
    codes[50] = 0
    tuning = Tuning(max_rows_scored_directly=0, min_codes_for_ivf=1000, timed_queries=20)
    generation = write_generation(tmp_path, codes, tuning=tuning, calibrated=True)
    assert generation._guess(10) is not None
    asked: list[NDArray[np.float32]] = []
    index = generation.prefix_index(CODE_LENGTH)
    search, search_above = index.search, index.search_above

    def only_for_ties(queries: NDArray[np.float32], k: int, **more: Any) -> Any:
        assert k > 2 * 10, "searched without knowing what for"
        return search(queries, k, **more)

    monkeypatch.setattr(index, "search", only_for_ties)

    def noted(*given: Any, least: NDArray[np.float32], **more: Any) -> Any:
        asked.append(least)
        return search_above(*given, least=least, **more)

    monkeypatch.setattr(index, "search_above", noted)
    queries = np.concatenate([random_codes(1, 5), codes[3:4], np.zeros((1, CODE_LENGTH), dtype=np.float32)])
    mask = np.random.default_rng(1).random(3000) < 0.5
    cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    for k in (1, 10):
        for selection in (None, Selection(mask)):
            allowed = cosines if selection is None else np.where(mask, cosines, -2)
            scores, rows = generation.search(queries, plan=Plan(CODE_LENGTH, "va-file"), k=k, selection=selection)
            np.testing.assert_allclose(scores, oracles.best_scores(allowed, k), atol=TOLERANCE)
            np.testing.assert_allclose(np.take_along_axis(allowed, rows, 1), scores, atol=TOLERANCE)
    assert len(asked) >= 4
    assert all((bound > -1).all() for bound in asked)


def test_an_index_of_a_prefix_that_prunes_is_not_told_scores_of_full_codes(tmp_path: Path) -> None:
    """They may be higher than any of the prefix's, which then leaves out too much."""
    codes = random_codes(0, 400)
    codes[:, 4:] = 100  # full codes are all alike, and prefixes are not
    generation = generation_of_kind(tmp_path, codes, "panorama", length=4, tuning=Tuning(min_bound_recall=0.0))
    assert generation._guess(10) is not None
    queries = codes[200:205]
    scores, rows = generation.search(queries, plan=Plan(4, "panorama"), k=10)
    cosines = oracles.cosine(queries, generation.codes.codes, length=4)
    np.testing.assert_allclose(scores, oracles.best_scores(cosines, 10), atol=TOLERANCE)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), scores, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_selection_keeps_every_kind_to_its_rows(tmp_path: Path, kind: str) -> None:
    length, tuning = lengths_of(kind)[0], Tuning(max_rows_scored_directly=0)
    generation = generation_of_kind(tmp_path, random_codes(0, 400), kind, length=length, tuning=tuning)
    mask = np.random.default_rng(1).random(400) < 0.1
    queries = random_codes(2, 5)
    plan = Plan(length, kind, generation.max_effort(length), shortlist=400, rerank_length=CODE_LENGTH)
    scores, rows = generation.search(queries, plan=plan, k=10, selection=Selection(mask))
    cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    cosines[:, ~mask] = -2
    np.testing.assert_allclose(scores, oracles.best_scores(cosines, 10), atol=TOLERANCE)
    assert mask[rows].all()


@pytest.mark.parametrize("kind", ["ivf-sq8", "hnsw"])
def test_a_filter_that_leaves_few_rows_raises_the_effort(tmp_path: Path, kind: str) -> None:
    """With one row in fifty allowed, the effort for all rows would see hardly one of them."""
    tuning = Tuning(max_rows_scored_directly=0)
    generation = generation_of_kind(tmp_path, random_codes(0, 3000), kind, length=8, tuning=tuning)
    mask = np.zeros(3000, dtype=bool)
    mask[::50] = True
    plan = Plan(8, kind, 10 if kind == "hnsw" else 2, shortlist=40, rerank_length=CODE_LENGTH)
    queries = random_codes(1, 20)
    _, rows = generation.search(queries, plan=plan, k=10, selection=Selection(mask))
    assert (rows >= 0).mean() > 0.95


@pytest.mark.parametrize("plan", [Plan(8), Plan(8, shortlist=50, rerank_length=CODE_LENGTH), Plan(CODE_LENGTH)])
def test_a_selection_of_few_rows_is_scored_exactly_at_the_last_length(tmp_path: Path, plan: Plan) -> None:
    generation = write_generation(tmp_path, random_codes(0, 100))
    mask = np.zeros(100, dtype=bool)
    mask[[3, 50, 99]] = True
    queries = random_codes(1, 2)
    scores, rows = generation.search(queries, plan=plan, k=10, selection=Selection(mask))
    cosines = oracles.cosine(queries, generation.codes.codes, length=plan.rerank_length or plan.prefix_length)
    assert [sorted(row.tolist()) for row in rows] == [[3, 50, 99]] * 2
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, rows, 1), atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["panorama", "va-file"])
def test_more_results_than_an_index_gives_at_once_come_from_the_codes(tmp_path: Path, kind: str) -> None:
    tuning = Tuning(rows_per_run=300, max_rows_scored_directly=0)
    generation = generation_of_kind(tmp_path, random_codes(0, 1500), kind, length=CODE_LENGTH, tuning=tuning)
    assert generation.specs[-1] == IndexSpec(CODE_LENGTH, kind)
    most = KINDS[kind].max_results
    assert most is not None
    queries, mask = random_codes(1, 2), np.random.default_rng(0).random(1500) < 0.9
    cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    for k in (most, most + 1):
        scores, _ = generation.search(queries, plan=Plan(CODE_LENGTH, kind), k=k)
        np.testing.assert_allclose(scores, oracles.best_scores(cosines, k), atol=TOLERANCE)
    cosines[:, ~mask] = -2
    scores, rows = generation.search(queries, plan=Plan(CODE_LENGTH, kind), k=most + 1, selection=Selection(mask))
    np.testing.assert_allclose(scores, oracles.best_scores(cosines, most + 1), atol=TOLERANCE)
    assert mask[rows].all()


def test_an_index_that_faiss_cannot_map_is_read_by_the_first_search_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = write_generation(tmp_path, random_codes(0, 60))
    with monkeypatch.context() as refused:
        refused.setattr("faiss.read_index", lambda *_: pytest.fail("read for nothing"))
        assert [generation.max_effort(length) for length in LENGTHS] == [None] * len(LENGTHS)
        assert generation.bytes_of(CODE_LENGTH) > 0
        generation.search(random_codes(1, 1), plan=Plan(8, shortlist=20, rerank_length=CODE_LENGTH), k=3)
    assert generation.search(random_codes(1, 1), plan=Plan(CODE_LENGTH), k=3)[0].shape == (1, 3)
