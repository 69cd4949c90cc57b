"""The grid of a calibration: which efforts of an index are measured, and which lengths of a shortlist."""

from __future__ import annotations

from eigenlens.index.live.prefix_index import AnyPrefixIndex
from eigenlens.index.plans.plan import MIN_SHORTLIST

# The longest shortlist that is measured with all queries, and the recall from which on one of twice the length is.
_LONGEST, NEARLY_ALL = 300, 0.99


def measured_efforts(index: AnyPrefixIndex, steps_to_double: int) -> list[int | None]:
    """Return the efforts to measure, ascending, which double in so many steps."""
    if index.max_effort is None:
        return [None]
    steps = {round(2 ** (i / steps_to_double)) for i in range(24 * steps_to_double)}
    least = index.kind.min_measured_effort
    return [*sorted(step for step in steps if least <= step < index.max_effort), index.max_effort]


def measured_shortlists(steps: int, *, recall: float) -> list[int]:
    """Return the measured lengths of shortlists, which double in so many steps, and by one where they are short.

    Args:
        recall: that the effort before reaches: only where it is nearly all can a longer shortlist find what is missing.
    """
    longest = _LONGEST if recall < NEARLY_ALL else 2 * _LONGEST
    doubled = (round(10 * 2 ** (i / steps)) for i in range(6 * steps))
    one_by_one = range(10, 3 * steps + 10)  # where one candidate more is a share of recall that targets tell apart
    return sorted({1, *one_by_one, *(s for s in doubled if s < longest), MIN_SHORTLIST, _LONGEST, longest})


def deep_shortlists(steps: int) -> list[int]:
    """Return the measured lengths of shortlists for hundreds of results, which double in half as many steps."""
    deep_steps = max(1, steps // 2)
    return [round(_LONGEST * 2 ** (i / deep_steps)) for i in range(1, 4 * deep_steps)]


def deepest_shortlist(index: AnyPrefixIndex, effort: int | None, deepest: int) -> int:
    """Return the longest shortlist to measure at an effort: a graph search would work harder for a longer one."""
    return min(deepest, index.count, index.kind.max_shortlist(effort) or deepest)
