"""One query, or a few, take a way of their own through an index, in fewer calls; they find what many queries find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.errors import CodesError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.plans.plan import Plan
from tests.support.codes import HARDLY_CALIBRATED, random_codes, write_codes

COUNT, LENGTH, CODE_LENGTH = 5000, 16, 96
# Fewer are answered one after the other.
MANY = 9


@pytest.fixture(scope="module", params=["flat", "sq8", "ivf", "ivf-sq8", "ivf-pq", "ivf-rabitq", "hnsw"])
def generation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    folder = tmp_path_factory.mktemp("one")
    given = random_codes(0, COUNT, CODE_LENGTH)
    given[5] = 0
    given[100:140] = given[100]  # the same score many times
    given[7] *= 1e-4  # of such a code rounding changes the norm
    given[7, 3] = 1
    codes = write_codes(folder / "codes", given)
    build_generation(
        folder / "generation",
        codes,
        BuildOptions(lengths=(LENGTH, CODE_LENGTH), kinds={LENGTH: request.param}, tuning=HARDLY_CALIBRATED),
    )
    return Generation(folder / "generation", codes)


def plan_of(generation: Generation, shortlist: int) -> Plan:
    kind, effort = generation.specs[0].kind, 40 if generation.max_effort(LENGTH) else None
    return Plan(LENGTH, kind, effort, shortlist, CODE_LENGTH)


@pytest.mark.parametrize("scale", [1, 3, 1e-7, 1e-22, 1e-25, 1e19])
@pytest.mark.parametrize(("k", "shortlist"), [(1, 1), (10, 60), (60, 300)])
def test_it_finds_what_many_do_whatever_its_norm(generation: Generation, scale: float, k: int, shortlist: int) -> None:
    assert 7 in (generation.prefix_index(LENGTH)._unnormalised_rows or ())
    plan = plan_of(generation, shortlist)
    queries = np.resize(scale * random_codes(2, 6, CODE_LENGTH), (MANY, CODE_LENGTH)).astype(np.float32)
    scores, rows = generation.search(queries, plan=plan, k=k)
    assert scores.shape == rows.shape == (MANY, k)
    few_scores, few_rows = generation.search(queries[1:], plan=plan, k=k)
    np.testing.assert_array_equal(few_rows, rows[1:])
    np.testing.assert_allclose(few_scores, scores[1:], atol=2e-6)
    for number in range(len(queries)):
        score, row = generation.search(queries[number : number + 1], plan=plan, k=k)
        assert score.shape == row.shape == (1, k)
        assert row[0].tolist() == rows[number].tolist()
        np.testing.assert_allclose(score[0], scores[number], atol=2e-6)


def test_images_that_are_the_same_are_found_once_each(generation: Generation) -> None:
    query = random_codes(0, COUNT, CODE_LENGTH)[100:101]
    scores, rows = generation.search(query, plan=plan_of(generation, 120), k=30)
    assert len(set(rows[0].tolist())) == 30
    assert set(rows[0].tolist()) <= set(range(100, 140))
    np.testing.assert_allclose(scores, 1, atol=2e-6)


def test_a_code_whose_norm_is_not_1_has_its_cosine(generation: Generation) -> None:
    query = generation.codes.codes[7:8].astype(np.float32)
    assert abs(np.linalg.norm(query) - 1) > 3e-6
    scores, rows = generation.search(query, plan=plan_of(generation, 60), k=10)
    assert rows[0, 0] == 7
    assert scores[0, 0] == pytest.approx(1, abs=1e-6)


def test_a_few_queries_are_answered_one_after_the_other(
    generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, queries = plan_of(generation, 60), random_codes(5, MANY, CODE_LENGTH)
    index = generation.prefix_index(LENGTH)
    prepared, counts = index.run_prepared, list[int]()

    def counted(queries: NDArray[np.float32], plan: Plan, k: int) -> Any:
        counts.append(len(queries))
        return prepared(queries, plan, k)

    monkeypatch.setattr(index, "run_prepared", counted)
    generation.search(queries[1:], plan=plan, k=10)
    assert set(counts) == {1}
    counts.clear()
    generation.search(queries, plan=plan, k=10)
    assert counts[0] == MANY


def test_what_it_found_stays_when_the_next_searches(generation: Generation) -> None:
    queries = random_codes(3, 2, CODE_LENGTH)
    scores, rows = generation.search(queries[:1], plan=plan_of(generation, 60), k=10)
    kept = scores.copy(), rows.copy()
    generation.search(queries[1:], plan=plan_of(generation, 60), k=10)
    np.testing.assert_array_equal(scores, kept[0])
    np.testing.assert_array_equal(rows, kept[1])


@pytest.mark.parametrize("place", [0, 3, CODE_LENGTH - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_when_the_plan_is_prepared_too(
    generation: Generation, place: int, value: float
) -> None:
    plan, query = plan_of(generation, 60), random_codes(4, 1, CODE_LENGTH)
    generation.search(query, plan=plan, k=10)
    query[0, place] = value
    with pytest.raises(CodesError, match="finite"):
        generation.search(query, plan=plan, k=10)


def test_a_query_of_another_shape_is_refused_when_the_plan_is_prepared_too(generation: Generation) -> None:
    plan, query = plan_of(generation, 60), random_codes(4, 1, CODE_LENGTH)
    generation.search(query, plan=plan, k=10)
    for wrong in (query[:, :-1], query[0], query[None]):
        with pytest.raises(CodesError, match="shape"):
            generation.search(wrong, plan=plan, k=10)


def test_a_query_of_which_only_later_coordinates_are_not_zero_finds_its_neighbours(generation: Generation) -> None:
    plan, query = plan_of(generation, 60), random_codes(4, 1, CODE_LENGTH)
    generation.search(query, plan=plan, k=10)
    query[0, 0] = 0
    scores, rows = generation.search(np.repeat(query, MANY, axis=0), plan=plan, k=10)
    score, row = generation.search(query, plan=plan, k=10)
    assert row[0].tolist() == rows[0].tolist()
    np.testing.assert_allclose(score[0], scores[0], atol=2e-6)


def test_a_query_that_nothing_is_like_finds_what_many_find(generation: Generation) -> None:
    plan, query = plan_of(generation, 60), random_codes(4, 1, CODE_LENGTH)
    generation.search(query, plan=plan, k=10)
    opposite = -generation.codes.codes.astype(np.float32).mean(0, keepdims=True)
    for wanted in (opposite, np.zeros_like(query)):
        scores, _ = generation.search(np.repeat(wanted, MANY, axis=0), plan=plan, k=10)
        score, _ = generation.search(wanted, plan=plan, k=10)
        np.testing.assert_allclose(score[0], scores[0], atol=2e-6)


def test_as_many_plans_as_are_asked_for_find_what_they_should(generation: Generation) -> None:
    query = random_codes(4, 1, CODE_LENGTH)
    plan = plan_of(generation, 60)
    for k in range(1, 300):
        expected, _ = generation.search(np.repeat(query, MANY, axis=0), plan=plan, k=k)
        scores, _ = generation.search(query, plan=plan, k=k)
        assert scores.shape == (1, k)
        np.testing.assert_allclose(scores[0], expected[0], atol=2e-6)
    assert len(generation.prefix_index(LENGTH)._prepared) <= 256
