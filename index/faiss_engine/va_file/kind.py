"""A VA-file over a prefix: each code's first coordinates in 8 bits, and the norm of what the prefix leaves out.

By the inequality of Cauchy and Schwarz, the inner product of two codes is at most that of their prefixes, plus the
product of the norms of the rest. So a scan of the prefixes excludes whatever cannot reach a known lower bound, and full
codes score what is left, a few in a thousand: results are exact. An ordered code has most of its norm in a prefix,
which is what makes the bound tight. A first part of the prefix, with the norm of all that follows it, often excludes a
code already.

Source: Weber, Schek and Blott, A Quantitative Analysis and Performance Study for Similarity-Search Methods in
High-Dimensional Spaces, VLDB 1998 (VA-file: 8-bit approximations, and bounds that exclude); the norm of the rest as one
more coordinate is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.kind import Kind
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

Scores = NDArray[np.float32]

LEVELS = 255  # of FAISS's quantiser with 8 bits
_BYTES_OF_ID = 8
# Stored numbers of a code, and of its first part, are multiples of this.
_STEP = 8


@dataclass(frozen=True)
class VaFileKind(Kind):
    """A scan that excludes codes by bounds of their scores, and scores the others exactly."""

    prunes: ClassVar[bool] = True
    scores_codes: ClassVar[bool] = True
    max_results: ClassVar[int | None] = 1024  # a longer list is put in order more slowly than all codes are scored

    def create(self, count: int, length: int, *, seed: int = 0, tuning: Tuning = DEFAULT_TUNING) -> faiss.Index:
        width = stored_width(length)
        # One list, which FAISS scans several times as fast as an index without lists.
        centroid = faiss.IndexFlatIP(width)
        centroid.add(np.zeros((1, width), np.float32))
        index = faiss.IndexIVFScalarQuantizer(
            centroid, width, 1, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
        )
        index.own_fields = True
        centroid.this.disown()
        return index

    def fits(self, index: faiss.Index, length: int) -> bool:
        is_one_list = isinstance(index, faiss.IndexIVFScalarQuantizer) and index.nlist == 1
        return bool(is_one_list and index.d == stored_width(length))

    def search_parameters(
        self, *, effort: int | None, selector: faiss.IDSelector | None
    ) -> faiss.SearchParameters | None:
        return None if selector is None else faiss.SearchParametersIVF(sel=selector)

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        return count * (stored_width(length) + _BYTES_OF_ID)


class VaFileWriter:
    """Fills an index of a VaFileKind with all codes, in the order of their rows."""

    def __init__(self, index: faiss.Index, codes: Codes) -> None:
        """Train it: find the range of each number that is stored. Memory: a run of the codes."""
        self._index, self._width = index, int(index.d)
        least, most = np.full(self._width, np.inf, np.float32), np.full(self._width, -np.inf, np.float32)
        for _, run in codes.runs(0, len(codes)):
            vectors = _stored_numbers(unit_prefix(run, codes.code_length), self._width)
            least, most = np.minimum(least, vectors.min(axis=0)), np.maximum(most, vectors.max(axis=0))
        faiss.copy_array_to_vector(np.concatenate([least, most - least]), index.sq.trained)
        index.is_trained = True

    def add(self, vectors: Scores) -> None:
        """Add unit codes (n, code_length)."""
        self._index.add(_stored_numbers(vectors, self._width))

    def finish(self) -> faiss.Index:
        """Return FAISS's index of what was added."""
        return self._index


@dataclass(frozen=True)
class Bound:
    """An upper bound of the score of every code for one query: the inner product of two vectors, and `slack` more.

    Attributes:
        vector: the query's (1, width): its prefix, 0 for the norm of what follows the first part, the norm of its rest.
        slack: what quantising may have taken from the inner product, at most.
        norm_after_first_part: of the query, by which that of a code is multiplied.
    """

    vector: Scores
    slack: float
    norm_after_first_part: float


def bound_of(unit: Scores, ranges: Scores) -> Bound:
    """Return the bound for a unit query (1, code_length), given the range of each stored number, (width,)."""
    vector = _stored_numbers(unit, len(ranges))
    place, norm = first_part(len(ranges)) - 1, 0.0
    if place < len(ranges) - 1:
        norm, vector[0, place] = float(vector[0, place]), 0
    return Bound(vector, float(np.abs(vector[0]) @ ranges) / (2 * LEVELS), norm)


def ranges_of(index: faiss.Index) -> tuple[Scores, Scores]:
    """Return the least value of each stored number, and how far the others reach from it, each (width,)."""
    least, ranges = faiss.vector_to_array(index.sq.trained).reshape(2, -1)
    return least, ranges


def stored_width(length: int) -> int:
    """Return how many numbers are stored of a code of so many coordinates: one for each two."""
    return -(-length // (2 * _STEP)) * _STEP


def first_part(width: int) -> int:
    """Return how many of the stored numbers are the first part, its norm included: half of them, or all of a few."""
    return width // (2 * _STEP) * _STEP or width


def _stored_numbers(unit: Scores, width: int) -> Scores:
    """Return what is stored of unit codes, (n, width): a first part, what follows it, and after each a norm.

    The norms are those of all coordinates that follow. Where the first part is all, there is one of them. Of codes of
    fewer coordinates than the width, the others are 0.
    """
    unit = np.pad(unit, ((0, 0), (0, max(0, width - unit.shape[1]))))
    after_first = first_part(width) - 1
    if after_first == width - 1:
        columns = [unit[:, :after_first], _norms(unit[:, after_first:])]
    else:
        rest = width - 2
        columns = [
            unit[:, :after_first],
            _norms(unit[:, after_first:]),
            unit[:, after_first:rest],
            _norms(unit[:, rest:]),
        ]
    return np.ascontiguousarray(np.column_stack(columns), dtype=np.float32)


def _norms(vectors: Scores) -> Scores:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))
