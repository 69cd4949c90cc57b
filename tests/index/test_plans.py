"""Plans: what is chosen where nothing is asked for, what is refused, and what every kind of index finds."""

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

from eigenlens.index.building.row_order import order_rows, sample_size
from eigenlens.index.errors import EffortError, IndexKindError, RerankLengthError, ResultCountError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.kinds import KINDS, graph_of_lists, list_count
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import (
    CODE_LENGTH,
    LENGTHS,
    generation_of_kind,
    random_codes,
    repeatable,
    write_codes,
    write_generation,
)

TOLERANCE = 2e-4  # codes are kept in half precision


def make_plan(generation: Generation, *, k: int, **parts: Any) -> Plan:
    return PlanChooser(generation).choose(PlanRequest(**parts), k=k).plan


def lengths_of(kind: str) -> tuple[int, ...]:
    return (CODE_LENGTH,) if kind == "half" else LENGTHS


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
            scores, rows = generation.search(queries, plan=Plan(CODE_LENGTH, "panorama"), k=k, selection=selection)
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


def test_more_results_than_an_index_gives_at_once_come_from_the_codes(tmp_path: Path) -> None:
    tuning = Tuning(rows_per_run=300, max_rows_scored_directly=0)
    generation = write_generation(tmp_path, random_codes(0, 1500), tuning=tuning)
    assert generation.specs[-1] == IndexSpec(CODE_LENGTH, "panorama")
    most = KINDS["panorama"].max_results
    assert most is not None
    queries, mask = random_codes(1, 2), np.random.default_rng(0).random(1500) < 0.9
    cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    for k in (most, most + 1):
        scores, _ = generation.search(queries, plan=Plan(CODE_LENGTH, "panorama"), k=k)
        np.testing.assert_allclose(scores, oracles.best_scores(cosines, k), atol=TOLERANCE)
    cosines[:, ~mask] = -2
    scores, rows = generation.search(queries, plan=Plan(CODE_LENGTH, "panorama"), k=most + 1, selection=Selection(mask))
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


def test_the_view_of_the_mapped_codes_is_the_codes(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 50))
    view = codes.scan(40)
    assert (view.ntotal, view.d) == (40, CODE_LENGTH)
    np.testing.assert_array_equal(view.reconstruct_n(0, 40), codes.codes[:40].astype(np.float32))


def test_a_plan_for_a_lossy_index_rescores_at_its_own_length(tmp_path: Path) -> None:
    generation = generation_of_kind(tmp_path, random_codes(0, 300), "ivf-sq8", length=8)
    plan = make_plan(generation, k=10, length=8)
    assert (plan.kind, plan.shortlist, plan.rerank_length) == ("ivf-sq8", 240, 8)
    assert plan.effort is not None
    assert 1 <= plan.effort <= (generation.max_effort(8) or 0)
    queries = random_codes(1, 4)
    scores, rows = generation.search(queries, plan=plan, k=10)
    cosines = oracles.cosine(queries, generation.codes.codes, length=8)
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, rows, 1), atol=TOLERANCE)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return write_generation(tmp_path_factory.mktemp("plans"), random_codes(0, 40))


def test_a_plan_without_a_rerank_has_no_shortlist(flat: Generation) -> None:
    assert make_plan(flat, k=10, length=8) == Plan(8)
    assert make_plan(flat, k=10, length=CODE_LENGTH) == Plan(CODE_LENGTH, "panorama")
    with pytest.raises(ResultCountError, match="needs a rerank"):
        make_plan(flat, length=8, k=10, shortlist=100)


def test_a_shortlist_grows_with_k(flat: Generation) -> None:
    assert make_plan(flat, length=8, k=1, rerank=16) == Plan(8, shortlist=240, rerank_length=16)
    assert make_plan(flat, length=8, k=24, rerank=16).shortlist == 240
    assert make_plan(flat, length=8, k=50, rerank=16).shortlist == 1000
    assert make_plan(flat, length=8, k=5000, rerank=16).shortlist == 100_000
    assert make_plan(flat, length=8, k=50, rerank=16, shortlist=50).shortlist == 50
    with pytest.raises(ResultCountError, match="shortlist of 49 cannot give 50 results"):
        make_plan(flat, length=8, k=50, rerank=16, shortlist=49)


