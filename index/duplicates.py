"""Near-duplicates of a whole gallery: images whose full codes are nearly the same, as groups.

All pairs of n images are n (n - 1) / 2 cosines of full codes. Here each image searches its nearest others by a
calibrated plan: a short prefix finds a shortlist, and full codes settle it. That is n times the shortlist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.engine import Engine
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import MIN_SHORTLIST, SHORTLIST_FACTOR, Plan

_BATCH = 1000
_TARGET_RECALL = 0.99
# How many others each image searches: more, where all of the first ones are near-duplicates.
_COUNTS = (8, 64, 1000)

Keys = NDArray[np.int64]
Link = tuple[int, int]


def find_links(
    engine: Engine, keys: Keys, *, cosine: float, on_progress: Callable[[int], None] = lambda count: None
) -> Iterator[Link]:
    """Yield pairs of images whose full codes have a cosine of at least `cosine`, each once or twice, in any order.

    An image with more than 1,000 near-duplicates is linked with the 1,000 nearest.

    Args:
        keys: of images in the engine, (n,); those without a code are left out.
        on_progress: called with the number of images that were searched with, as they are done.
    """
    chooser = PlanChooser(engine)
    remaining = keys
    for step, count in enumerate(_COUNTS):
        plan = _plan(chooser, engine, count)
        crowded: list[int] = []
        for start in range(0, len(remaining), _BATCH):
            codes = engine.codes_of(remaining[start : start + _BATCH].tolist())
            if codes:
                results = engine.search(np.stack(list(codes.values())), plan=plan, k=min(count + 1, len(engine)))
                for key, neighbors in zip(codes, results, strict=True):
                    near = [other for other, score in neighbors if other != key and score >= cosine]
                    yield from ((key, other) for other in near)
                    if len(near) >= count:
                        crowded.append(key)
            if step == 0:
                on_progress(len(remaining[start : start + _BATCH]))
        remaining = np.array(crowded, dtype=np.int64)


def connect(pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return the connected components of a graph's edges, each a sorted list of two keys or more; smallest key first.

    Images of a component need not all be near-duplicates of each other: the first and the last may be linked by others.
    """
    parent: dict[int, int] = {}

    def root(key: int) -> int:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for a, b in pairs:
        parent.setdefault(a, a)
        parent.setdefault(b, b)
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for key in sorted(parent):
        groups.setdefault(root(key), []).append(key)
    return list(groups.values())


def _plan(chooser: PlanChooser, engine: Engine, count: int) -> Plan:
    """Return a plan for `count` others of an image, whose scores are cosines of full codes."""
    plan = chooser.choose(PlanRequest(target_recall=_TARGET_RECALL), k=count + 1).plan
    if (plan.rerank_length or plan.prefix_length) < engine.code_length:
        shortlist = max(MIN_SHORTLIST, SHORTLIST_FACTOR * (count + 1))
        plan = replace(plan, shortlist=shortlist, rerank_length=engine.code_length)
    return plan
