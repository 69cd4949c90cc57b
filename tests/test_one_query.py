"""One query takes a way of its own through an index, in fewer calls; it finds what many queries find."""

from __future__ import annotations

import numpy as np
import pytest

from index.generation import Generation, build_generation
from index.plan import Plan
from tests.builders import random_codes, write_codes

COUNT, LENGTH, CODE_LENGTH = 20_000, 16, 96


@pytest.fixture(scope="module", params=["flat", "sq8", "ivf", "ivf-sq8", "ivf-pq", "ivf-rabitq", "hnsw"])
def generation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    folder = tmp_path_factory.mktemp("one")
    given = random_codes(0, COUNT, CODE_LENGTH)
    given[5] = 0
    given[100:140] = given[100]  # the same score many times
    given[7] *= 1e-4  # of such a code rounding changes the norm
    given[7, 3] = 1
    codes = write_codes(folder / "codes", given)
    build_generation(folder / "generation", codes, lengths=(LENGTH, CODE_LENGTH), kinds={LENGTH: request.param})
    return Generation(folder / "generation", codes)


def plan_of(generation: Generation, shortlist: int) -> Plan:
    kind, effort = generation.specs[0].kind, 40 if generation.max_effort(LENGTH) else None
    return Plan(LENGTH, kind, effort, shortlist, CODE_LENGTH)


@pytest.mark.parametrize("scale", [1, 3, 1e-7, 1e-25, 1e19])
@pytest.mark.parametrize(("k", "shortlist"), [(1, 1), (10, 60), (60, 300)])
def test_it_finds_what_many_do_whatever_its_norm(generation: Generation, scale: float, k: int, shortlist: int) -> None:
    assert 7 in (generation._require(LENGTH)._uneven or ())
    plan = plan_of(generation, shortlist)
    queries = (scale * random_codes(2, 6, CODE_LENGTH)).astype(np.float32)
    scores, rows = generation.search(queries, plan=plan, k=k)
    assert scores.shape == rows.shape == (6, k)
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


def test_what_it_found_stays_when_the_next_searches(generation: Generation) -> None:
    queries = random_codes(3, 2, CODE_LENGTH)
    scores, rows = generation.search(queries[:1], plan=plan_of(generation, 60), k=10)
    kept = scores.copy(), rows.copy()
    generation.search(queries[1:], plan=plan_of(generation, 60), k=10)
    np.testing.assert_array_equal(scores, kept[0])
    np.testing.assert_array_equal(rows, kept[1])
