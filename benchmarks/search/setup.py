"""One size of gallery on disk: its codes, the queries, and their exact nearest neighbours."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.exact import exact_search
from eigenlens.index.codes.prefix import unit_prefix

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
K = 10
CORES = len(os.sched_getaffinity(0))
PREFIXES = (16, 32, 64, 128)
_CHUNK = 50_000


@dataclass(frozen=True)
class Setup:
    """One size of gallery on disk.

    Attributes:
        codes: raw half-precision codes (count, code_length), in the order of views.
        calibration, fresh: raw half-precision codes of queries; the first are for choosing plans, the others measured.
        prefixes: lengths of which other libraries' graphs are built.
        batches: numbers of queries that are searched at once with all cores.
    """

    work: Path
    codes: Path
    calibration: Path
    fresh: Path
    count: int
    code_length: int
    lengths: tuple[int, ...]
    kinds: Mapping[int, str]
    encoder: str
    prefixes: tuple[int, ...] = PREFIXES
    batches: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """Where this size keeps what it makes."""
        return self.work / str(self.count)

    def read(self, path: Path) -> NDArray[np.float16]:
        """The codes of a raw file, memory-mapped."""
        return np.memmap(path, dtype=np.float16, mode="r").reshape(-1, self.code_length)

    @property
    def gallery(self) -> NDArray[np.float16]:
        """The codes that are searched, memory-mapped."""
        return self.read(self.codes)[: self.count]

    def run(self, start: int, stop: int) -> NDArray[np.float16]:
        """The codes of some rows, in memory."""
        width = self.code_length
        codes = np.fromfile(self.codes, dtype=np.float16, count=(stop - start) * width, offset=2 * width * start)
        return codes.reshape(-1, width)

    def vectors(self, length: int | None = None) -> Vectors:
        """The codes' prefixes of this length, unit norm, in memory; whole codes when None."""
        vectors = np.empty((self.count, length or self.code_length), dtype=np.float32)
        for start in range(0, self.count, _CHUNK):
            stop = min(start + _CHUNK, self.count)
            vectors[start:stop] = unit_prefix(self.run(start, stop), vectors.shape[1])
        return vectors

    @property
    def queries(self) -> Vectors:
        """The queries that are measured, unit norm."""
        return unit_prefix(self.read(self.fresh), self.code_length)

    @property
    def calibration_queries(self) -> Vectors:
        """The queries that choose plans, unit norm."""
        return unit_prefix(self.read(self.calibration), self.code_length)


def truth(setup: Setup) -> Ids:
    """Return the rows of the exact 10 nearest of every measured query, (q, 10); kept on disk."""
    return _exact_rows(setup, setup.fresh)


def calibration_truth(setup: Setup) -> Ids:
    """Return the rows of the exact 10 nearest of every query that chooses plans, (q, 10); kept on disk."""
    return _exact_rows(setup, setup.calibration)


def _exact_rows(setup: Setup, queries: Path) -> Ids:
    path = setup.folder / f"truth-{setup.encoder}-{zlib.crc32(queries.read_bytes()):08x}.npy"
    if not path.exists():
        setup.folder.mkdir(parents=True, exist_ok=True)
        unit = unit_prefix(setup.read(queries), setup.code_length)
        np.save(path, exact_search(setup.gallery, unit, length=setup.code_length, k=K)[1])
    return np.asarray(np.load(path, allow_pickle=False))
