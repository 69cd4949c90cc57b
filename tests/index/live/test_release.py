"""What is served no more goes at once, with its memory and its open files: nothing keeps itself by a cycle."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.filters.parse import parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.method_cache import cache_of
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import Optimise
from eigenlens.index.tuning import DEFAULT_TUNING
from tests.support.codes import hardly_calibrated, write_codes

TUNING = replace(hardly_calibrated(DEFAULT_TUNING), min_codes_for_ivf=1000)


def ordered_codes(seed: int, count: int) -> NDArray[np.float32]:
    """Codes whose coordinates lose variance, as those of eigenfunctions do."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 64)) * 0.95 ** np.arange(64)).astype(np.float32)


@pytest.fixture
def without_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_method_with_a_cache_does_not_keep_its_object(without_collections: None) -> None:
    class Owner:
        def __init__(self) -> None:
            self.calls = 0
            self.double = cache_of(self._double, 2)

        def _double(self, number: int) -> int:
            self.calls += 1
            return 2 * number

    owner = Owner()
    assert [owner.double(1), owner.double(1), owner.double(2)] == [2, 2, 4]
    assert owner.calls == 2
    reference = weakref.ref(owner)
    del owner
    assert reference() is None


@pytest.mark.parametrize("optimise", ["memory", "latency"])
def test_a_generation_goes_with_its_last_user(optimise: Optimise, tmp_path: Path, without_collections: None) -> None:
    if optimise == "latency":
        pytest.importorskip("svs")
    codes = write_codes(tmp_path / "codes", ordered_codes(0, 2000))
    metadata = ({"even": number % 2 == 0} for number in range(2000))
    options = BuildOptions(lengths=(8, 32, 64), metadata=metadata, optimise=optimise, tuning=TUNING)
    build_generation(tmp_path / "generation", codes, options)
    engine = LiveEngine(Generation(tmp_path / "generation", Codes(tmp_path / "codes"), tuning=TUNING))
    chooser = PlanChooser(engine)
    queries = ordered_codes(1, 3)
    for plan_request in (PlanRequest(), PlanRequest(32), PlanRequest(target_recall=0.9), PlanRequest(64)):
        plan = chooser.choose(plan_request, k=10).plan
        engine.search(queries, plan=plan, k=10)
        for condition in ({"even": True}, {"$code": {"1": {"$gte": 0}}}):
            where = parse_filter(condition)
            reach = engine.reach(queries, k=10, filter=where)[0]
            plan = chooser.choose_filtered(plan_request, k=10, reach=reach).plan
            engine.search(queries, plan=plan, k=10, filter=where)
    engine.remove([int(engine.keys[5])])
    engine.search(queries, plan=chooser.choose(PlanRequest(), k=10).plan, k=10)
    references = [weakref.ref(one) for one in (engine, engine.generation, engine.generation.codes, chooser)]
    del engine, chooser
    assert [reference() for reference in references] == [None] * 4
