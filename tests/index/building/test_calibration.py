"""Calibration: what it measures holds on fresh queries, and what is asked for is met or said not to be."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.calibrating.calibrator import Calibrator
from eigenlens.index.building.calibrating.measured_grid import measured_efforts
from eigenlens.index.building.calibrating.stopwatch import Stopwatch
from eigenlens.index.codes.exact import exact_search, rerank
from eigenlens.index.errors import TargetError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.open_index import prefix_index_over
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.metrics import recall_at_k
from eigenlens.index.plans.calibration import Calibration, Measured, Recall
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import Tuning
from tests.support.codes import write_codes

CODE_LENGTH = 32


def clustered(seed: int, n: int) -> NDArray[np.float32]:
    """Codes as an encoder makes them: groups, and coordinates that decay."""
    centres = np.random.default_rng(0).normal(size=(60, CODE_LENGTH))
    rng = np.random.default_rng(seed)
    codes = centres[rng.integers(0, 60, n)] + 0.8 * rng.normal(size=(n, CODE_LENGTH))
    return (codes / np.arange(1, CODE_LENGTH + 1) ** 0.7).astype(np.float32)


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    folder = tmp_path_factory.mktemp("calibration")
    codes = write_codes(folder / "codes", clustered(1, 15_000))
    kinds = {8: "ivf-sq8", 16: "hnsw"}
    options = BuildOptions(lengths=(8, 16, CODE_LENGTH), kinds=kinds, tuning=Tuning(timed_queries=20, calibration_s=8))
    build_generation(folder / "generation", codes, options)
    return Generation(folder / "generation", codes)


@pytest.fixture(scope="module")
def fresh(generation: Generation) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Queries that the calibration did not see, and the rows of the 100 nearest of each."""
    queries = clustered(2, 2000)
    return queries, exact_search(generation.codes.codes, queries, length=CODE_LENGTH, k=100)[1]


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("target", [0.9, 0.95, 0.99, 0.999])
def test_a_target_is_met_on_fresh_queries(
    generation: Generation, fresh: tuple[NDArray[np.float32], NDArray[np.int64]], k: int, target: float
) -> None:
    queries, exact = fresh
    chosen = generation.calibration.choose(k=k, target_recall=target)
    _, found = generation.search(queries, plan=chosen.for_k(k), k=k)
    assert recall_at_k(found, exact[:, :k]).mean() >= target - 0.005


def test_a_cheaper_target_is_not_met_by_searching_everything(generation: Generation) -> None:
    cheap = generation.calibration.choose(k=10, target_recall=0.9)
    assert not cheap.exact
    exact = generation.calibration.choose(k=10, target_recall=1.0)
    assert exact.exact
    assert exact.latency_ms["p50"] > cheap.latency_ms["p50"]


def test_a_length_is_searched_by_itself_at_an_effort_that_finds_nearly_all(generation: Generation) -> None:
    queries = clustered(3, 500)
    for length in (8, 16):
        plan = PlanChooser(generation).choose(PlanRequest(length), k=10).plan
        _, found = generation.search(queries, plan=plan, k=10)
        _, exact = exact_search(generation.codes.codes, queries, length=length, k=10)
        assert recall_at_k(found, exact).mean() > 0.97
        measured = generation.calibration.expected(plan, 10)
        assert measured is not None
        assert measured == generation.calibration.plain(length)
        _, full = exact_search(generation.codes.codes, queries, length=CODE_LENGTH, k=10)
        assert recall_at_k(found, full).mean() == pytest.approx(measured.recall[10].mean, abs=0.04)


