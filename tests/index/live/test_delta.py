"""The delta: exact, filtered, visible at once, and silent about what was removed."""

from __future__ import annotations

import threading
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eigenlens.index.filters.parse import matches, parse_filter
from eigenlens.index.live.delta import Delta
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, LENGTHS, random_codes, repeatable


@repeatable
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 60),
    k=st.integers(1, 20),
    length=st.integers(1, CODE_LENGTH),
    removed=st.sets(st.integers(0, 59), max_size=20),
    label=st.sampled_from([None, 0, 1, 2]),
)
def test_a_delta_is_an_exact_search(
    seed: int, n: int, k: int, length: int, removed: set[int], label: int | None
) -> None:
    codes, query = random_codes(seed, n), random_codes(seed + 1, 1)[0]
    if n > 3:
        codes[3] = 0
    delta = Delta(CODE_LENGTH, LENGTHS)
    for start in range(0, n, 7):
        rows = range(start, min(start + 7, n))
        delta.add([100 + r for r in rows], codes[list(rows)], [{"label": r % 3} for r in rows])
    for row in removed:
        assert delta.remove(100 + row) == (row < n)
    kept = [r for r in range(n) if r not in removed and label in (None, r % 3)]
    found = delta.search(query, length=length, k=k, filter=None if label is None else parse_filter({"label": label}))
    scores = oracles.cosine(query[None], codes, length=length)[0] if n else np.empty(0)
    expected = sorted((scores[r] for r in kept), reverse=True)[:k]
    np.testing.assert_allclose([score for _, score in found], expected, atol=1e-5)
    assert {key - 100 for key, _ in found} <= set(kept)
    assert len(delta) == n - len([r for r in removed if r < n])


def test_a_key_is_added_once_and_its_code_can_be_asked_for() -> None:
    delta, codes = Delta(CODE_LENGTH, LENGTHS), random_codes(0, 2)
    delta.add([5], codes[:1], [{}])
    delta.add([5, 6], codes, [{}, {}])
    assert len(delta) == 2
    assert [key for key, _ in delta.search(codes[0], length=8, k=10)] in ([5, 6], [6, 5])
    found = delta.code_of(5)
    assert found is not None
    np.testing.assert_allclose(found, codes[0] / np.linalg.norm(codes[0]), atol=1e-6)
    assert delta.code_of(7) is None


def test_searches_while_codes_arrive_see_whole_ones() -> None:
    delta, codes = Delta(CODE_LENGTH, LENGTHS), random_codes(0, 5000)
    done = threading.Event()

    def add() -> None:
        for start in range(0, 5000, 50):
            delta.add(list(range(start, start + 50)), codes[start : start + 50], [{}] * 50)
        done.set()

    adding = threading.Thread(target=add)
    adding.start()
    searches = 0
    while not done.is_set() or searches == 0:
        seen = len(delta)
        found = delta.search(codes[0], length=CODE_LENGTH, k=5)
        if seen:
            assert found[0][0] == 0
            np.testing.assert_allclose(found[0][1], 1, atol=1e-5)
        searches += 1
    adding.join()


def test_the_first_search_under_a_filter_looks_at_no_images_metadata() -> None:
    """It tested all of it in Python: a second for 100,000 images, in which no other search could run."""
    count = 20_000
    delta = Delta(2, (2,))
    metadata = [{"label": f"c{row % 10}", "name": f"image {row}", "price": row / 3} for row in range(count)]
    delta.add(range(count), np.ones((count, 2), dtype=np.float32), metadata)
    form = {"$and": [{"label": {"$in": ["c1", "c2"]}}, {"$not": {"price": {"$lt": 100}}}, {"name": {"$exists": True}}]}
    condition = parse_filter(form)
    begun = time.thread_time()
    for values in metadata:
        matches(condition, values)
    one_by_one_s = time.thread_time() - begun
    begun = time.thread_time()
    found = delta.search(np.ones(2, dtype=np.float32), length=2, k=5, filter=condition)
    assert time.thread_time() - begun < one_by_one_s / 4
    assert [key for key, _ in found] == [301, 302, 311, 312, 321]


def test_a_delta_tells_what_it_costs_once_it_costs_something() -> None:
    delta = Delta(64, (64,))
    codes = random_codes(0, 20_000, 64)
    delta.add(range(500), codes[:500], [{}] * 500)
    assert delta.search_ms == 0
    delta.add(range(500, 1500), codes[500:1500], [{}] * 1000)
    few = delta.search_ms
    delta.add(range(1500, 20_000), codes[1500:], [{}] * 18_500)
    assert 0 < few < delta.search_ms
