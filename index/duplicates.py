"""Near-duplicates of a whole gallery: images whose full codes are nearly the same, as groups.

All pairs of n images are n (n - 1) / 2 cosines of full codes. Here a join on short prefixes leaves the few pairs that
can be near-duplicates at all, and full codes settle these: the groups are those of all pairs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.prefix_join import JOIN_LENGTH, Part, PrefixJoin
from eigenlens.processors import processors

_BATCH = 10_000
# Pairs of full codes that are compared in one step.
_SETTLED = 8192

Keys = NDArray[np.int64]
Link = tuple[int, int]


class StoredCodes(Protocol):
    """Codes by the keys of their images, as an engine has them. Several threads may ask for them."""

    @property
    def code_length(self) -> int:
        """Coordinates of a full code."""

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the full code (code_length,) of each key; unknown keys are left out."""


@dataclass(frozen=True)
class Links:
    """Pairs of near-duplicates, enough of them to connect all groups; and how many pairs of prefixes were compared."""

    pairs: list[Link]
    compared: int


def find_links(
    stored: StoredCodes, keys: Keys, *, cosine: float, on_progress: Callable[[int], None] = lambda count: None
) -> Links:
    """Find the pairs of images whose full codes have a cosine of at least `cosine`, as many as connect all groups.

    Args:
        stored: has the codes, of any norm.
        keys: of the images, (n,); those without a code are left out.
        on_progress: called with the number of images that were joined with all others, as they are done.
    """
    coded, prefixes = _read_prefixes(stored, keys)
    on_progress(len(keys) - len(coded))
    join = PrefixJoin(prefixes, cosine=cosine)
    linker = _Linker(stored, coded, cosine)

    def work(part: Part) -> int:
        for a, b in join.pairs(part):
            linker.settle(a, b)
        return join.size(part)

    # A part holds the places of many others: only a few are kept at once.
    threads = processors()
    running: deque[Future[int]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for part in join.parts():
            running.append(pool.submit(work, part))
            if len(running) > 2 * threads:
                on_progress(running.popleft().result())
        for future in running:
            on_progress(future.result())
    return Links(linker.links, join.compared)


class _Linker:
    """Links near-duplicates, (n,) by row, unless others connect them already. Several threads may use it."""

    def __init__(self, stored: StoredCodes, keys: Keys, cosine: float) -> None:
        self._stored, self._keys, self._cosine = stored, keys, cosine
        self._parent = np.arange(len(keys))
        self._lock = threading.Lock()
        self.links: list[Link] = []

    def settle(self, a: Keys, b: Keys) -> None:
        """Link those of the pairs of rows, (m,) and (m,), whose full codes have the cosine."""
        for start in range(0, len(a), _SETTLED):
            rows, others = a[start : start + _SETTLED], b[start : start + _SETTLED]
            apart = self._roots(rows) != self._roots(others)
            rows, others = rows[apart], others[apart]
            if len(rows) == 0:
                continue
            distinct, places = np.unique(np.stack([rows, others]), return_inverse=True)
            codes = self._stored.codes_of(self._keys[distinct].tolist())
            unit = _unit(np.stack([codes[key] for key in self._keys[distinct].tolist()]))
            place, other = places.reshape(2, -1)
            near = np.einsum("ij,ij->i", unit[place], unit[other]) >= self._cosine
            with self._lock:
                self._link(rows[near], others[near])

    def _link(self, rows: Keys, others: Keys) -> None:
        for row, other in zip(rows.tolist(), others.tolist(), strict=True):
            low, high = sorted((self._root(row), self._root(other)))
            if low != high:
                self._parent[high] = low
                self.links.append((int(self._keys[row]), int(self._keys[other])))

    def _root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    def _roots(self, rows: Keys) -> Keys:
        """Return a row that each is connected with, by links so far: the same one for most of a group."""
        roots = self._parent[rows]
        while not np.array_equal(roots, above := self._parent[roots]):
            roots = above
        return roots


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


def _read_prefixes(stored: StoredCodes, keys: Keys) -> tuple[Keys, NDArray[np.float32]]:
    """Return those keys (m,) that have a code, and the first coordinates of their unit codes, (m, at most 32)."""
    length = min(JOIN_LENGTH, stored.code_length)
    coded: list[int] = []
    prefixes = np.empty((len(keys), length), dtype=np.float32)
    for start in range(0, len(keys), _BATCH):
        codes = stored.codes_of(keys[start : start + _BATCH].tolist())
        if codes:
            prefixes[len(coded) : len(coded) + len(codes)] = _unit(np.stack(list(codes.values())))[:, :length]
            coded += codes
    return np.array(coded, dtype=np.int64), prefixes[: len(coded)]


def _unit(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.asarray(codes / np.where(norms > 0, norms, 1), dtype=np.float32)
