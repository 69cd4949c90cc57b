"""The map: images laid out by two coordinates of their codes, so that a part of it can be shown at once.

Of any region, one image stands for each cell of a grid over it, and counts say how many images each part holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.engine import Engine
from eigenlens.service.api.gallery_map import MAPPED
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.records import Changes, Position
from eigenlens.service.search.map_colours import Colours, Legend

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
        ranks: (m,), their ranks in the map's order of images; that of the image for a larger cell is the smaller one.
        commonest: (rows, columns), entry of the legend that most images of a part have, -1 for another value or none;
            None without a legend.
    """

    box: Box
    count: int
    counts: NDArray[np.int64]
    keys: Keys
    values: Values
    ranks: Keys
    commonest: NDArray[np.int64] | None = None


class GalleryMap:
    """The leading coordinates of a gallery's unit codes. Several threads may use it at once.

    Memory: 8 bytes for the key and 4 for each coordinate of an image.
    """

    def __init__(self) -> None:
        self._updating = threading.Lock()
        # The engine is not kept for it: a replaced one has to go.
        self._engine: Callable[[], Engine | None] = lambda: None
        self._position = Position(0, 0)
        # Replaced as a whole, so that readers need no lock.
        self._points: tuple[Keys, Values] = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
        self._colours = Colours()
        self._whole: dict[tuple[int, int], tuple[Keys, Box]] = {}

    def update(self, gallery: Gallery, *, number: int, engine: Engine) -> None:
        """Bring the map up to date with the gallery: all images of a generation at first, then what changed.

        While another thread does so, the map as it was is good enough, unless it is of another generation.

        Args:
            number: of the generation that the engine searches.
        """
        if not self._updating.acquire(blocking=self._engine() is not engine):
            return
        try:
            if self._engine() is not engine:
                self._points, self._whole = _read_points(engine), {}
                self._engine, self._position = ref(engine), gallery.position_of(number)
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
        self._colours.forget()
        self._whole = {}
        # Column by column in memory, since a region looks at two of them.
        self._points = np.concatenate([keys[~gone], added[is_new]]), np.asfortranarray(np.concatenate(parts))

    def whole(self, x: int, y: int) -> Box:
        """Return the region that holds nearly all images, by coordinates counted from 1."""
        keys, values = self._points
        if not len(values):
            return Box(-1.0, 1.0, -1.0, 1.0)
        known = self._whole.get((x, y))
        if known is not None and known[0] is keys:
            return known[1]
        (left, right), (bottom, top) = (
            np.quantile(values[:, axis - 1], [_TAIL, 1 - _TAIL]).tolist() for axis in (x, y)
        )
        margin_x, margin_y = (0.05 * (high - low) or 0.01 for low, high in ((left, right), (bottom, top)))
        box = Box(left - margin_x, right + margin_x, bottom - margin_y, top + margin_y)
        self._whole[x, y] = keys, box
        return box

    def legend(self, gallery: Gallery, field: str) -> Legend:
        """Return the commonest values of a metadata field, and which of them each image of the map has."""
        return self._colours.legend(gallery.store, field, keys=self._points[0])

    def places_of(self, x: int, y: int, keys: Sequence[int]) -> list[tuple[int, list[float], int]]:
        """Return the key, the values on both axes and the rank of those images that are on the map."""
        known, values = self._points
        rows = np.flatnonzero(np.isin(known, keys)) if keys else np.empty(0, dtype=np.int64)
        return list(zip(known[rows].tolist(), values[rows][:, [x - 1, y - 1]].tolist(), rows.tolist(), strict=True))

    def rows_in(self, x: int, y: int, box: Box) -> tuple[Keys, Values]:
        """Return the keys of all images of a region, (n,), and their values on both axes, (n, 2)."""
        keys, values = self._points
        inside = _inside(values[:, x - 1], values[:, y - 1], box)
        return keys[inside], values[inside][:, [x - 1, y - 1]]

    def region(
        self,
        x: int,
        y: int,
        box: Box,
        *,
        cells: tuple[int, int],
        parts: tuple[int, int],
        legend: Legend | None = None,
    ) -> Region:
        """Return what a region holds, by coordinates counted from 1.

        Args:
            cells: columns and rows of the grid of which each cell shows one image at most.
            parts: columns and rows of the grid of counts.
            legend: of a metadata field, for the commonest value of each part.
        """
        keys, values = self._points
        across, up = values[:, x - 1], values[:, y - 1]
        inside = _inside(across, up, box)
        if len(inside) < len(keys):
            across, up = across[inside], up[inside]
        across = (across - np.float32(box.left)) * np.float32(1 / (box.right - box.left))
        up = (up - np.float32(box.bottom)) * np.float32(1 / (box.top - box.bottom))
        part = _cell(across, up, *parts)
        counts = np.bincount(part, minlength=parts[0] * parts[1]).reshape(parts[1], parts[0])
        # Of several writes into one place the last one stays: in reverse, the first image of each cell.
        cell = part if cells == parts else _cell(across, up, *cells)
        first = np.full(cells[0] * cells[1], -1, dtype=np.int64)
        first[cell[::-1]] = inside[::-1]
        shown = first[first >= 0]
        commonest = None
        if legend is not None and len(legend.entries) == len(keys):  # not while images come and go
            commonest = _commonest(part, legend.entries[inside], len(legend.values), counts)
        return Region(box, len(inside), counts, keys[shown], values[shown][:, [x - 1, y - 1]], shown, commonest)


def _inside(across: NDArray[np.float32], up: NDArray[np.float32], box: Box) -> NDArray[np.int64]:
    return np.flatnonzero((across >= box.left) & (across <= box.right) & (up >= box.bottom) & (up <= box.top))


def _commonest(
    part: NDArray[np.int32], entries: NDArray[np.int8], values: int, counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the commonest entry of the legend in each part, in the shape of `counts`; -1 where there is none.

    Args:
        part: (n,), the number of each image's part.
        entries: (n,), the entry of each image, -1 for none.
        values: number of entries.
    """
    width = values + 1  # column 0 is for images without an entry
    votes = np.bincount(part * width + entries + 1, minlength=counts.size * width).reshape(counts.size, width)
    return np.asarray(votes.argmax(1) - 1).reshape(counts.shape)


def _read_points(engine: Engine) -> tuple[Keys, Values]:
    """Return the keys of a build, and the leading coordinates of their unit codes, column by column in memory.

    They are in a random order, so that the first image of any part is a fair sample of it.
    """
    values = engine.leading(min(MAPPED, engine.code_length))
    order = np.random.default_rng(0).permutation(len(engine.keys))
    return engine.keys[order], np.asfortranarray(values[order])


def _cell(across: NDArray[np.floating], up: NDArray[np.floating], columns: int, rows: int) -> NDArray[np.int32]:
    """Return the number of the cell, row by row from the bottom, of points in the unit square."""
    column = np.minimum((across * np.float32(columns)).astype(np.int32), columns - 1)
    row = np.minimum((up * np.float32(rows)).astype(np.int32), rows - 1)
    return row * columns + column
