"""Timing of plans: on other queries each time, in one line, and of large codes in bounded memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from eigenlens.index.building.calibrating.timing import Timer, line_through, smoothed
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import Tuning
from tests.support.codes import mapped_bytes, random_codes, write_codes

CODE_LENGTH = 32
NO_SCORES = np.empty((0, 10), dtype=np.float32)


def test_each_plan_is_timed_on_other_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones again would find what they need in the cache."""
    codes = write_codes(tmp_path / "codes", random_codes(1, 2000, CODE_LENGTH))
    index = PrefixIndex(codes.scan(1800), IndexSpec(CODE_LENGTH, "half"), codes)
    asked: list[tuple[float, ...]] = []
    monkeypatch.setattr(index, "run", lambda query, **_: asked.append(tuple(query[0].tolist())))
    timer = Timer(codes, unit_prefix(codes.codes[1800:], CODE_LENGTH), np.empty((0, 10), dtype=np.float32))
    for _ in range(2):
        timer.times(index, Plan(CODE_LENGTH, "half"), queries=20)
    assert len(asked) == len(set(asked)) >= 40


def test_what_a_first_search_opens_or_compiles_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(1, 2000, CODE_LENGTH))
    index = PrefixIndex(codes.scan(1800), IndexSpec(CODE_LENGTH, "half"), codes)
    pauses = iter([0.5])
    monkeypatch.setattr(index, "run", lambda query, **_: time.sleep(next(pauses, 0.0)))
    timer = Timer(codes, unit_prefix(codes.codes[1800:], CODE_LENGTH), NO_SCORES)
    times = timer.times(index, Plan(CODE_LENGTH, "half"), queries=20)
    assert len(times) == 20
    assert max(times) < 250


def test_few_trials_of_each_effort_are_one_line() -> None:
    """One trial that was disturbed does not make its effort look slow."""
    plans = [Plan(8, "ivf", effort, shortlist, 32) for effort in range(1, 40) for shortlist in (10, 300)]
    tried = [(plan, 0.02 + 0.001 * (plan.effort or 0) + 0.0001 * (plan.shortlist or 0)) for plan in plans]
    tried[20] = (plans[20], 3 * tried[20][1])
    guess = line_through(tried)
    assert guess(plans[20]) == pytest.approx(tried[20][1] / 3, rel=0.05)
    assert guess(Plan(8, "ivf", 30, 100, 32)) == pytest.approx(0.06, rel=0.05)


def test_a_term_that_would_take_less_than_no_time_leaves_the_others_a_better_fit() -> None:
    tried = [
        (Plan(8, "ivf", effort, shortlist, CODE_LENGTH), 1 - 0.002 * effort + 0.01 * shortlist)
        for effort in (10, 100)
        for shortlist in (10, 100)
    ]
    guess = line_through(tried)
    assert all(guess(plan) == pytest.approx(latency, rel=0.13) for plan, latency in tried)
    assert guess(tried[0][0]) == guess(tried[2][0]), "effort costs nothing"


def test_plans_whose_compact_codes_leave_as_many_candidates_share_a_line() -> None:
    def times(plan: Plan) -> float:
        return (plan.effort or 0) * 0.01 + (1.0 if plan.final_shortlist == 28 else 1.5)

    plans = [
        Plan(8, "ivf", effort, 100, CODE_LENGTH, final)
        for final, efforts in ((28, range(1, 11)), (52, range(30, 40)))
        for effort in efforts
    ]
    moved = smoothed({plan: {"p50": times(plan)} for plan in plans})
    assert all(moved[plan]["p50"] == pytest.approx(times(plan), rel=1e-3) for plan in plans)


def test_the_plan_that_was_lucky_is_not_told_to_be_quicker() -> None:
    plans = [Plan(8, "ivf", effort, shortlist, 32) for effort in range(1, 40) for shortlist in (10, 300)]
    told = {plan: {"p50": 0.02 + 0.001 * (plan.effort or 0) + 0.0001 * (plan.shortlist or 0)} for plan in plans}
    told = {plan: latencies | {"p99": 2 * latencies["p50"]} for plan, latencies in told.items()}
    lucky = {plans[20]: {q: ms / 2 for q, ms in told[plans[20]].items()}}
    found = smoothed(told | lucky)
    for less, more in zip(plans, plans[2:], strict=False):  # the next effort, of the same shortlist
        assert found[less]["p50"] < found[more]["p50"]
    assert all(latencies["p99"] == pytest.approx(2 * latencies["p50"], abs=2e-4) for latencies in found.values())
    assert smoothed(lucky) == lucky  # of so few no line is drawn


