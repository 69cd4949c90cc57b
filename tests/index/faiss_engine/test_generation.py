"""Searches of generations: real FAISS against plain loops."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens.index.codes.exact import exact_search
from eigenlens.index.errors import CodesError, PrefixLengthError, ResultCountError
from eigenlens.index.plans.plan import Plan
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, LENGTHS, random_codes, repeatable, write_generation

SEEDS = st.integers(0, 2**31)


TOLERANCE = 2e-6


def at_rows(scores: oracles.Array, rows: NDArray[np.int64]) -> oracles.Array:
    """The scores of the rows that were returned."""
    assert (rows >= 0).all()
    for row in rows:
        assert len(set(row.tolist())) == len(row), "no row is returned twice"
    return np.take_along_axis(scores, rows, 1)


@repeatable
@given(seed=SEEDS, n=st.integers(1, 30), k=st.integers(1, 40), length=st.sampled_from(LENGTHS))
def test_a_prefix_search_finds_the_largest_cosines_of_the_prefix(seed: int, n: int, k: int, length: int) -> None:
    queries = random_codes(seed + 1, 3)
    with tempfile.TemporaryDirectory() as folder:
        generation = write_generation(Path(folder), random_codes(seed, n))
        scores, rows = generation.search(queries, plan=Plan(length), k=k)
        cosines = oracles.cosine(queries, generation.codes.codes, length=length)
    best = oracles.best_scores(cosines, k)
    assert scores.shape == rows.shape == (3, min(k, n))
    np.testing.assert_allclose(scores, best, atol=TOLERANCE)
    np.testing.assert_allclose(at_rows(cosines, rows), best, atol=TOLERANCE)


@repeatable
@given(seed=SEEDS, n=st.integers(1, 30), k=st.integers(1, 40), rerank=st.integers(5, CODE_LENGTH))
def test_shortlisting_the_whole_gallery_is_exhaustive_search(seed: int, n: int, k: int, rerank: int) -> None:
    queries = random_codes(seed + 1, 3)
    with tempfile.TemporaryDirectory() as folder:
        generation = write_generation(Path(folder), random_codes(seed, n))
        scores, rows = generation.search(queries, plan=Plan(4, shortlist=n, rerank_length=rerank), k=k)
        cosines = oracles.cosine(queries, generation.codes.codes, length=rerank)
    best = oracles.best_scores(cosines, k)
    assert scores.shape == rows.shape == (3, min(k, n))
    np.testing.assert_allclose(scores, best, atol=TOLERANCE)
    np.testing.assert_allclose(at_rows(cosines, rows), best, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(8))
def test_a_rerank_is_the_exact_best_of_the_shortlist_and_of_nothing_else(tmp_path: Path, seed: int) -> None:
    generation = write_generation(tmp_path, random_codes(seed, 60))
    queries = random_codes(100 + seed, 4)
    scores, rows = generation.search(queries, plan=Plan(4, shortlist=6, rerank_length=CODE_LENGTH), k=5)
    shortlists = oracles.top_k(oracles.cosine(queries, generation.codes.codes, length=4), 6)
    cosines = oracles.cosine(queries, generation.codes.codes, length=CODE_LENGTH)
    for query, shortlist in enumerate(shortlists):
        expected = sorted(shortlist, key=cosines[query].tolist().__getitem__, reverse=True)[:5]
        assert rows[query].tolist() == expected
        np.testing.assert_allclose(scores[query], cosines[query, expected], atol=TOLERANCE)
    assert rows.tolist() != oracles.top_k(cosines, 5), "a case where the shortlist misses something"


# By the first two coordinates the query is nearest to row 0, then 1, 2, 3; by all four, row 3 is the query itself.
QUERY = np.array([[1, 0, 1, 0]], dtype=np.float32)


ROWS = np.array([[10, 0, 0, 9], [9, 1, 0, 0], [8, 2, 8, 0], [1, 0.5, 1, 0]], dtype=np.float32)


def test_a_rerank_turns_the_order_of_the_prefix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generation = write_generation(Path(folder), ROWS, lengths=(2, 4))
        _, by_prefix = generation.search(QUERY, plan=Plan(2), k=4)
        scores, reranked = generation.search(QUERY, plan=Plan(2, shortlist=4, rerank_length=4), k=4)
        _, short = generation.search(QUERY, plan=Plan(2, shortlist=2, rerank_length=4), k=2)
    assert by_prefix.tolist() == [[0, 1, 2, 3]]
    assert reranked.tolist() == [[2, 3, 1, 0]]
    np.testing.assert_allclose(scores[0, 0], 16 / np.sqrt(2 * 132), atol=1e-3)
    assert short.tolist() == [[1, 0]], "rows 2 and 3 are not in a shortlist of 2"


def test_the_prefix_is_normalised_after_slicing_and_not_before() -> None:
    """Row 0 points along the query's prefix, though most of its length lies outside the prefix; row 1 the reverse."""
    codes = np.array([[1, 0, 0, 30], [10, 5, 0, 0]], dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        generation = write_generation(Path(folder), codes, lengths=(2, 4))
        scores, rows = generation.search(np.array([[5, 0, 70, 0]], dtype=np.float32), plan=Plan(2), k=2)
    assert rows.tolist() == [[0, 1]]
    np.testing.assert_allclose(scores, [[1, 2 / np.sqrt(5)]], atol=1e-3)


def test_scores_do_not_depend_on_norms(tmp_path: Path) -> None:
    codes, queries = random_codes(0, 20), random_codes(1, 3)
    scales = np.random.default_rng(2).choice([0.125, 0.5, 1, 4, 64], (20, 1)).astype(np.float32)
    plain = write_generation(tmp_path / "plain", codes)
    scaled = write_generation(tmp_path / "scaled", codes * scales)
    for plan in (Plan(4), Plan(CODE_LENGTH), Plan(4, shortlist=10, rerank_length=8)):
        first, second = plain.search(queries, plan=plan, k=20), scaled.search(queries * 32, plan=plan, k=20)
        np.testing.assert_array_equal(first[1], second[1])
        np.testing.assert_allclose(first[0], second[0], atol=TOLERANCE)


@pytest.mark.parametrize("plan", [Plan(4), Plan(CODE_LENGTH), Plan(4, shortlist=1000, rerank_length=CODE_LENGTH)])
def test_more_results_than_images_are_all_images(tmp_path: Path, plan: Plan) -> None:
    generation = write_generation(tmp_path, random_codes(0, 7))
    scores, rows = generation.search(random_codes(1, 2), plan=plan, k=1000)
    assert scores.shape == (2, 7)
    assert np.sort(rows, axis=1).tolist() == [list(range(7))] * 2
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("plan", [Plan(4), Plan(4, shortlist=7, rerank_length=CODE_LENGTH)])
def test_zero_vectors_score_zero(tmp_path: Path, plan: Plan) -> None:
    codes = np.abs(random_codes(0, 7))
    codes[3] = 0
    generation = write_generation(tmp_path, codes)
    queries = np.abs(random_codes(1, 2))
    queries[1] = 0
    scores, rows = generation.search(queries, plan=plan, k=7)
    assert (scores[0, 6], rows[0, 6]) == (0, 3)
    assert (scores[0, :6] > 0).all()
    np.testing.assert_array_equal(scores[1], 0)
    assert sorted(rows[1].tolist()) == list(range(7))


def test_a_code_whose_prefix_alone_is_zero_is_found_by_a_longer_one(tmp_path: Path) -> None:
    codes = random_codes(0, 5)
    codes[2, :4] = 0
    generation = write_generation(tmp_path, codes)
    short, _ = generation.search(codes[2:3], plan=Plan(4), k=5)
    np.testing.assert_array_equal(short, 0)
    scores, rows = generation.search(codes[2:3], plan=Plan(8), k=1)
    assert rows[0, 0] == 2
    np.testing.assert_allclose(scores[0, 0], 1, atol=1e-3)


@pytest.mark.parametrize("plan", [Plan(4), Plan(CODE_LENGTH), Plan(4, shortlist=6, rerank_length=CODE_LENGTH)])
def test_duplicates_are_all_found_with_one_score(tmp_path: Path, plan: Plan) -> None:
    codes = random_codes(0, 4)
    generation = write_generation(tmp_path, np.concatenate([codes, codes[[1, 1]]]))
    scores, rows = generation.search(codes[1:2], plan=plan, k=3)
    assert sorted(rows[0].tolist()) == [1, 4, 5]
    assert len(set(scores[0].tolist())) == 1


def test_a_shortlist_is_never_shorter_than_the_results(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 20))
    scores, _ = generation.search(random_codes(1, 2), plan=Plan(4, shortlist=3, rerank_length=8), k=10)
    assert scores.shape == (2, 10)


