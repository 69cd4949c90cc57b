"""The map: images laid out by two coordinates of their codes, so that a part of it can be shown at once.

Of any region, one image stands for each cell of a grid over it, and counts say how many images each part holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.engine import Engine
from eigenlens.service.api.gallery_map import MAPPED

# Codes that are read at a time.
_BATCH = 10_000
# Share of the images beyond each end of an axis; the whole map leaves them out, so that a few do not make it empty.
_TAIL = 0.001

Keys = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Box:
    """A region of the map, in values of unit codes; its edges belong to it."""

    left: float
    right: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Region:
    """What a region holds.

    Attributes:
        box: the region.
        count: images in it.
        counts: (rows, columns), images in each part of it; row 0 is at the bottom.
        keys: (m,) of the images that stand for the cells, at most one a cell.
        values: (m, 2), their values on both axes.
    """

    box: Box
    count: int
    counts: NDArray[np.int64]
    keys: Keys
    values: Values


class GalleryMap:
    """The leading coordinates of a gallery's unit codes, brought up to date image by image. Threads take turns.

    Memory: 8 bytes for the key and 4 for each coordinate of an image.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: object = None
        self._engine: Engine | None = None
        self._keys: Keys = np.empty(0, dtype=np.int64)
        self._values: Values = np.empty((0, 0), dtype=np.float32)

    def update(self, engine: Engine, state: object, list_keys: Callable[[], Keys]) -> None:
        """Bring the map up to date with the gallery.

        Args:
            state: a value that differs whenever the gallery's images do; nothing is done if it is the last call's.
            list_keys: returns the keys of all images, ascending.
        """
        with self._lock:
            if self._engine is engine and self._state == state:
                return
            if self._engine is not engine:
                self._keys = np.empty(0, dtype=np.int64)
                self._values = np.empty((0, min(MAPPED, engine.code_length)), dtype=np.float32)
            keys = list_keys()
            kept = np.isin(self._keys, keys)
            new = np.setdiff1d(keys, self._keys)
            # In a random order, so that the first image of any part is a fair sample of it.
            new = np.random.default_rng(0).permutation(new)
            found_keys, found_values = self._read(engine, new)
            self._keys = np.concatenate([self._keys[kept], found_keys])
            # Column by column in memory, since a region looks at two of them.
            self._values = np.asfortranarray(np.concatenate([self._values[kept], found_values]))
            self._engine, self._state = engine, state

    @staticmethod
    def _read(engine: Engine, keys: Keys) -> tuple[Keys, Values]:
        """Return the keys that have a code, and the leading coordinates of their unit codes."""
        width = min(MAPPED, engine.code_length)
        found: list[int] = []
        parts = [np.empty((0, width), dtype=np.float32)]
        for start in range(0, len(keys), _BATCH):
            codes = engine.codes_of(np.sort(keys[start : start + _BATCH]).tolist())
            if codes:
                found += codes
                parts.append(unit_prefix(np.stack(list(codes.values())), engine.code_length)[:, :width])
        values = np.concatenate(parts)
        order = np.random.default_rng(1).permutation(len(values))
        return np.array(found, dtype=np.int64)[order], values[order]

    def whole(self, x: int, y: int) -> Box:
        """Return the region that holds nearly all images, by coordinates counted from 1."""
        if not len(self._values):
            return Box(-1.0, 1.0, -1.0, 1.0)
        (left, right), (bottom, top) = (
            np.quantile(self._values[:, axis - 1], [_TAIL, 1 - _TAIL]).tolist() for axis in (x, y)
        )
        margin_x, margin_y = (0.05 * (high - low) or 0.01 for low, high in ((left, right), (bottom, top)))
        return Box(left - margin_x, right + margin_x, bottom - margin_y, top + margin_y)

    def region(self, x: int, y: int, box: Box, *, cells: tuple[int, int], parts: tuple[int, int]) -> Region:
        """Return what a region holds, by coordinates counted from 1.

        Args:
            cells: columns and rows of the grid of which each cell shows one image at most.
            parts: columns and rows of the grid of counts.
        """
        with self._lock:
            keys, values = self._keys, self._values
        across, up = values[:, x - 1], values[:, y - 1]
        inside = np.flatnonzero((across >= box.left) & (across <= box.right) & (up >= box.bottom) & (up <= box.top))
        across = (across[inside] - np.float32(box.left)) * np.float32(1 / (box.right - box.left))
        up = (up[inside] - np.float32(box.bottom)) * np.float32(1 / (box.top - box.bottom))
        counts = np.bincount(_cell(across, up, *parts), minlength=parts[0] * parts[1]).reshape(parts[1], parts[0])
        # Of several writes into one place the last one stays: in reverse, the first image of each cell.
        first = np.full(cells[0] * cells[1], -1, dtype=np.int64)
        first[_cell(across, up, *cells)[::-1]] = inside[::-1]
        shown = first[first >= 0]
        return Region(box, len(inside), counts, keys[shown], values[shown][:, [x - 1, y - 1]])


def _cell(across: NDArray[np.floating], up: NDArray[np.floating], columns: int, rows: int) -> NDArray[np.int32]:
    """Return the number of the cell, row by row from the bottom, of points in the unit square."""
    column = np.minimum((across * np.float32(columns)).astype(np.int32), columns - 1)
    row = np.minimum((up * np.float32(rows)).astype(np.int32), rows - 1)
    return row * columns + column