def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Codes:
    """Codes that count as more than may stay mapped, none of them mapped."""
    codes = write_codes(folder / "codes", random_codes(1, 200_000, 64))
    monkeypatch.setattr(codes, "tuning", Tuning(max_mapped_bytes=codes.codes.nbytes // 2))
    codes.release_pages()
    return codes


def test_what_a_search_of_large_codes_reads_is_mapped_before_it_is_timed_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = large(tmp_path, monkeypatch)
    first = faiss.index_factory(8, "IVF100,Flat", faiss.METRIC_INNER_PRODUCT)
    first.train(unit_prefix(codes.read(0, 10_000), 8))
    first.add(unit_prefix(codes.read(0, len(codes)), 8))
    index = PrefixIndex(first, IndexSpec(8, "ivf"), codes)
    run, asked, mapped = index.run, list[bytes](), list[int]()

    def noting(query: np.ndarray, **more: Any) -> Any:
        found = run(query, **more)
        asked.append(query.tobytes())
        mapped.append(mapped_bytes())
        return found

    monkeypatch.setattr(index, "run", noting)
    timer = Timer(codes, unit_prefix(codes.read(0, 500), 64), NO_SCORES)
    before = mapped_bytes()
    plan = Plan(8, "ivf", 4, 200, 64)
    times = timer.times(index, plan, queries=1000)
    half = len(asked) // 2
    assert asked[:half] == asked[half:]
    assert half < 2048 / 200 + 1
    assert len(times) == half - 3
    assert mapped[half - 1] > before + codes.codes.nbytes / 4
    assert mapped[-1] == pytest.approx(mapped[half - 1], abs=1 << 20)
    assert mapped_bytes() < before + codes.codes.nbytes / 4
    timer.times(index, plan, queries=1000)
    assert asked[2 * half] != asked[0]


def test_a_scan_of_large_codes_is_timed_part_by_part_and_has_no_more_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = large(tmp_path, monkeypatch)
    index = PrefixIndex(codes.scan(190_000), IndexSpec(64, "half"), codes)
    monkeypatch.setattr("eigenlens.index.building.calibrating.timing.time.perf_counter", iter(range(1000)).__next__)
    parts, held, before = list[tuple[int, int]](), list[int](), mapped_bytes()
    scan, release_pages = Codes.scan, Codes.release_pages

    def noting_scan(given: Codes, stop: int, *, start: int = 0) -> faiss.Index:
        parts.append((start, stop))
        return scan(given, stop, start=start)

    def noting_release(given: Codes) -> None:
        held.append(mapped_bytes() - before)
        release_pages(given)

    monkeypatch.setattr(Codes, "scan", noting_scan)
    monkeypatch.setattr(Codes, "release_pages", noting_release)
    timer = Timer(codes, unit_prefix(codes.read(0, 50), 64), NO_SCORES, tuning=Tuning(timed_scan_rows=20_000))
    times = timer.times(index, Plan(64, "half"), queries=20)
    assert [row for start, stop in parts for row in (start, stop - 1)] == [
        row for start in range(0, 190_000, 20_000) for row in (start, min(start + 20_000, 190_000) - 1)
    ]
    assert times == [1000.0 * len(parts)] * 3  # each part of each scan took a second
    assert len(held) == len(parts)
    assert max(held) < codes.codes.nbytes / 2


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_slow_plan_of_large_codes_is_timed_at_least_once(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first search, which maps what it reads, may take all the time that there is, and the second much less."""
    codes = write_codes(tmp_path / "codes", random_codes(1, 500, 8))
    index = PrefixIndex(codes.scan(500), IndexSpec(8, "half"), codes)
    asked: list[float] = []

    def run(*_: object, **__: object) -> None:
        asked.append(seconds)
        if len(asked) == 1:
            time.sleep(seconds)

    monkeypatch.setattr(codes, "tuning", Tuning(max_mapped_bytes=0))
    monkeypatch.setattr(index, "kind", require_kind("ivf"))
    monkeypatch.setattr(index, "run", run)
    timer = Timer(codes, unit_prefix(codes.read(0, 50), 8), NO_SCORES)
    times = timer.times(index, Plan(8, "half"), queries=5)
    assert len(times) == (1 if seconds else 5)
