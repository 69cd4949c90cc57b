"""A join: all pairs of codes that are nearly the same, without comparing all pairs.

Two unit codes of cosine c are sqrt(2 - 2c) apart, and their prefixes are no farther apart than they are. So pairs whose
prefixes are farther apart are passed over, and none is lost. The first coordinates differ the most between images: a
short prefix tells nearly all pairs apart. Halving the codes again and again, as a k-d tree does, leaves for each few of
them few others that are near enough to be compared at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JOIN_LENGTH = 32
# Coordinates that boxes bound: those of the largest spread.
_BOX = 16
# Prefixes of a leaf, and leaves of a part.
_LEAF = 256
_PART = 16
# Distances that one step computes at most: a product of two matrices.
_MAX_BLOCK = 4_000_000
# Of float32, in a squared distance of unit codes.
_ROUNDING = 1e-5

Prefixes = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Leaves from `first` to before `last`, and the sorted places of what lies near them and comes no earlier."""

    first: int
    last: int
    others: Rows


class PrefixJoin:
    """The join of prefixes (n, length), float32: the first coordinates of unit codes, not scaled again.

    join = PrefixJoin(unit_codes[:, :JOIN_LENGTH], cosine=0.98)
    for part in join.parts():
        for a, b in join.pairs(part):  # rows of codes that may have that cosine
            ...

    Several threads may join parts at the same time.

    Attributes:
        compared: pairs of prefixes that were compared so far.
    """

    def __init__(self, prefixes: Prefixes, *, cosine: float) -> None:
        """Sort the prefixes, so that near ones lie together."""
        self._radius = float(np.sqrt(max(0.0, 2 - 2 * cosine) + _ROUNDING))
        self._order, self._ends = _sort(prefixes)
        self._sorted = prefixes[self._order]
        self._boxed = np.ascontiguousarray(self._sorted[:, :_BOX])
        # -|a - b|²/2 is the inner product of (a, -|a|²/2, 1) and (b, 1, -|b|²/2).
        half = np.einsum("ij,ij->i", self._sorted, self._sorted)[:, None] / -2
        ones = np.ones_like(half)
        self._left, self._right = np.hstack([self._sorted, half, ones]), np.hstack([self._sorted, ones, half])
        self._lock = threading.Lock()
        self.compared = 0

    def parts(self) -> Iterator[Part]:
        """Yield parts that together hold every prefix once, each with the prefixes that it is to be joined with."""
        yield from self._descend(Part(0, len(self._ends), np.arange(len(self._sorted))), leaves=_PART)

    def size(self, part: Part) -> int:
        """Return the number of prefixes in a part."""
        start, stop = self._span(part)
        return stop - start

    def pairs(self, part: Part) -> Iterator[tuple[Rows, Rows]]:
        """Yield the rows (m,) and (m,) of pairs whose unit codes may have the cosine: each once, and none is left out.

        A pair belongs to the part that comes first of the two that it lies in.
        """
        for leaf in self._descend(part, leaves=1):
            yield from self._compare(*self._span(leaf), leaf.others)

    def _descend(self, part: Part, *, leaves: int) -> Iterator[Part]:
        """Yield the parts of at most so many leaves that a part consists of."""
        waiting = [part] if part.last else []
        while waiting:
            first, last, others = (whole := waiting.pop()).first, whole.last, whole.others
            start, stop = self._span(whole)
            # What came earlier was joined with this part already.
            near = self._near(start, stop, others[np.searchsorted(others, start) :])
            if last - first <= leaves:
                yield Part(first, last, near)
            else:
                middle = (first + last) // 2
                waiting += [Part(middle, last, near), Part(first, middle, near)]

    def _span(self, part: Part) -> tuple[int, int]:
        return (int(self._ends[part.first - 1]) if part.first else 0), int(self._ends[part.last - 1])

    def _near(self, start: int, stop: int, others: Rows) -> Rows:
        """Return the others that are at most the radius from the box of a part of the sorted prefixes."""
        part, values = self._boxed[start:stop], self._boxed[others]
        outside = np.clip(values, part.min(0), part.max(0))
        outside -= values
        gaps = np.einsum("ij,ij->i", outside, outside)
        return np.asarray(others[gaps <= self._radius**2])

    def _compare(self, start: int, stop: int, others: Rows) -> Iterator[tuple[Rows, Rows]]:
        step = max(1, _MAX_BLOCK // (stop - start))
        for begin in range(0, len(others), step):
            part = others[begin : begin + step]
            with self._lock:
                self.compared += (stop - start) * len(part)
            near = np.flatnonzero(self._left[start:stop] @ self._right[part].T >= -(self._radius**2) / 2)
            a, b = near // len(part) + start, part[near % len(part)]
            once = b > a
            yield self._order[a[once]], self._order[b[once]]


def _sort(prefixes: Prefixes) -> tuple[Rows, Rows]:
    """Return an order (n,) of prefixes in which near ones lie together, and the ends of leaves in it.

    They are split at the median across their largest spread until at most 256 are left.
    """
    leaves: list[Rows] = []
    waiting = [np.arange(len(prefixes))] if len(prefixes) else []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= _LEAF:
            leaves.append(rows)
            continue
        values = prefixes[rows]
        order = np.argpartition(values[:, int(values.std(0).argmax())], len(rows) // 2)
        waiting += [rows[order[len(rows) // 2 :]], rows[order[: len(rows) // 2]]]
    return np.concatenate([*leaves, np.empty(0, np.int64)]), np.cumsum([len(rows) for rows in leaves])