def test_no_queries_have_no_results(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    for plan in (Plan(4), Plan(4, shortlist=5, rerank_length=8)):
        scores, rows = generation.search(random_codes(1, 0), plan=plan, k=3)
        assert scores.shape == rows.shape == (0, 3)


def test_searches_in_several_threads_answer_as_in_one(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 200))
    plans = [Plan(4), Plan(8), Plan(4, shortlist=50, rerank_length=CODE_LENGTH)] * 20

    def search(number: int) -> NDArray[np.int64]:
        return generation.search(random_codes(number, 3), plan=plans[number], k=10)[1]

    alone = [search(number) for number in range(len(plans))]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(search, range(len(plans))))
    np.testing.assert_array_equal(together, alone)


def test_an_unbuilt_length_is_refused_and_the_built_ones_named(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    for ask in (
        lambda: generation.search(random_codes(1, 1), plan=Plan(5), k=1),
        lambda: generation.bytes_of(5),
    ):
        with pytest.raises(PrefixLengthError, match="prefix length 5 was not built; available: 4, 8, 16") as caught:
            ask()
        assert (caught.value.requested, caught.value.available) == (5, LENGTHS)


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_results_than_one_are_refused(tmp_path: Path, k: int) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    with pytest.raises(ResultCountError, match=f"k is {k}"):
        generation.search(random_codes(1, 1), plan=Plan(4), k=k)


@pytest.mark.parametrize("shape", [(CODE_LENGTH,), (2, CODE_LENGTH - 1), (2, CODE_LENGTH + 1), (1, 1, CODE_LENGTH)])
def test_queries_of_another_length_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    with pytest.raises(CodesError, match="codes here have 16 coordinates"):
        generation.search(np.ones(shape, dtype=np.float32), plan=Plan(4), k=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("coordinate", [0, CODE_LENGTH - 1])
def test_a_query_that_is_not_finite_is_not_answered_with_row_minus_one(
    tmp_path: Path, value: float, coordinate: int
) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    queries = random_codes(1, 2)
    queries[1, coordinate] = value
    for plan in (Plan(4), Plan(4, shortlist=5, rerank_length=CODE_LENGTH)):
        with pytest.raises(CodesError, match="not finite"):
            generation.search(queries, plan=plan, k=1)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-20])
def test_a_query_of_any_scale_is_answered_alike(tmp_path: Path, scale: float) -> None:
    generation = write_generation(tmp_path, random_codes(0, 40))
    query = random_codes(1, 1)
    for plan in (Plan(8), Plan(8, shortlist=20, rerank_length=CODE_LENGTH), Plan(8, shortlist=20, rerank_length=12)):
        expected = generation.search(query, plan=plan, k=5)
        found = generation.search(query * np.float32(scale), plan=plan, k=5)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=TOLERANCE)


@repeatable
@given(seed=SEEDS, n=st.integers(1, 30), k=st.integers(1, 40), length=st.integers(1, CODE_LENGTH))
def test_exact_search_finds_the_largest_cosines(seed: int, n: int, k: int, length: int) -> None:
    gallery, queries = random_codes(seed, n), random_codes(seed + 1, 3)
    scores, rows = exact_search(gallery, queries, length=length, k=k)
    cosines = oracles.cosine(queries, gallery, length=length)
    best = oracles.best_scores(cosines, k)
    assert scores.shape == rows.shape == (3, min(k, n))
    np.testing.assert_allclose(scores, best, atol=TOLERANCE)
    np.testing.assert_allclose(at_rows(cosines, rows), best, atol=TOLERANCE)
