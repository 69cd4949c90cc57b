"""The map: images laid out by two coordinates of their codes, so that a part of it can be shown at once.

Of any region, one image stands for each cell of a grid over it, and counts say how many images each part holds.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.engine import Engine
from eigenlens.service.api.gallery_map import MAPPED
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store import Changes, Position

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
    """The leading coordinates of a gallery's unit codes. Several threads may use it at once.

    Memory: 8 bytes for the key and 4 for each coordinate of an image.
    """

    def __init__(self) -> None:
        self._updating = threading.Lock()
        self._engine: Engine | None = None
        self._position = Position(0, 0)
        # Replaced as a whole, so that readers need no lock.
        self._points: tuple[Keys, Values] = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)

    def update(self, gallery: Gallery, *, number: int, engine: Engine) -> None:
        """Bring the map up to date with the gallery: all images of a generation at first, then what changed.

        While another thread does so, the map as it was is good enough, unless it is of another generation.

        Args:
            number: of the generation that the engine searches.
        """
        if not self._updating.acquire(blocking=self._engine is not engine):
            return
        try:
            if self._engine is not engine:
                self._points = _read_points(engine)
                self._engine, self._position = engine, gallery.position_of(number)
            changes = gallery.store.changes(self._position, encoder_id=engine.encoder_id)
            self._apply(changes)
            if all(code is not None for code in changes.codes):  # an image without a code yet is looked for again
                self._position = changes.position
        finally:
            self._updating.release()

    def _apply(self, changes: Changes) -> None:
        keys, values = self._points
        coded = [(key, code) for key, code in zip(changes.keys, changes.codes, strict=True) if code is not None]
        added = np.array([key for key, _ in coded], dtype=np.int64)
        is_new = ~np.isin(added, keys[np.isin(keys, added)])  # of few in many: no sort of the many
        gone = np.isin(keys, changes.removed) if changes.removed else np.zeros(len(keys), dtype=bool)
        if not is_new.any() and not gone.any():
            return
        parts = [values[~gone]]
        if is_new.any():
            codes = np.stack([code for (_, code), new in zip(coded, is_new.tolist(), strict=True) if new])
            parts.append(unit_prefix(codes, codes.shape[1])[:, : values.shape[1]])
        # Column by column in memory, since a region looks at two of them.
        self._points = np.concatenate([keys[~gone], added[is_new]]), np.asfortranarray(np.concatenate(parts))

    def whole(self, x: int, y: int) -> Box:
        """Return the region that holds nearly all images, by coordinates counted from 1."""
        _, values = self._points
        if not len(values):
            return Box(-1.0, 1.0, -1.0, 1.0)
        (left, right), (bottom, top) = (
            np.quantile(values[:, axis - 1], [_TAIL, 1 - _TAIL]).tolist() for axis in (x, y)
        )
        margin_x, margin_y = (0.05 * (high - low) or 0.01 for low, high in ((left, right), (bottom, top)))
        return Box(left - margin_x, right + margin_x, bottom - margin_y, top + margin_y)

    def region(self, x: int, y: int, box: Box, *, cells: tuple[int, int], parts: tuple[int, int]) -> Region:
        """Return what a region holds, by coordinates counted from 1.

        Args:
            cells: columns and rows of the grid of which each cell shows one image at most.
            parts: columns and rows of the grid of counts.
        """
        keys, values = self._points
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


def _read_points(engine: Engine) -> tuple[Keys, Values]:
    """Return the keys of a build, and the leading coordinates of their unit codes, column by column in memory.

    They are in a random order, so that the first image of any part is a fair sample of it.
    """
    width = min(MAPPED, engine.code_length)
    keys = np.sort(engine.keys)
    values = np.empty((len(keys), width), dtype=np.float32)
    coded = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH].tolist()
        codes = engine.codes_of(batch)
        rows = [start + place for place, key in enumerate(batch) if key in codes]
        if rows:
            stored = np.stack([codes[key] for key in batch if key in codes])
            values[rows], coded[rows] = unit_prefix(stored, engine.code_length)[:, :width], True
    order = np.random.default_rng(0).permutation(np.flatnonzero(coded))
    return keys[order], np.asfortranarray(values[order])


def _cell(across: NDArray[np.floating], up: NDArray[np.floating], columns: int, rows: int) -> NDArray[np.int32]:
    """Return the number of the cell, row by row from the bottom, of points in the unit square."""
    column = np.minimum((across * np.float32(columns)).astype(np.int32), columns - 1)
    row = np.minimum((up * np.float32(rows)).astype(np.int32), rows - 1)
    return row * columns + column
