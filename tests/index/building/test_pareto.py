"""Which plans are worth timing: those that may lie on the front, close enough to each other for targets."""

from __future__ import annotations

from itertools import pairwise

from eigenlens.index.building.calibrating.pareto import near_front
from eigenlens.index.plans.calibration import Measured, Recall
from eigenlens.index.plans.plan import Plan


def of(recall: float, p50: float, shortlist: int) -> Measured:
    return Measured(Plan(64, "ivf-pq", 4, shortlist, 128), {10: Recall(recall, recall)}, {"p50": p50})


def test_a_target_below_098_finds_a_plan_within_four_thousandths_above() -> None:
    """Each plan is a thousandth better than the one before and takes a thousandth longer."""
    plans = [of(0.8 + i / 1000, 1 + i / 1000, i) for i in range(200)]
    recalls = sorted(m.low(10) for m in near_front(plans, k=10, sure=1.01))
    within = [recall for recall in recalls if 0.88 <= recall <= 0.98]
    assert within[0] < 0.884
    assert max(b - a for a, b in pairwise(within)) < 0.004
    assert len(recalls) < 150, "others are alike"


def test_plans_that_others_beat_for_certain_are_left_out() -> None:
    good, near, bad = of(0.95, 1.0, 10), of(0.95, 1.005, 11), of(0.94, 1.05, 12)
    assert near_front([good, near, bad], k=10, sure=1.01) == [good, near]
