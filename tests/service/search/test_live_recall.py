"""Live recall and recent queries: what is kept of searches, and how much the exact repetitions may take."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from eigenlens.index.plans.calibration import Measured, Recall
from eigenlens.index.plans.choice import PlanRequest
from eigenlens.index.plans.plan import Plan
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.search import live_recall
from eigenlens.service.search.live_recall import RecallChecker
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.recent_queries import RecentQueries
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import SearchResult, Snapshot
from tests.support.service import wait_for

PLAN = Plan(4, "ivf", 2, 240, 12)
CODE = np.zeros(12, dtype=np.float32)
EXACT_S = 0.004


class Served:
    """A manager and the snapshot that it serves, whose exact results are the keys 0 to 9, in `exact_s` or 4 ms."""

    def __init__(self) -> None:
        self.number, self.exact_searches = 1, 0
        self.position, self.arriving = Position(10, 0), 0
        self.exact_s: dict[int, float] = {}

    @property
    def current(self) -> Served:
        return self

    def sync(self) -> None:
        self.position = Position(self.position.key + self.arriving, 0)

    def exact_keys(self, code: Any, request: SearchRequest) -> list[int]:
        self.exact_searches += 1
        begun = time.thread_time()
        while time.thread_time() - begun < self.exact_s.get(self.exact_searches, EXACT_S):
            pass
        return list(range(request.depth))


def result_of(keys: range, *, exact: bool = False) -> SearchResult:
    hits = [SimpleNamespace(record=SimpleNamespace(key=key)) for key in keys]
    return SearchResult(cast("Any", hits), PLAN, Measured(PLAN, {10: Recall(0.97, 0.95)}, {}, exact=exact))


def checking(served: Served, share: float = 1.0) -> RecallChecker:
    return RecallChecker(share, cast("SnapshotManager", served), seed=0)


def offer(checker: RecallChecker, served: Served, keys: range, request: SearchRequest | None = None) -> None:
    checker.offer(cast("Snapshot", served), served.position, CODE, request or SearchRequest(10), result_of(keys))


def test_recall_is_told_by_promise_with_its_interval() -> None:
    served = Served()
    checker = checking(served)
    fixed = SearchRequest(10, plan=PlanRequest(4, rerank="full"))
    for _ in range(20):
        offer(checker, served, range(5))
        offer(checker, served, range(10), fixed)
    for request in (SearchRequest(10, offset=10), SearchRequest(10, duplicate_cosine=0.9)):
        offer(checker, served, range(0), request)
    checker.offer(cast("Snapshot", served), served.position, CODE, SearchRequest(10), result_of(range(10), exact=True))
    checker.start(is_idle=lambda: True, has_room=lambda: True)
    try:
        wait_for(lambda: sum(reached.checks for reached in checker.reached()) >= 4)
        by_target = {reached.promise.target: reached for reached in checker.reached()}
    finally:
        checker.close()
    assert by_target.keys() == {0.99, None}
    poor, good = by_target[0.99], by_target[None]
    assert (poor.mean, good.mean) == (0.5, 1.0)
    assert poor.low < 0.5 < poor.high
    assert poor.below_promise
    assert not good.below_promise
    assert good.promise.recall == 0.97
    served.number = 2  # another generation has other plans
    assert checker.reached() == []


@pytest.mark.parametrize(("idle", "load"), [(True, 0.01), (False, 0.0025)])
def test_repetitions_take_a_hundredth_of_a_core_and_a_quarter_of_that_without_idle_moments(
    idle: bool, load: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_recall, "_PATIENCE_S", 0.0)
    for pause in pauses_after_five(Served(), idle=idle):
        assert EXACT_S / (EXACT_S + pause) <= load


def test_one_long_repetition_does_not_delay_the_others() -> None:
    """Python's search for garbage takes a third of a second of the thread that it happens in, here the second time."""
    served = Served()
    served.exact_s[2] = 100 * EXACT_S
    assert max(pauses_after_five(served, idle=True)[1:]) < 1


