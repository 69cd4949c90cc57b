"""Eigenfunctions: for each coordinate of a gallery's codes, example rows at its ends and its middle, and quantiles.

A build computes them once, in one pass over the codes. Reading one coordinate takes the same time for any gallery.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import Floats, unit_prefix

_ROWS_FILE = "eigenfunctions-rows.npy"
_QUANTILES_FILE = "eigenfunctions-quantiles.npy"
POSITIONS = ("top", "middle", "bottom")
# Rows that are stored at each position; some of the images may be removed while the generation is served.
KEPT = 32
_QUANTILES = 257
_SAMPLE = 32_768


def write_eigenfunctions(directory: Path, codes: Codes, *, sample: Floats) -> None:
    """Write the rows at POSITIONS and the quantiles of each coordinate of the unit codes into `directory`.

    Args:
        sample: codes (m, code_length) whose quantiles are computed.
    """
    few = unit_prefix(sample[:: max(1, len(sample) // _SAMPLE)], codes.code_length)
    quantiles = np.quantile(few, np.linspace(0, 1, _QUANTILES), axis=0)
    median = quantiles[_QUANTILES // 2]
    best = [_Best(codes.code_length) for _ in POSITIONS]
    top, middle, bottom = best
    for rows, run in codes.runs(0, len(codes)):
        values = np.ascontiguousarray(unit_prefix(run, codes.code_length).T)
        for coordinate, column in enumerate(values):  # one coordinate at a time, so that it stays in the cache
            top.add(coordinate, rows, column)
            middle.add(coordinate, rows, -np.abs(column - median[coordinate]))
            bottom.add(coordinate, rows, -column)
    np.save(directory / _ROWS_FILE, np.stack([position.rows for position in best], axis=1))
    np.save(directory / _QUANTILES_FILE, np.ascontiguousarray(quantiles.T, dtype=np.float32))


@dataclass(frozen=True)
class Eigenfunction:
    """One coordinate of a gallery's codes.

    Attributes:
        rows: rows by position: with the largest values ("top", largest first), with the values nearest to the median
            ("middle", nearest first), with the smallest values ("bottom", smallest first).
        quantiles: values at equally spaced quantiles, from the smallest value to the largest.
    """

    rows: dict[str, NDArray[np.int64]]
    quantiles: NDArray[np.float32]

    def share_below(self, value: float) -> float:
        """Return the share of the images with a smaller value, 0 to 1; half of those with an equal value count."""
        last = len(self.quantiles) - 1
        left, right = (int(np.searchsorted(self.quantiles, value, side)) for side in ("left", "right"))
        if left < right:  # the value equals one or more quantiles
            return (left + right - 1) / 2 / last
        if left in (0, last + 1):
            return float(left > 0)
        below, above = (float(self.quantiles[i]) for i in (left - 1, left))
        return (left - 1 + (value - below) / (above - below)) / last

    def histogram(self, bins: int) -> NDArray[np.float64]:
        """Return the share of the images in each of `bins` equal intervals from the smallest value to the largest."""
        if self.quantiles[0] == self.quantiles[-1]:
            return np.asarray(np.eye(bins)[bins // 2])
        edges = np.linspace(self.quantiles[0], self.quantiles[-1], bins + 1)
        shares = np.diff([self.share_below(float(edge)) for edge in edges])
        return np.asarray(shares / shares.sum())


class Eigenfunctions:
    """The eigenfunctions of a generation, memory-mapped.

    eigenfunctions = Eigenfunctions(artifact.read(path, kind="generation"))
    largest = eigenfunctions[0].rows["top"]
    """

    def __init__(self, generation: artifact.Artifact) -> None:
        """Open the eigenfunctions of a generation. Raises: ArtifactDamagedError."""
        self._rows = np.load(generation.file(_ROWS_FILE), mmap_mode="r", allow_pickle=False)
        self._quantiles = np.load(generation.file(_QUANTILES_FILE), mmap_mode="r", allow_pickle=False)

    @staticmethod
    def are_in(generation: artifact.Artifact) -> bool:
        """Return whether the generation has eigenfunctions; those of earlier versions do not."""
        return _ROWS_FILE in generation.files

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, coordinate: int) -> Eigenfunction:
        """Return one coordinate, counted from 0."""
        rows = np.asarray(self._rows[coordinate], dtype=np.int64)
        return Eigenfunction(
            {position: at_position[at_position >= 0] for position, at_position in zip(POSITIONS, rows, strict=True)},
            np.asarray(self._quantiles[coordinate]),
        )

    def shares(self, *shares: float) -> NDArray[np.float32]:
        """Return the values below which these shares of the images lie, (code_length, len(shares))."""
        indices = [round(share * (self._quantiles.shape[1] - 1)) for share in shares]
        return np.asarray(self._quantiles[:, indices])


class _Best:
    """Collects the rows of the largest values of each coordinate, run by run."""

    def __init__(self, code_length: int) -> None:
        self._values = np.full((code_length, KEPT), -np.inf, dtype=np.float32)
        self.rows = np.full((code_length, KEPT), -1, dtype=np.int32)

    def add(self, coordinate: int, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add a run of one coordinate: its rows and values, (len(rows),)."""
        kept, kept_rows = self._values[coordinate], self.rows[coordinate]
        better = np.flatnonzero(values > kept[-1])  # after the first run these are few
        if len(better) == 0:
            return
        if len(better) > KEPT:
            better = better[np.argpartition(-values[better], KEPT - 1)[:KEPT]]
        both = np.concatenate([kept, values[better]])
        order = np.argsort(-both, kind="stable")[:KEPT]
        self._values[coordinate] = both[order]
        self.rows[coordinate] = np.concatenate([kept_rows, rows[better]])[order]
