"""The plan of a search in a snapshot from which images were removed, and the recall that it states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.filters.parse import Filter, parse_filter
from eigenlens.index.plans.calibration import Calibration, Measured, Recall
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import Snapshot
from tests.support.codes import CODE_LENGTH, ENCODER_ID, random_codes
from tests.support.numpy_engine import NumpyEngine

COUNT = 50
LATENCIES = {"p50": 1.0, "p95": 1.0, "p99": 1.0}


class Reaching(NumpyEngine):
    """An engine whose searches reach as far as it is told, and that has a plan for 10 and for 24 results."""

    reached = 10

    def __init__(self) -> None:
        metadata = [{"n": n} for n in range(COUNT)]
        super().__init__(
            range(COUNT), random_codes(0, COUNT), metadata, lengths=(4, CODE_LENGTH), encoder_id=ENCODER_ID
        )
        ten, more = Plan(4, "numpy", None, 240, CODE_LENGTH), Plan(4, "numpy", None, 300, CODE_LENGTH)
        plans = (
            Measured(ten, {10: Recall(0.995, 0.992)}, LATENCIES),
            Measured(more, {10: Recall(0.999, 0.999), 24: Recall(0.996, 0.993)}, {**LATENCIES, "p50": 2.0}),
            Measured(Plan(CODE_LENGTH, "numpy"), {}, {**LATENCIES, "p50": 9.0}, exact=True),
        )
        self.calibration = Calibration(plans, efforts={}, queries=50)

    def reach(self, codes: NDArray[np.float32], *, k: int, filter: Filter | None = None) -> list[Reach | None]:
        return [Reach(self.reached)] * len(codes)


def stated(engine: Reaching, request: SearchRequest) -> tuple[int | None, float | None]:
    """The shortlist of the plan that a search runs, and the recall that it states."""
    records = SimpleNamespace(present=lambda keys: {key: SimpleNamespace(key=key) for key in keys})
    snapshot = Snapshot(1, engine, cast("Any", None), cast("Any", records), lambda: None)
    result = snapshot.search_batch(random_codes(1, 1), [request])[0]
    recall = None if result.measured is None else result.measured.recall_for(10)
    return result.plan.shortlist, None if recall is None else recall.mean


def test_a_search_that_hardly_reaches_farther_keeps_its_plan_and_states_its_recall() -> None:
    """One removed image of 70,000 made every search run a plan for more results, and state no recall."""
    engine = Reaching()
    assert stated(engine, SearchRequest(10)) == (240, 0.995)
    engine.remove([7])
    engine.reached = 11
    assert stated(engine, SearchRequest(10)) == (240, 0.995)
    engine.reached = 20
    shortlist, recall = stated(engine, SearchRequest(10))
    assert shortlist is not None
    assert recall is None
    engine.reached = 11
    assert stated(engine, SearchRequest(10, filter=parse_filter({"n": {"$gt": 0}})))[1] is None
