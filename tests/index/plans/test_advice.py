"""Advice to rebuild, and limits on latency that count what was added since the build."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eigenlens.index.errors import TargetError
from eigenlens.index.plans.advice import advise_rebuild
from eigenlens.index.plans.calibration import Calibration, Measured, Recall
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach
from tests.support.codes import CODE_LENGTH, ENCODER_ID, random_codes
from tests.support.numpy_engine import NumpyEngine

COUNT = 100


def measured(plan: Plan, ms: float, recall: float) -> Measured:
    """A plan that takes so long, and longer for a thousand results, of which it finds none."""
    return Measured(plan, {10: Recall(recall, recall)}, {"p50": ms, "p95": 1.2 * ms, "p99": 2 * ms}, exact=recall == 1)


class ChangedEngine(NumpyEngine):
    """An engine with two plans, one exact, and a delta that takes as long as it is told to."""

    def __init__(self) -> None:
        codes = random_codes(0, COUNT)
        lengths = (4, CODE_LENGTH)
        super().__init__(range(COUNT), codes, [{}] * COUNT, lengths=lengths, encoder_id=ENCODER_ID)
        plans = (measured(Plan(4, "numpy"), 0.5, 0.991), measured(Plan(CODE_LENGTH, "numpy"), 2.0, 1.0))
        self.calibration = Calibration(plans, efforts={}, queries=50)
        self.added_ms = 0.0


def test_a_rebuild_is_advised_when_searches_are_slower_for_what_was_added() -> None:
    engine = ChangedEngine()
    assert advise_rebuild(engine) is None
    engine.added_ms = 0.1
    assert advise_rebuild(engine) is None
    engine.added_ms = 3.25
    engine.add(range(COUNT, COUNT + 7), random_codes(1, 7), [{}] * 7)
    advice = advise_rebuild(engine)
    assert advice is not None
    assert "7 images were added since the build" in advice.reason
    assert "3.2 ms of each search" in advice.reason
    assert (advice.gain_ms, advice.gain_bytes) == (3.25, 0)


def test_a_rebuild_is_advised_when_many_images_were_removed() -> None:
    engine = ChangedEngine()
    engine.remove(range(20))
    engine.calibration = replace(
        engine.calibration,
        measured=tuple(replace(m, recall={10: m.recall[10], 24: m.recall[10]}) for m in engine.calibration.measured),
    )
    assert advise_rebuild(engine) is None
    engine.remove(range(50))
    advice = advise_rebuild(engine)
    assert advice is not None
    assert advice.reason == "50 of 100 images in the indexes were removed since the build"
    assert (advice.gain_ms, advice.gain_bytes) == (0, 50 * 2 * CODE_LENGTH)
    engine.remove(range(70))  # ten of those that are left are among 33, for which only the exact plan was measured
    advice = advise_rebuild(engine)
    assert advice is not None
    assert advice.gain_ms == pytest.approx(1.5)


def test_a_gallery_whose_plans_meet_no_target_gets_advice_too() -> None:
    engine = ChangedEngine()
    engine.calibration = replace(engine.calibration, measured=engine.calibration.measured[:1])
    engine.remove(range(70))
    advice = advise_rebuild(engine)
    assert advice is not None
    assert advice.gain_ms == 0


def test_a_limit_on_latency_counts_what_was_added() -> None:
    engine = ChangedEngine()
    chooser = PlanChooser(engine)
    request = PlanRequest(max_latency_ms=3.0)
    assert chooser.choose(request, k=10).plan.prefix_length == CODE_LENGTH
    engine.added_ms = 1.5
    chosen = chooser.choose(request, k=10)
    assert chosen.plan.prefix_length == 4
    assert chosen.measured is not None
    assert chosen.measured.latency_ms["p50"] == 2.0, "what a search takes with what was added"
    engine.added_ms = 4.0
    with pytest.raises(TargetError, match=r"takes 4\.6 ms, of which 4 ms are for images that were added"):
        chooser.choose(request, k=10)
    with pytest.raises(TargetError, match="of which 4 ms are for images that were added"):
        chooser.choose(replace(request, target_recall=0.9), k=10)


def test_an_exact_search_for_a_filter_keeps_to_the_limit_on_latency() -> None:
    engine = ChangedEngine()
    chooser = PlanChooser(engine)
    for length in (None, 4):
        within = PlanRequest(length, target_recall=0.95, max_latency_ms=3.0)
        chosen = chooser.choose_filtered(within, k=10, reach=Reach(2000))
        assert chosen.plan == Plan(CODE_LENGTH, "numpy")
        with pytest.raises(TargetError):
            chooser.choose_filtered(replace(within, max_latency_ms=1.0), k=10, reach=Reach(2000))
    engine.added_ms = 1.0
    with pytest.raises(TargetError):
        chooser.choose_filtered(within, k=10, reach=Reach(2000))
