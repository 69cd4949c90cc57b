"""The scan of a VA-file, compiled by Numba: what may be among the nearest is scored at once, and raises the bound.

FAISS scans the same file where Numba is not installed, in two to three times the time: it returns what reaches a first
bound.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.faiss_engine.compiled import (
    LANES,
    compiled_once,
    dot_halves,
    dot_unsigned_bytes,
    float_of_half,
    keep_best,
    prefetch,
)

_LINE = 64
# Bytes that are asked for ahead, and rows that are looked at together.
_AHEAD, _BLOCK = 2048, 64
# The first part is looked at where fewer than one row in so many passes it; this is tried anew every so many rows.
_FEW, _SPELL = 8, 4096


class StoredCodes(NamedTuple):
    """What a scan reads, in flat arrays, in the order of rows.

    Attributes:
        numbers: 8 bits each, (count * width,); the width is a multiple of LANES.
        codes: in half precision as words of 16 bits, (count * code_length,).
        norms: of the codes, (count,).
    """

    numbers: NDArray[np.uint8]
    codes: NDArray[np.uint16]
    norms: NDArray[np.float32]


class QueryBound(NamedTuple):
    """A query, and the upper bounds of each row's cosine with it: a constant and a sum of weighted numbers.

    Attributes:
        unit: the query, (code_length,).
        weights: of the numbers that are stored of a row, (width,).
        first_part: how many of them a first bound looks at; the last of these is for that bound alone.
        first_constant, constant: to be added to the first bound, and to that by all numbers.
        least: a lower bound of the k-th best cosine.
        rounding: by how much a cosine may differ from its true value.
    """

    unit: NDArray[np.float32]
    weights: NDArray[np.float32]
    first_part: int
    first_constant: np.float32
    constant: np.float32
    least: np.float32
    rounding: np.float32


@compiled_once
def scan_with_bound(query: Any, stored: Any, allowed: Any, scores: Any, rows: Any) -> Any:
    """Find the rows with the largest cosines. Several threads may do so at once, each without Python's lock.

    Args:
        query: a QueryBound.
        stored: a StoredCodes.
        allowed: a bit for each row that may be found, least significant first; empty for all.
        scores, rows: (k,), float32 and int64: what is found is written there, best first.

    Returns: of how many rows the codes were looked at.
    """
    unit, weights, numbers, codes = query.unit, query.weights, stored.numbers, stored.codes
    width, length, part = weights.size, unit.size, query.first_part
    whole_length = length // LANES * LANES
    count = numbers.size // width
    threshold, kept, looked_at = query.least - query.rounding, 0, 0
    reaching = np.empty(_BLOCK, np.int64)
    selective = False
    for first in range(0, count, _BLOCK):
        # 1. The rows of a block that may be among the best.
        found, past_first = 0, 0
        tries_first = selective or first % _SPELL == 0
        for row in range(first, min(first + _BLOCK, count)):
            start = row * width
            prefetch(numbers, start + _AHEAD)
            total = dot_unsigned_bytes(weights, 0, numbers, start, part if tries_first else width)
            if tries_first:
                if total + query.first_constant < threshold:
                    continue
                past_first += 1
                total += dot_unsigned_bytes(weights, part, numbers, start + part, width - part)
            else:
                for i in range(start + _AHEAD + _LINE, start + _AHEAD + width, _LINE):
                    prefetch(numbers, i)
            if part < width:
                total -= weights[part - 1] * np.float32(numbers[start + part - 1])
            if total + query.constant >= threshold:
                reaching[found] = row
                found += 1
        # The first part saves time where it excludes nearly all.
        if tries_first:
            selective = past_first * _FEW < _BLOCK
        looked_at += found
        # 2. Their codes are asked for together, and then scored.
        for place in range(found):
            start = reaching[place] * length
            for i in range(start, start + length, _LINE // 2):
                prefetch(codes, i)
        for place in range(found):
            row = reaching[place]
            if allowed.size and not (allowed[row >> 3] >> (row & 7)) & 1:
                continue
            start = row * length
            score = dot_halves(unit, 0, codes, start, length)
            for i in range(whole_length, length):
                score += unit[i] * float_of_half(codes[start + i])
            if keep_best(scores, rows, kept, score / stored.norms[row], row) < scores.size:
                kept = min(kept + 1, scores.size)
                if kept == scores.size:
                    threshold = max(threshold, scores[kept - 1] - query.rounding)
    return looked_at