def test_the_plan_that_is_timed_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lossy length alone is rescored at its own coordinates, by other code than a rerank by full codes."""
    codes = write_codes(tmp_path / "codes", clustered(1, 500))

    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.005)
        return rerank(*arguments, **more)

    monkeypatch.setattr("eigenlens.index.faiss_engine.prefix_index.rerank", slow)
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "sq8"}))
    calibration = Generation(tmp_path / "generation", codes).calibration
    alone = calibration.plain(8)
    assert alone is not None
    assert alone.plan.rerank_length == 8
    assert alone.latency_ms["p50"] >= 5
    assert all(m.latency_ms["p50"] < 5 for m in calibration.measured if m.plan.rerank_length == CODE_LENGTH)


def test_what_counts_is_timed_when_all_indexes_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are built one after the other, a machine is not as fast from one to the next."""
    codes = write_codes(tmp_path / "codes", clustered(1, 500))

    def slowed(*arguments: Any, **named: Any) -> PrefixIndex:
        index = prefix_index_over(*arguments, **named)
        run = index.run

        def late(*given: Any, **more: Any) -> Any:
            time.sleep(0.005)
            return run(*given, **more)

        monkeypatch.setattr(index, "run", late)
        return index

    monkeypatch.setattr("eigenlens.index.building.build.prefix_index_over", slowed)
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "sq8"}))
    calibration = Generation(tmp_path / "generation", codes).calibration
    assert any(m.latency_ms["p50"] < 5 for m in calibration.measured if m.plan.rerank_length == CODE_LENGTH)


