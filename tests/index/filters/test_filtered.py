"""Searches under a filter: how far they have to reach, and that targets hold whatever the filter is about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.calibrating.recall_counting import ranks_of, shortlist_recalls
from eigenlens.index.errors import TargetError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.filters.parse import Filter, parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.plans.calibration import COUNTS, Measured
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach
from eigenlens.index.tuning import Tuning
from tests.support.codes import write_codes

COUNT, CODE_LENGTH, GROUPS, QUERIES = 12_000, 16, 10, 60
TUNING = Tuning(max_rows_scored_directly=50, min_codes_for_ivf=1000, calibration_s=4.0, timed_queries=30)


def grouped(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Codes in groups that touch each other, and the group of each."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(GROUPS, CODE_LENGTH)) / np.sqrt(np.arange(1, CODE_LENGTH + 1))
    groups = rng.integers(0, GROUPS, count)
    noise = rng.normal(size=(count, CODE_LENGTH)) / np.sqrt(np.arange(1, CODE_LENGTH + 1))
    return (centres[groups] + 0.6 * noise).astype(np.float32), groups


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LiveEngine:
    folder = tmp_path_factory.mktemp("filtered")
    codes, groups = grouped(1, COUNT)
    stored = write_codes(folder / "codes", codes, tuning=TUNING)
    draw = np.random.default_rng(2).random(COUNT)
    metadata = [{"group": int(group), "draw": float(x)} for group, x in zip(groups, draw, strict=True)]
    kinds = {4: "ivf", 8: "ivf-sq8"}
    build_generation(
        folder / "generation",
        stored,
        BuildOptions(lengths=(4, 8, CODE_LENGTH), kinds=kinds, metadata=metadata, tuning=TUNING),
    )
    return LiveEngine(Generation(folder / "generation", stored, tuning=TUNING))


def filters(group: int) -> dict[str, Filter]:
    """Filters that have nothing to do with a query of a group, that are for it, and against it."""
    return {
        "half": parse_filter({"draw": {"$lt": 0.5}}),
        "tenth": parse_filter({"draw": {"$lt": 0.1}}),
        "with": parse_filter({"group": group}),
        "without": parse_filter({"group": {"$ne": group}}),
        "against": parse_filter({"group": (group + 5) % GROUPS}),
        "half without": parse_filter({"group": {"$ne": group}, "draw": {"$lt": 0.5}}),
        "few without": parse_filter({"group": {"$ne": group}, "draw": {"$lt": 0.05}}),
    }


def cosines_of(engine: LiveEngine, query: NDArray[np.float32], filter: Filter | None = None) -> NDArray[np.float64]:
    """Cosines with the rows of the generation, -2 for those that the filter leaves out: (n,)."""
    codes = np.asarray(engine.generation.codes.codes, dtype=np.float64)
    cosines = codes @ query / np.linalg.norm(codes, axis=1) / np.linalg.norm(query)
    return cosines if filter is None else np.where(engine.generation.attributes.mask(filter), cosines, -2)


def test_reach_is_about_the_rank_of_the_last_result_among_all(engine: LiveEngine) -> None:
    queries, groups = grouped(3, QUERIES)
    for name in filters(0):
        ranks, reaches = [], []
        for query, group in zip(queries, groups.tolist(), strict=True):
            filter = filters(group)[name]
            tenth = np.sort(cosines_of(engine, query, filter))[-10]
            ranks.append(int((cosines_of(engine, query) >= tenth).sum()))
            reach = engine.reach(query[None], k=10, filter=filter)[0]
            reaches.append(0 if reach is None else reach.count)
        assert 0.1 < np.median(reaches) / np.median(ranks) < 3, name


@pytest.mark.parametrize("target", [0.9, 0.95, 0.99])
def test_targets_hold_whatever_a_filter_has_to_do_with_the_query(engine: LiveEngine, target: float) -> None:
    queries, groups = grouped(4, QUERIES)
    chooser = PlanChooser(engine)
    for name in filters(0):
        recalls = []
        for query, group in zip(queries, groups.tolist(), strict=True):
            filter = filters(group)[name]
            reach = engine.reach(query[None], k=10, filter=filter)[0]
            chosen = chooser.choose_filtered(PlanRequest(target_recall=target), k=10, reach=reach)
            nearest = engine.search(query[None], plan=chosen.plan, k=10, filter=filter)[0]
            assert len(nearest) == 10
            tenth = np.sort(cosines_of(engine, query, filter))[-10]
            recalls.append(np.mean([score >= tenth - 1e-3 for _, score in nearest]))
        assert np.mean(recalls) >= target - 0.015, name  # of 600 neighbours


@pytest.fixture(scope="module", params=[4, 8])
def cheaply_calibrated(engine: LiveEngine, request: pytest.FixtureRequest) -> LiveEngine:
    """The engine with every effort and shortlist of one index measured, all of them cheaper than to see everything.

    On a small gallery an exact plan would else stand in for whatever reaches far.
    """
    queries, _ = grouped(13, 200)
    index = engine.generation.prefix_index(request.param)
    assert index.max_effort is not None
    cosines = np.stack([cosines_of(engine, query) for query in queries])
    exact = np.argsort(-cosines, axis=1)[:, : COUNTS[-1]]
    shortlists = [round(10 * 2 ** (step / 2)) for step in range(19)]
    measured = []
    for effort in (4, 8, 16, 32, 64, 128, index.max_effort):
        rows = index.search_entries(queries, shortlists[-1], effort=effort)
        ranks = ranks_of(exact, rows, count=COUNT)
        for shortlist, recall in shortlist_recalls(ranks, shortlists, COUNTS).items():
            plan = Plan(request.param, index.spec.kind, effort, shortlist, CODE_LENGTH)
            measured.append(Measured(plan, recall, dict.fromkeys(("p50", "p95", "p99"), effort + shortlist / 100)))
    cheap = LiveEngine(engine.generation)
    cheap.calibration = replace(engine.calibration, measured=tuple(measured))
    return cheap


@pytest.mark.parametrize("target", [0.9, 0.95, 0.99])
def test_targets_hold_against_the_query_where_cheap_plans_can_be_chosen(
    cheaply_calibrated: LiveEngine, target: float
) -> None:
    """Only the share of a shortlist was rescored that a filter leaves near the query, and it leaves most beyond."""
    engine, chooser = cheaply_calibrated, PlanChooser(cheaply_calibrated)
    queries, groups = grouped(14, QUERIES)
    for name in filters(0):
        recalls = []
        for query, group in zip(queries, groups.tolist(), strict=True):
            filter = filters(group)[name]
            reach = engine.reach(query[None], k=10, filter=filter)[0]
            plan = chooser.choose_filtered(PlanRequest(target_recall=target), k=10, reach=reach).plan
            nearest = engine.search(query[None], plan=plan, k=10, filter=filter)[0]
            tenth = np.sort(cosines_of(engine, query, filter))[-10]
            recalls.append(np.mean([score >= tenth - 1e-3 for _, score in nearest]))
        assert np.mean(recalls) >= target - 0.015, name  # of 600 neighbours


@pytest.mark.parametrize("change", ["added", "removed", "both"])
def test_targets_hold_after_many_images_were_added_or_removed(engine: LiveEngine, change: str) -> None:
    changed = LiveEngine(engine.generation)
    new, new_groups = grouped(7, COUNT)
    codes = {int(key): code for key, code in zip(engine.keys, engine.generation.codes.codes, strict=True)}
    rng = np.random.default_rng(8)
    if change != "added":  # half of the images, and all that are in two of the groups
        of_row = np.array([int(group) for group in grouped(1, COUNT)[1]])
        gone = set(engine.keys[(rng.random(COUNT) < 0.4) | np.isin(of_row, (0, 1))].tolist())
        changed.remove(list(gone))
        codes = {key: code for key, code in codes.items() if key not in gone}
    if change != "removed":
        keys = range(1_000_000, 1_000_000 + COUNT)
        changed.add(keys, new, [{"group": int(group), "draw": 0.5} for group in new_groups])
        codes.update(zip(keys, new, strict=True))
    assert len(changed) == len(codes)
    stored = np.stack(list(codes.values())).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    queries, _ = grouped(9, QUERIES)
    chooser = PlanChooser(changed)
    for target in (0.9, 0.99):
        recalls = []
        for query in queries:
            reach = changed.reach(query[None], k=10)[0]
            plan = chooser.choose_filtered(PlanRequest(target_recall=target), k=10, reach=reach).plan
            nearest = changed.search(query[None], plan=plan, k=10)[0]
            tenth = np.sort(stored @ query / np.linalg.norm(query))[-10]
            recalls.append(np.mean([score >= tenth - 1e-3 for _, score in nearest]))
        assert np.mean(recalls) >= target - 0.015


def test_a_selection_of_few_is_scored_whatever_the_plan(engine: LiveEngine) -> None:
    few = parse_filter({"draw": {"$lt": 40 / COUNT}})
    query = grouped(5, 1)[0]
    assert engine.reach(query, k=10, filter=few) == [None]
    plan = PlanChooser(engine).choose_filtered(PlanRequest(4, effort=1), k=10, reach=None)
    assert plan.measured is None  # by four coordinates, all of them
    exact = PlanChooser(engine).choose_filtered(PlanRequest(4, rerank="full", effort=1), k=10, reach=None)
    assert exact.measured is not None
    assert exact.measured.exact
    scores = [score for _, score in engine.search(query, plan=exact.plan, k=10, filter=few)[0]]
    np.testing.assert_allclose(scores, np.sort(cosines_of(engine, query[0], few))[::-1][:10], atol=2e-3)


def test_a_target_is_met_where_no_exact_plan_was_measured(engine: LiveEngine) -> None:
    changed = LiveEngine(engine.generation)
    inexact = tuple(m for m in engine.calibration.measured if not m.exact)
    changed.calibration = replace(engine.calibration, measured=inexact)
    chooser, query, half = PlanChooser(changed), grouped(12, 1)[0], filters(0)["half"]
    best = np.sort(cosines_of(engine, query[0], half))[::-1]
    request = PlanRequest(target_recall=0.1)
    deep = chooser.choose_filtered(request, k=600, reach=Reach(1200))
    for chosen, k in ((deep, 600), (chooser.choose(request, k=1500), 1500)):
        assert chosen.measured is not None
        assert (chosen.measured.exact, dict(chosen.measured.latency_ms)) == (True, {})
        scores = [score for _, score in changed.search(query, plan=chosen.plan, k=k, filter=half)[0]]
        np.testing.assert_allclose(scores, best[:k], atol=2e-3)
    limited = PlanRequest(target_recall=0.1, max_latency_ms=1e6)  # how long it takes is not known
    with pytest.raises(TargetError):
        chooser.choose_filtered(limited, k=600, reach=Reach(1200))
    for fixed in (limited, PlanRequest(4, target_recall=0.1)):
        with pytest.raises(TargetError):
            chooser.choose(fixed, k=1500)


def test_more_of_an_index_is_visited_where_results_are_missing(engine: LiveEngine) -> None:
    query, groups = grouped(6, 1)
    far = filters(int(groups[0]))["against"]
    plan = replace(PlanChooser(engine).choose(PlanRequest(4), k=300).plan, effort=1)
    assert len(engine.search(query, plan=plan, k=300, filter=far)[0]) == 300
    assert len(engine.search(query, plan=plan, k=COUNT)[0]) == COUNT


def test_pages_fit_together_where_few_images_were_removed(engine: LiveEngine) -> None:
    """A selection of all that are left made each search several times slower, once a single image was removed."""
    changed = LiveEngine(engine.generation)
    query = grouped(11, 1)[0]
    plan = PlanChooser(changed).choose(PlanRequest(target_recall=0.95), k=24).plan
    before = [key for key, _ in changed.search(query, plan=plan, k=24)[0]]
    changed.remove(before[:12])
    assert changed.reach(query, k=10) == [Reach(10)]
    whole = [key for key, _ in changed.search(query, plan=plan, k=24)[0]]
    assert whole[:12] == before[12:]
    assert len(whole) == 24
    for k in (1, 5, 13, 20):
        assert [key for key, _ in changed.search(query, plan=plan, k=k)[0]] == whole[:k]
    changed.remove(engine.keys[: COUNT // 50].tolist())
    assert changed.reach(query, k=10) != [Reach(10)], "more than a hundredth was removed"