def test_a_query_that_is_indexed_itself_takes_no_place_of_the_shortlist() -> None:
    assert Plan(8, shortlist=30, rerank_length=16).excluding(1) == Plan(8, shortlist=31, rerank_length=16)
    assert Plan(8).excluding(1) == Plan(8)


@pytest.mark.parametrize(
    ("length", "rerank_length", "message"),
    [
        (8, 8, "give a number from 9 to 16"),
        (8, 4, "give a number from 9 to 16"),
        (8, 17, "give a number from 9 to 16"),
        (16, 16, "already uses all 16"),
    ],
)
def test_a_rerank_uses_more_coordinates_than_the_prefix(
    flat: Generation, length: int, rerank_length: int, message: str
) -> None:
    with pytest.raises(RerankLengthError, match=message):
        make_plan(flat, length=length, k=10, rerank=rerank_length)


def test_an_effort_that_an_index_does_not_have_is_refused(flat: Generation, tmp_path: Path) -> None:
    with pytest.raises(EffortError, match="of kind 'flat', which has no effort"):
        make_plan(flat, k=10, length=8, effort=3)
    lists = generation_of_kind(tmp_path, random_codes(0, 300), "ivf", length=8)
    assert make_plan(lists, k=10, length=8, effort=10**6).effort == lists.max_effort(8)


def test_kinds_suit_the_number_of_codes() -> None:
    def kinds(count: int) -> list[str]:
        return [spec.kind for spec in choose_indexes(count, lengths=(8, 64, 256))]

    assert kinds(1000) == ["flat", "flat", "panorama"]
    assert kinds(1_000_000) == ["ivf-sq8", "ivf-pq", "panorama"]
    assert kinds(10_000_000) == ["ivf-sq8", "ivf-pq", "half"]


def test_lists_hold_enough_vectors_to_train() -> None:
    for count in (1, 38, 100, 5000, 10**6, 10**8):
        lists = list_count(count)
        assert lists == 1 or count / lists >= 39
        assert lists & (lists - 1) == 0
    assert list_count(10**6) == 4096


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({8: "annoy"}, "no index kind 'annoy'; available: flat, panorama"),
        ({9: "flat"}, "length 9, which is not built"),
        ({8: "half"}, "for length 16 only"),
    ],
)
def test_kinds_that_cannot_be_built_are_refused(kinds: dict[int, str], message: str) -> None:
    with pytest.raises(IndexKindError, match=message):
        choose_indexes(100, lengths=(8, 16), kinds=kinds)


def test_rows_are_found_by_key_in_any_order(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).permutation(np.arange(10, 60, 2))
    codes = write_codes(tmp_path / "codes", random_codes(0, 25), keys=keys.tolist())
    assert codes.rows_of(keys).tolist() == list(range(25))
    assert codes.rows_of(np.array([11, 9, 1000])).tolist() == [-1, -1, -1]
    assert codes.last_key == 58


def test_a_sample_lies_at_equal_distances_whatever_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 25))
    for run in (4, 10, 100):
        monkeypatch.setattr(codes, "tuning", Tuning(rows_per_run=run))
        np.testing.assert_array_equal(codes.sample(7), codes.codes[::4])
        assert len(codes.sample(1000)) == 25


def test_near_codes_lie_near_each_other_and_the_last_rows_are_a_sample() -> None:
    tuning = Tuning(min_codes_for_groups=1000, row_groups=32)
    centres = np.random.default_rng(0).normal(size=(32, CODE_LENGTH))
    of_centre = np.random.default_rng(1).integers(0, 32, 4000)
    codes = (centres[of_centre] + 0.05 * np.random.default_rng(2).normal(size=(4000, CODE_LENGTH))).astype(np.float32)
    order = order_rows(lambda start, stop: codes[start:stop], 4000, tuning=tuning)
    assert sorted(order.tolist()) == list(range(4000))
    kept, sample = order[: -sample_size(4000)], order[-sample_size(4000) :]
    assert (np.diff(of_centre[kept]) != 0).mean() < 0.3, "groups lie together"
    assert len(set(of_centre[sample].tolist())) == 32, "the sample is of all groups"
    assert (np.diff(of_centre[sample]) != 0).mean() > 0.9
