"""Plans: what is chosen where nothing is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigenlens.index.errors import EffortError, RerankLengthError, ResultCountError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import Plan
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, generation_of_kind, random_codes, write_generation

TOLERANCE = 2e-4  # codes are kept in half precision


def make_plan(generation: Generation, *, k: int, **parts: Any) -> Plan:
    return PlanChooser(generation).choose(PlanRequest(**parts), k=k).plan


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
    assert make_plan(flat, k=10, length=CODE_LENGTH) == Plan(CODE_LENGTH, "va-file")
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
