"""Second lists: which codes have one, which list it is, and that no row is returned twice for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.spilling import choose_second_lists
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.kinds import list_count
from eigenlens.index.faiss_engine.prefix_index import without_repeats
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan
from eigenlens.index.tuning import DEFAULT_TUNING
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, HARDLY_CALIBRATED, random_codes, write_codes

COUNT, LENGTH = 20_000, 8


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    folder = tmp_path_factory.mktemp("second")
    codes = write_codes(folder / "codes", random_codes(0, COUNT))
    build_generation(
        folder / "generation",
        codes,
        BuildOptions(lengths=(LENGTH, CODE_LENGTH), kinds={LENGTH: "ivf-pq"}, tuning=HARDLY_CALIBRATED),
    )
    return Generation(folder / "generation", codes)


def rows_by_list(generation: Generation) -> list[NDArray[np.int64]]:
    index = generation.prefix_index(LENGTH).index
    lists = index.invlists
    return [faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy() for number in range(index.nlist)]


def plan_of(effort: int, shortlist: int = 40) -> Plan:
    return Plan(LENGTH, "ivf-pq", effort, shortlist, CODE_LENGTH)


def test_the_codes_least_like_their_centroid_are_in_two_lists(generation: Generation) -> None:
    held = Counter(np.concatenate(rows_by_list(generation)).tolist())
    assert set(held) == set(range(COUNT))
    assert set(held.values()) == {1, 2}
    twice = np.array([row for row, times in held.items() if times == 2])
    assert len(twice) / COUNT == pytest.approx(DEFAULT_TUNING.spilled_share, abs=0.06)
    index = generation.prefix_index(LENGTH).index
    prefixes = oracles.unit_prefix(generation.codes.codes, LENGTH).astype(np.float32)
    centroids = faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist)
    likeness = (prefixes @ centroids.T).max(1)
    once = np.setdiff1d(np.arange(COUNT), twice)
    assert likeness[twice].max() <= likeness[once].min() + 1e-5


def test_a_second_list_errs_in_another_direction() -> None:
    rng = np.random.default_rng(3)
    vectors = oracles.unit_prefix(rng.standard_normal((50, 6)), 6).astype(np.float32)
    centroids = oracles.unit_prefix(rng.standard_normal((20, 6)), 6).astype(np.float32)
    lists = np.argsort(-vectors @ centroids.T, axis=1)[:, :5]
    lists[0, 3:] = -1
    for vector, candidates, found in zip(vectors, lists, choose_second_lists(vectors, lists, centroids), strict=True):
        first = vector - centroids[candidates[0]]
        losses = {}
        for candidate in candidates[1:]:
            if candidate >= 0:
                error = vector - centroids[candidate]
                along = float(error @ first) / float(np.linalg.norm(first))
                losses[int(candidate)] = float(error @ error) + along**2
        assert losses[int(found)] == pytest.approx(min(losses.values()), rel=1e-4)
        assert found != candidates[0]


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("rerank_length", [LENGTH, 12, CODE_LENGTH])
@pytest.mark.parametrize(("k", "shortlist"), [(1, 1), (10, 10), (60, 100)])
def test_no_row_is_returned_twice(
    generation: Generation, queries: int, rerank_length: int, k: int, shortlist: int
) -> None:
    lists = generation.max_effort(LENGTH)
    assert lists == list_count(COUNT)
    asked = random_codes(1, queries)
    for effort in (3, 20, lists):
        plan = Plan(LENGTH, "ivf-pq", effort, shortlist, rerank_length)
        scores, rows = generation.search(asked, plan=plan, k=k)
        assert scores.shape == rows.shape == (queries, k)
        for found in rows:
            assert len(set(found.tolist())) == k
        assert (rows >= 0).all()
        assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("queries", [1, 5])
def test_where_fewer_are_found_the_places_left_are_empty(generation: Generation, queries: int) -> None:
    k = 3000
    scores, rows = generation.prefix_index(LENGTH).run(random_codes(2, queries), plan=plan_of(1, shortlist=k), k=k)
    assert rows.shape == (queries, k)
    for found, score in zip(rows, scores, strict=True):
        there = found[found >= 0]
        assert 0 < len(there) < k
        assert len(set(there.tolist())) == len(there)
        assert (found[len(there) :] == -1).all()
        assert np.isneginf(score[len(there) :]).all()


@pytest.mark.parametrize("queries", [1, 5])
def test_where_one_list_holds_fewer_a_search_visits_more(generation: Generation, queries: int) -> None:
    k = 3000
    scores, rows = generation.search(random_codes(2, queries), plan=plan_of(1, shortlist=k), k=k)
    assert rows.shape == (queries, k)
    assert (rows >= 0).all()
    assert [len(set(found)) for found in rows.tolist()] == [k] * queries
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_selection_holds_for_both_lists(generation: Generation) -> None:
    mask = np.arange(COUNT) % 3 == 0
    _, rows = generation.search(random_codes(3, 4), plan=plan_of(20, 400), k=50, selection=Selection(mask))
    for found in rows:
        assert (found % 3 == 0).all()
        assert len(set(found.tolist())) == 50


def test_as_many_lists_find_more_with_second_ones(generation: Generation, tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, COUNT))
    tuning = replace(HARDLY_CALIBRATED, spilled_share=0.0)
    build_generation(
        tmp_path / "generation",
        codes,
        BuildOptions(lengths=(LENGTH, CODE_LENGTH), kinds={LENGTH: "ivf-pq"}, tuning=tuning),
    )
    plain = Generation(tmp_path / "generation", codes)
    asked = random_codes(4, 200)
    exact = generation.search(asked, plan=Plan(CODE_LENGTH, "va-file"), k=10)[1]

    def recall(searched: Generation) -> float:
        found = searched.search(asked, plan=plan_of(8, 1000), k=10)[1]
        by_key = generation.codes.keys[exact], searched.codes.keys[found]
        return float(np.mean([np.isin(wanted, got).mean() for wanted, got in zip(*by_key, strict=True)]))

    assert recall(generation) > recall(plain) + 0.03


def test_repeats_leave_the_first_place_alone() -> None:
    scores = np.array([[0.9, 0.9, 0.5, 0.4, -np.inf], [0.8, 0.7, 0.6, 0.5, 0.4]], dtype=np.float32)
    rows = np.array([[7, 7, 3, 7, -1], [1, 2, 3, 4, 5]])
    kept, found = without_repeats(scores, rows)
    assert found.tolist() == [[7, -1, 3, -1, -1], [1, 2, 3, 4, 5]]
    assert kept[0].tolist() == [np.float32(0.9), -np.inf, 0.5, -np.inf, -np.inf]
    assert kept[1].tolist() == scores[1].tolist()