def test_longer_repetitions_have_longer_pauses() -> None:
    served = Served()
    served.exact_s.update(dict.fromkeys(range(3, 6), 5 * EXACT_S))
    pauses = pauses_after_five(served, idle=True)
    assert max(pauses[1:3]) < 4 * EXACT_S * 99 < 5 * EXACT_S * 99 <= min(pauses[3:])


def pauses_after_five(served: Served, *, idle: bool) -> list[float]:
    """The pauses after five repeated searches, in seconds; they are noted, and not waited for."""
    pauses: list[float] = []

    class Closed(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return super().wait(0.001)

    checker = checking(served)
    checker._closed = Closed()
    for _ in range(5):
        offer(checker, served, range(10))
    checker.start(is_idle=lambda: idle, has_room=lambda: True)
    wait_for(lambda: sum(pause > live_recall._POLL_S for pause in pauses) >= 5)
    checker.close()
    rests = [pause for pause in pauses if pause > live_recall._POLL_S]
    assert served.exact_searches == len(rests) == 5
    return rests


@pytest.mark.parametrize(("patience_s", "has_room"), [(0.0, False), (1000.0, True)])
def test_nothing_is_repeated_while_searches_are_in_progress_or_when_it_is_off(
    patience_s: float, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_recall, "_PATIENCE_S", patience_s)
    served = Served()
    idle = threading.Event()
    checker, off = checking(served), checking(served, share=0.0)
    offer(checker, served, range(10))
    offer(off, served, range(10))
    checker.start(is_idle=idle.is_set, has_room=lambda: has_room)
    off.start(is_idle=lambda: True, has_room=lambda: True)
    time.sleep(0.1)
    assert served.exact_searches == 0
    idle.set()
    wait_for(lambda: served.exact_searches == 1)
    checker.close()
    off.close()


def test_a_random_share_of_the_searches_waits_to_be_repeated() -> None:
    served = Served()
    checker, off = checking(served, share=0.1), checking(served, share=0.0)
    for _ in range(200):
        offer(checker, served, range(10))
        offer(off, served, range(10))
    assert 8 <= len(checker._pending) <= 40
    assert not off._pending


def test_a_search_of_images_that_changed_since_is_not_counted() -> None:
    served = Served()
    checker = checking(served)
    offer(checker, served, range(5))
    served.position = Position(11, 0)  # an image was replaced: as many images as before
    checker.start(is_idle=lambda: True, has_room=lambda: True)
    offer(checker, served, range(10))
    wait_for(checker.reached)
    served.arriving = 1  # while the search is repeated
    offer(checker, served, range(5))
    wait_for(lambda: served.exact_searches == 2)
    checker.close()
    assert [(reached.checks, reached.mean) for reached in checker.reached()] == [(1, 1.0)]


def add(queries: RecentQueries, first: int, last: int, encoder_id: str = "a") -> None:
    for number in range(first, last):
        queries.add(np.full(4, number, dtype=np.float32), key=number if number % 2 else None, encoder_id=encoder_id)


def test_recent_queries_are_a_bounded_even_sample() -> None:
    queries = RecentQueries(200, seed=0)
    add(queries, 0, 2000)
    sample = queries.sample()
    assert len(queries) == len(sample.codes) == 200
    numbers = sample.codes[:, 0]
    assert np.mean(numbers) == pytest.approx(1000, abs=120)
    assert len(set(numbers.tolist())) == 200
    np.testing.assert_array_equal(sample.keys, np.where(numbers % 2, numbers, -1))
    same = type(sample).from_bytes(sample.to_bytes())
    np.testing.assert_array_equal(same.codes, sample.codes)
    np.testing.assert_array_equal(same.keys, sample.keys)
    assert same.encoder_id == "a"


def test_old_queries_fade() -> None:
    queries = RecentQueries(10, seed=0)
    add(queries, 0, 10_000)
    assert queries.sample().codes[:, 0].min() > 1000


def test_queries_are_forgotten_when_told_with_another_encoder_and_where_none_are_kept() -> None:
    queries, none = RecentQueries(10), RecentQueries(0)
    add(queries, 0, 5)
    add(none, 0, 5)
    assert (len(queries), len(none)) == (5, 0)
    add(queries, 0, 1, encoder_id="b")
    assert len(queries) == 1
    queries.forget()
    assert len(queries.sample().codes) == 0
