"""The Pareto front of measured plans: those that no other plan beats in both recall and latency."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from eigenlens.index.plans.calibration import SHALLOW_COUNTS, Measured, shared_prefix

# Plans are alike if the logarithms of the shares of neighbours that they miss differ by less; so many alike are timed.
_LEVEL, _MAX_OF_LEVEL = 0.08, 2
# Where most targets are, between these shares, plans are alike if the shares themselves differ by less.
_FEW_MISSED, _MANY_MISSED, _SHARE = 0.02, 0.12, 0.002
# Plans of a lower recall are not offered.
_MIN_RECALL = 0.5

_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


def pareto_front(measured: Sequence[Measured], *, k: int) -> list[Measured]:
    """Return the Pareto front: the plans that no other plan beats in both latency and recall@k."""
    front: list[Measured] = []
    for m in sorted(measured, key=lambda m: (m.latency_ms["p50"], -m.low(k))):
        if m.low(k) < _MIN_RECALL:
            continue
        if not front or m.low(k) > front[-1].low(k):
            front.append(m)
    return front


def near_front(measured: Sequence[Measured], *, k: int, sure: float) -> list[Measured]:
    """Return the plans that can lie on the front, if estimated latencies may be wrong by a factor of `sure`."""
    front = pareto_front(measured, k=k)
    recalls, latencies = [m.low(k) for m in front], [m.latency_ms["p50"] for m in front]
    near = [
        m
        for m in measured
        if m.low(k) >= _MIN_RECALL and m.latency_ms["p50"] <= sure * latencies[bisect.bisect_left(recalls, m.low(k))]
    ]
    # Among plans that miss nearly as many neighbours, the few that seem quickest are enough.
    of_level: dict[float, list[Measured]] = defaultdict(list)
    for m in sorted(near, key=lambda m: m.latency_ms["p50"]):
        of_level[_level_of(1 - m.low(k))].append(m)
    return [m for level in of_level.values() for m in level[:_MAX_OF_LEVEL]]


def own_fronts(measured: Sequence[Measured], *, kinds_without_filters: Collection[str]) -> list[list[Measured]]:
    """Return plans in groups whose fronts are kept apart, since one may have to stand in for one of another group.

    They are those with compact codes, of which those over a prefix that all targets share are a group of their own,
    those of an index that has no filters, and all others.
    """
    shared = {shared_prefix(measured, k) for k in SHALLOW_COUNTS}

    def group_of(m: Measured) -> tuple[bool, int, bool]:
        compact, length = bool(m.plan.final_shortlist), m.plan.prefix_length
        own_length = length if compact and length in shared else 0
        return compact, own_length, m.plan.kind in kinds_without_filters

    return list(grouped(measured, group_of).values())


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Return items in groups, in the order of the first of each."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _level_of(missed: float) -> float:
    """Return a number that plans which miss alike shares of the neighbours have in common."""
    if _FEW_MISSED <= missed <= _MANY_MISSED:
        return round(missed / _SHARE) * _SHARE
    return round(math.log(max(missed, 1e-6)) / _LEVEL)
