"""The walk over a graph and the rescoring of what it finds, compiled by Numba.

A walk waits for memory and not for arithmetic, so what it reads lies in as few lines of the processor's cache as it
can: of a prefix of 64 coordinates one line, of the links of a row two. The first coordinates of an ordered code hold
nearly all that tells codes apart and have 16 bits each; the others have 8. What a walk will need is asked for ahead,
and nothing is read twice. It begins at the best of some hundred rows, by their first coordinates, since the way to a
query's neighbourhood is most of a short walk from a fixed row.

Source: for the walk, Jayaram Subramanya et al., DiskANN, NeurIPS 2019 (algorithm 1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from eigenlens.index.faiss_engine.compiled import (
    JIT,
    LANES,
    compiled_once,
    dot_bytes,
    dot_halves,
    dot_words,
    float_of_half,
    keep_best,
    prefetch,
)

# Slots of a row: how many links it has, and the links.
LINK_SLOTS = 32
# Coordinates by which a walk chooses where it begins.
ENTRY_LENGTH = 16

# Outside of these, float32 holds the squares of a query's coordinates only roughly, or not at all.
_SMALL, _LARGE = 1e-20, 1e30
# Of the table of rows that a walk has seen: at least so many, and for each candidate; it doubles when it is half full.
_LEAST_SLOTS, _SLOTS_OF_CANDIDATE = 1024, 24
_LINE = 64
_SMALLEST = np.float32(1e-30)

_VISITED = np.uint32(1 << 31)
_ROW = np.uint32((1 << 31) - 1)
_FREE = np.uint32(0xFFFFFFFF)
_SPREAD = np.uint32(2654435769)  # Knuth's multiplier: neighbouring rows are far from each other in a table


def layout(length: int) -> tuple[int, int]:
    """Return how a prefix of so many coordinates is stored: the number of those with 16 bits, and of those with 8.

    Up to 32 coordinates have 16 bits all. Longer prefixes fill one line of 64 bytes, or several halves, which are never
    in more lines than that; of 64, 96 and 128 coordinates the last 8 are left out, so that the first 8 have 16 bits.
    """
    if 2 * length <= _LINE:
        return length, 0
    half = _LINE // 2
    size = max(_LINE, -(-length // half) * half)
    wide = max(8, size - length)
    return wide, size - 2 * wide


@njit(**JIT)  # type: ignore[untyped-decorator]
def _insert(seen: Any, row: Any) -> Any:
    """Put a row into the table. Returns: whether it was not there."""
    mask = np.intp(seen.size - 1)
    slot = np.intp(np.uint32(row * _SPREAD)) & mask
    while seen[slot] != _FREE:
        if seen[slot] == row:
            return False
        slot = (slot + 1) & mask
    seen[slot] = row
    return True


@njit(**JIT)  # type: ignore[untyped-decorator]
def _doubled(seen: Any) -> Any:
    larger = np.full(2 * seen.size, _FREE, np.uint32)
    for slot in range(seen.size):
        if seen[slot] != _FREE:
            _insert(larger, seen[slot])
    return larger


class StoredGraph(NamedTuple):
    """What a search reads, in flat arrays.

    Attributes:
        narrow, wide: the prefixes as `layout` says, in bytes, and the same in words of 16 bits.
        links: (count, LINK_SLOTS).
        entries, entry_prefixes: rows where a walk may begin, and their first ENTRY_LENGTH coordinates, as stored.
        scales: by which stored coordinates are multiplied, one each.
        length, wide_length: of a prefix, and how many of its coordinates have 16 bits.
        codes: in half precision, (count, code_length), as words of 16 bits.
    """

    narrow: NDArray[np.int8]
    wide: NDArray[np.int16]
    links: NDArray[np.uint32]
    entries: NDArray[np.uint32]
    entry_prefixes: NDArray[np.float32]
    scales: NDArray[np.float32]
    length: int
    wide_length: int
    codes: NDArray[np.uint16]


@compiled_once
def search_graph(  # noqa: PLR0915 - a call of compiled code may cost more than what it does
    queries: Any, scores: Any, rows: Any, window: Any, shortlist: Any, graph: Any
) -> Any:
    """Search a graph. Several threads may do so at once, and each runs without Python's lock.

    Args:
        queries: (q, code_length), float32, of any norm.
        scores, rows: (q, k), float32 and int64: what is found is written there, best first; row -1, score -inf where
            there are fewer: none for a query whose norm is too small, too large or not finite.
        window: candidates that a walk keeps.
        shortlist: of how many the inner products with full codes are computed; with 0 those of prefixes are returned.
        graph: a StoredGraph.

    Returns: whether every query has k results, no two of which have the same score.
    """
    are_decided = True
    narrow, wide, links, codes = graph.narrow, graph.wide, graph.links, graph.codes
    code_length, length, wide_length = queries.shape[1], graph.length, graph.wide_length
    used = graph.scales.size
    row_bytes = used + wide_length
    row_words = row_bytes // 2
    entry_length = graph.entry_prefixes.size // graph.entries.size
    unit, scaled = np.empty(code_length, np.float32), np.empty(used, np.float32)
    candidates, similarities = np.empty(window, np.uint32), np.empty(window, np.float32)
    fresh = np.empty(LINK_SLOTS, np.uint32)
    slots = _LEAST_SLOTS
    while slots < _SLOTS_OF_CANDIDATE * window:
        slots *= 2
    for number in range(queries.shape[0]):
        # 1. The unit query, and its unit prefix.
        rows[number], scores[number] = -1, -np.inf
        squared_norm = np.float32(0)
        for i in range(code_length):
            squared_norm += queries[number, i] * queries[number, i]
        if not (_SMALL < squared_norm < _LARGE):
            are_decided = False
            continue
        inverse = np.float32(1) / np.sqrt(squared_norm)
        squared_norm = np.float32(0)
        for i in range(code_length):
            unit[i] = queries[number, i] * inverse
        for i in range(length):
            squared_norm += unit[i] * unit[i]
        inverse = np.float32(1) / np.sqrt(max(squared_norm, _SMALLEST))
        for i in range(used):
            scaled[i] = unit[i] * inverse * graph.scales[i]
        # 2. Where to begin.
        first, best = 0, np.float32(-np.inf)
        for entry in range(graph.entries.size):
            similarity = np.float32(0)
            for i in range(entry_length):
                similarity += scaled[i] * graph.entry_prefixes[entry * entry_length + i]
            if similarity > best:
                first, best = entry, similarity
        # 3. The walk: from the best candidate that was not visited to its links, until all were.
        seen = np.full(slots, _FREE, np.uint32)
        fresh[0] = graph.entries[first]
        _insert(seen, fresh[0])
        news, met, kept, current = 1, 1, 0, 0
        while True:
            for new in range(news):
                row = np.intp(fresh[new])
                start = row * row_words
                similarity = dot_words(scaled, 0, wide, start, wide_length)
                for i in range(wide_length // LANES * LANES, wide_length):
                    similarity += scaled[i] * np.float32(wide[start + i])
                start = row * row_bytes + 2 * wide_length
                similarity += dot_bytes(scaled, wide_length, narrow, start, used - wide_length)
                place = keep_best(similarities, candidates, kept, similarity, fresh[new])
                if place < window:
                    kept = min(kept + 1, window)
                    if place <= current:
                        current = place
                        start = np.intp(fresh[new]) * LINK_SLOTS
                        prefetch(links, start)
                        prefetch(links, start + LINK_SLOTS // 2)
            while current < kept and candidates[current] & _VISITED:
                current += 1
            if current == kept:
                break
            row = np.intp(candidates[current])
            candidates[current] |= _VISITED
            if 2 * met > seen.size:
                seen = _doubled(seen)
            news = 0
            start = row * LINK_SLOTS + 1
            for slot in range(start, start + np.intp(links[start - 1])):
                if _insert(seen, links[slot]):
                    fresh[news] = links[slot]
                    news += 1
                    for place in range(0, row_bytes, _LINE):
                        prefetch(narrow, np.intp(links[slot]) * row_bytes + place)
            met += news
            # Most often the next step is to the next candidate.
            if current + 1 < kept:
                start = np.intp(candidates[current + 1] & _ROW) * LINK_SLOTS
                prefetch(links, start)
                prefetch(links, start + LINK_SLOTS // 2)
        # 4. The best by prefixes, or of a shortlist by full codes.
        rescored = min(shortlist, kept)
        for j in range(rescored):
            start = np.intp(candidates[j] & _ROW) * code_length
            for i in range(0, code_length, _LINE // 2):
                prefetch(codes, start + i)
        found = 0
        for j in range(rescored):
            row = np.intp(candidates[j] & _ROW)
            start = row * code_length
            score = dot_halves(unit, 0, codes, start, code_length)
            for i in range(code_length // LANES * LANES, code_length):
                score += unit[i] * float_of_half(codes[start + i])
            if keep_best(scores[number], rows[number], found, score, row) < rows.shape[1]:
                found = min(found + 1, rows.shape[1])
        if shortlist == 0:
            for j in range(min(kept, rows.shape[1])):
                scores[number, j], rows[number, j] = similarities[j], np.intp(candidates[j] & _ROW)
        for j in range(rows.shape[1]):
            if rows[number, j] < 0 or (j > 0 and scores[number, j] == scores[number, j - 1]):
                are_decided = False
    return are_decided
