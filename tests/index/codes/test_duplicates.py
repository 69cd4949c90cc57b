"""Near-duplicates of a whole gallery, beside all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eigenlens.index.duplicates import connect, find_links
from eigenlens.index.live.engine import LiveEngine
from tests.support.codes import CODE_LENGTH, HARDLY_CALIBRATED, random_codes, repeatable, write_generation

COSINE = 0.98


def test_the_groups_are_those_of_all_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(1, 600)
    # Groups of 2, 5 and 100 near-duplicates, more than an image searches at first.
    for size, first in ((2, 10), (5, 50), (100, 200)):
        codes[first : first + size] = codes[first] + 0.01 * rng.standard_normal((size, CODE_LENGTH)) * codes[first]
    engine = LiveEngine(write_generation(tmp_path, codes, tuning=HARDLY_CALIBRATED))
    added = codes[7] * 1.5
    engine.add([5000], added[None], [{}])
    engine.remove([150])
    every = [*range(100, 700), 5000]
    done: list[int] = []
    links = find_links(engine, np.array(every), cosine=COSINE, on_progress=done.append).pairs

    stored = engine.codes_of(every)
    unit = np.stack([stored[key] / np.linalg.norm(stored[key]) for key in every])
    near = unit @ unit.T
    kept = np.array(every) != 150
    pairs = [(every[a], every[b]) for a, b in np.argwhere((near >= COSINE) & kept[:, None] & kept) if a < b]
    assert 5000 in {b for _, b in pairs}
    expected = connect(pairs)
    assert sum(len(group) >= 100 for group in expected) == 1
    assert connect(pair for pair in links if 150 not in pair) == expected
    assert all(near[every.index(a), every.index(b)] >= COSINE - 1e-3 for a, b in links)
    assert sum(done) == len(every)


@settings(repeatable)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_components_are_those_of_a_plain_search(pairs: list[tuple[int, int]]) -> None:
    groups = connect(pairs)
    assert sorted(key for group in groups for key in group) == sorted({key for pair in pairs for key in pair})
    for group in groups:
        reached = {group[0]}
        for _ in group:
            reached |= {b for a, b in pairs if a in reached} | {a for a, b in pairs if b in reached}
        assert sorted(reached) == group