@pytest.mark.parametrize(("codes_in_budget", "many"), [(1_000_000, False), (1, True)])
def test_more_codes_are_calibrated_for_longer(
    codes_in_budget: int, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning(calibration_s=0.01, calibration_codes=codes_in_budget, min_recall_gain=-1.0)
    codes = write_codes(tmp_path / "codes", clustered(1, 2000))
    searched: set[int | None] = set()
    search = PrefixIndex.search

    def noting(index: PrefixIndex, *arguments: Any, effort: int | None = None, **more: Any) -> Any:
        searched.add(effort)
        return search(index, *arguments, effort=effort, **more)

    monkeypatch.setattr(PrefixIndex, "search", noting)
    options = BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf"}, tuning=tuning)
    build_generation(tmp_path / "generation", codes, options)
    assert (len(searched - {None}) > 10) == many


def measured(name: int, recall: float, ms: float, *, low: float | None = None, exact: bool = False) -> Measured:
    return Measured(
        Plan(name),
        {k: Recall(recall, recall if low is None else low) for k in (1, 10, 100)},
        {"p50": ms, "p95": 2 * ms, "p99": 3 * ms},
        exact=exact,
    )


CALIBRATION = Calibration(
    (
        measured(2, 0.99, 0.5, low=0.7),
        measured(4, 0.8, 1),
        measured(8, 0.95, 2),
        measured(16, 0.97, 4),
        measured(32, 1.0, 10, exact=True),
    ),
    {},
    100,
)


@pytest.mark.parametrize(
    ("wish", "length"),
    [
        ({"target_recall": 0.9}, 8),
        ({"target_recall": 0.96}, 16),
        ({"target_recall": 1.0}, 32),
        ({}, 32),
        ({"max_latency_ms": 8}, 16),
        ({"max_latency_ms": 2.5}, 4),
        ({"target_recall": 0.9, "max_latency_ms": 8}, 8),
        ({"target_recall": 0.5, "length": 16}, 16),
    ],
)
def test_the_cheapest_plan_that_meets_a_target_is_taken(wish: dict[str, float], length: int) -> None:
    assert CALIBRATION.choose(k=10, **wish).plan.prefix_length == length  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"max_latency_ms": 0.5}, "no plan keeps to 0.5 ms; the fastest takes 1 ms"),
        (
            {"target_recall": 0.99, "length": 16},
            "no plan of length 16 is sure to reach a recall of 0.99; the best reaches 0.97",
        ),
        (
            {"target_recall": 0.99, "max_latency_ms": 8},
            "0.99 takes 20 ms, and 8 ms give a recall of 0.97: they cannot both",
        ),
        ({"target_recall": 0.99, "max_latency_ms": 0.5}, "0.5 ms give no result"),
    ],
)
def test_what_cannot_be_met_says_what_can_be_had(wish: dict[str, float], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        CALIBRATION.choose(k=10, **wish)  # type: ignore[arg-type]


def test_a_calibration_survives_its_manifest() -> None:
    for calibration in (CALIBRATION, replace(CALIBRATION, drawn={0.02: CALIBRATION.measured[:2]})):
        assert Calibration.from_json(calibration.to_json()) == calibration


def test_a_calibration_of_before_filters_were_measured_is_that_of_every_filter() -> None:
    data = CALIBRATION.to_json()
    del data["drawn"]
    calibration = Calibration.from_json(data)
    assert calibration.under_filter(0.1) is calibration


def test_under_a_filter_the_worse_of_the_two_measured_shares_around_it_counts() -> None:
    half = (measured(8, 0.95, 1), measured(16, 0.9, 8), measured(32, 1.0, 3, exact=True))
    few = (measured(8, 0.85, 1), measured(32, 1.0, 1, exact=True))
    calibration = replace(CALIBRATION, drawn={0.02: few, 0.5: half})

    def told(share: float) -> dict[int, tuple[float, float]]:
        return {
            m.plan.prefix_length: (m.low(10), m.latency_ms["p50"]) for m in calibration.under_filter(share).measured
        }

    plain = {m.plan.prefix_length: (m.low(10), m.latency_ms["p50"]) for m in CALIBRATION.measured}
    assert told(1.0) == plain
    assert told(0.7)[16] == (0.9, max(8, plain[16][1])), "between half and all"
    assert told(0.5)[8] == (0.95, 1)
    assert told(0.1) == {8: (0.85, 1), 32: (1.0, 3)}, "what was not measured of few cannot be chosen"
    assert told(0.001) == told(0.02) == {8: (0.85, 1), 32: (1.0, 1)}


def test_no_sample_proves_a_recall_of_one() -> None:
    assert Recall.of(np.ones(2000)).low == pytest.approx(0.9993, abs=1e-4)
    assert Recall.of(np.ones(10)).low < 0.9
    assert Recall.of(np.empty(0)) == Recall(0.0, 0.0)
    low = Recall.of(np.random.default_rng(0).binomial(10, 0.9, 2000) / 10)
    assert 0.89 < low.low < low.mean < 0.91


@pytest.mark.parametrize("lost", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("mean", [0.99, 0.9994])
def test_a_bound_of_recall_is_below_it_in_19_of_20_samples(mean: float, lost: float) -> None:
    rng = np.random.default_rng(0)
    samples = [np.where(rng.random(2000) < (1 - mean) / lost, 1 - lost, 1.0) for _ in range(2000)]
    lows = [Recall.of(sample).low for sample in samples]
    assert 0.93 < np.mean(np.array(lows) < mean) <= 1
    if lost == 0.1:
        assert np.median(lows) > mean - (0.0005 if mean > 0.999 else 0.0015), "a bound far below proves too little"


def test_a_shortlist_holds_all_results_up_to_the_next_k_that_is_measured() -> None:
    plan = Measured(Plan(8, shortlist=200, rerank_length=32), {}, {})
    assert plan.for_k(10).shortlist == 200
    assert plan.for_k(100).shortlist == 200
    assert plan.for_k(450).shortlist == 500
    assert Measured(Plan(8, shortlist=14, rerank_length=32), {}, {}).for_k(50).shortlist == 50


def test_a_k_beyond_those_measured_has_no_recall_but_an_exact_one() -> None:
    recall = {10: Recall(0.9, 0.9), 1000: Recall(0.8, 0.8)}
    assert Measured(Plan(8), recall, {}).recall_for(11) == Recall(0.8, 0.8)
    assert Measured(Plan(8), recall, {}).recall_for(1001) is None
    assert Measured(Plan(8), recall, {}).low(1001) == 0
    assert Measured(Plan(8), recall, {}, exact=True).recall_for(1001) == Recall(1.0, 1.0)


def test_the_efforts_of_a_generation_of_before_grow_with_k() -> None:
    data = {**CALIBRATION.to_json(), "efforts": {"8 ivf": 5}}
    spec = IndexSpec(8, "ivf")
    efforts = [Calibration.from_json(data).default_effort(spec, k) for k in (1, 24, 100, 1000, 10_000)]
    assert efforts[:2] == [5, 5]
    assert efforts == sorted(efforts)
    assert efforts[-1] > efforts[2] > 5


def test_a_gallery_too_small_to_measure_is_searched_exactly(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", clustered(0, 20))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH)))
    generation = Generation(tmp_path / "generation", codes)
    assert generation.calibration.choose(k=10).exact
    assert generation.calibration.expected(PlanChooser(generation).choose(PlanRequest(8), k=10).plan, 10) is None


def test_a_busy_machine_does_not_cut_a_calibration_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others took the processor, the time was up after the first efforts, and only exact plans met a target."""
    slow = SimpleNamespace(monotonic=lambda: 1e6 * time.monotonic(), process_time=time.process_time)
    monkeypatch.setattr("eigenlens.index.building.calibrating.stopwatch.time", slow)
    codes = write_codes(tmp_path / "codes", clustered(1, 1000))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf"}))
    measured = Generation(tmp_path / "generation", codes).calibration.measured
    assert len({m.plan.effort for m in measured if m.plan.kind == "ivf"}) > 2


def test_an_index_without_efforts_takes_no_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Stopwatch):
        worked_s = property(lambda self: 0.6 * Tuning().calibration_s)

    monkeypatch.setattr("eigenlens.index.building.calibrating.calibrator.Stopwatch", Slow)
    codes = write_codes(tmp_path / "codes", clustered(1, 1000))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf"}))
    measured = Generation(tmp_path / "generation", codes).calibration.measured
    assert len({m.plan.effort for m in measured if m.plan.kind == "ivf"}) > 2


def test_each_index_with_efforts_has_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Stopwatch):
        worked_s = property(lambda self: 0.4 * Tuning().calibration_s)

    monkeypatch.setattr("eigenlens.index.building.calibrating.calibrator.Stopwatch", Slow)
    codes, kinds = write_codes(tmp_path / "codes", clustered(1, 1000)), {4: "flat", 8: "ivf", 16: "ivf"}
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(4, 8, 16, CODE_LENGTH), kinds=kinds))
    measured = Generation(tmp_path / "generation", codes).calibration.measured
    assert {m.plan.effort for m in measured if m.plan.kind == "ivf" and m.plan.rerank_length} == {1}


@pytest.mark.parametrize("share", [0.45, 0.55])
def test_efforts_are_farther_apart_once_nearly_all_is_found_and_half_of_the_time_is_up(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Stopwatch):
        worked_s = property(lambda self: share * Tuning().calibration_s)

    monkeypatch.setattr("eigenlens.index.building.calibrating.calibrator.Stopwatch", Slow)
    codes = write_codes(tmp_path / "codes", clustered(1, 1000))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf"}))
    index = Generation(tmp_path / "generation", codes).prefix_index(8)
    calibrator = Calibrator(codes, indexes=1, queries=clustered(2, 50), tuning=Tuning(min_recall_gain=-1.0))
    _, reached = calibrator._search_efforts(index)
    measured = [effort for effort, _ in reached[10]]
    before = [effort for effort, recall in reached[10] if recall < 0.99]
    every = measured_efforts(index, Tuning().effort_steps)
    assert 1 < len(before) < len(measured)
    late = every[len(before) + 1 : -1] if share > 0.5 else []
    passed_over = [effort for effort in late if every.index(effort) % 3]
    assert len(passed_over) > 3 or share < 0.5
    assert measured == [effort for effort in every if effort not in passed_over]


def test_longer_shortlists_are_searched_once_nearly_all_is_found(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", clustered(1, 3000))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(16, CODE_LENGTH), kinds={16: "ivf"}))
    index = Generation(tmp_path / "generation", codes).prefix_index(16)
    calibrator = Calibrator(codes, indexes=1, queries=clustered(2, 200))
    candidates, reached = calibrator._search_efforts(index)
    longest = {effort: 0 for effort, _ in reached[10]}
    for plan, recall in candidates.items():
        if max(recall) == 100:
            longest[plan.effort or 0] = max(longest[plan.effort or 0], plan.shortlist or 0)
    efforts = sorted(longest)
    nearly_all = dict(reversed(reached[10]))  # of two passes of an effort, the first
    assert longest[efforts[0]] == 300
    assert max(longest.values()) > 300
    for before, effort in pairwise(efforts):
        assert (longest[effort] > 300) == (nearly_all[before] >= 0.99)
