"""The walk over a graph and the rescoring of what it finds, compiled by Numba.

A walk waits for memory and not for arithmetic, so what it reads lies in as few lines of the processor's cache as it
can: of a prefix of 64 coordinates one line, of the links of a row two. The first coordinates of an ordered code hold
nearly all that tells codes apart and have 16 bits each; the others have 8. What a walk will need is asked for ahead,
and nothing is read twice. It begins at the best of some hundred rows, by their first coordinates, since the way to a
query's neighbourhood is most of a short walk from a fixed row.

Source: for the walk, Jayaram Subramanya et al., DiskANN, NeurIPS 2019 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

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
# Numbers that are multiplied at once, and sums of such products, a power of two.
_LANES, _SUMS = 8, 2
# Sums in any order, and no other liberty: what is not finite stays so.
_FAST = {"reassoc", "contract", "nsz"}
_JIT: dict[str, Any] = {"nogil": True, "boundscheck": False, "fastmath": _FAST, "error_model": "numpy"}

_VISITED = np.uint32(1 << 31)
_ROW = np.uint32((1 << 31) - 1)
_FREE = np.uint32(0xFFFFFFFF)
_SPREAD = np.uint32(2654435769)  # Knuth's multiplier: neighbouring rows are far from each other in a table


def layout(length: int) -> tuple[int, int]:
    """Return how a prefix of so many coordinates is stored: the number of those with 16 bits, and of those with 8.

    Up to 32 coordinates have 16 bits all. Longer prefixes fill lines of 64 bytes; of 64 coordinates the last 8 are left
    out, so that one line holds the first 8 in 16 bits and 48 in 8.
    """
    if 2 * length <= _LINE:
        return length, 0
    size = -(-length // _LINE) * _LINE
    wide = max(8, size - length)
    return wide, size - 2 * wide


def _dot_product(convert: Callable[[Any, Any], Any], element: ir.Type) -> Any:
    """Return a function of compiled code: the inner product of floats and stored numbers, eight at a time.

    product(floats, start, numbers, number_start, count) looks at `count` // 8 * 8 of each.
    """
    floats, bits = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(element, _LANES)

    @intrinsic  # type: ignore[untyped-decorator]
    def product(_: Any, a: Any, start_a: Any, b: Any, start_b: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data_a, data_b = (
                context.make_array(signature.args[place])(context, builder, arguments[place]).data for place in (0, 2)
            )
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{_LANES}f32"
            )
            sums = [cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * _LANES)) for _ in range(_SUMS)]

            def add(total: Any, offset: Any) -> None:
                loaded = []
                for data, start, vector in ((data_a, arguments[1], floats), (data_b, arguments[3], bits)):
                    address = builder.gep(data, [builder.add(start, offset)])
                    load = builder.load(builder.bitcast(address, vector.as_pointer()))
                    load.align = 1
                    loaded.append(load)
                numbers = convert(builder, loaded[1])
                builder.store(builder.call(fma, [loaded[0], numbers, builder.load(total)]), total)

            # A sum waits for its last addition: several of them at once do not.
            at_once = arguments[4].type(_SUMS * _LANES)
            groups = builder.udiv(arguments[4], at_once)
            with cgutils.for_range(builder, groups) as loop:
                offset = builder.mul(loop.index, at_once)
                for number, total in enumerate(sums):
                    add(total, builder.add(offset, offset.type(number * _LANES)))
            first = builder.mul(groups, at_once)
            blocks = builder.udiv(builder.sub(arguments[4], first), first.type(_LANES))
            with cgutils.for_range(builder, blocks) as loop:
                add(sums[0], builder.add(first, builder.mul(loop.index, first.type(_LANES))))
            values = [builder.load(total) for total in sums]
            while len(values) > 1:
                values = [builder.fadd(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
            reduce = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.FloatType(), [ir.FloatType(), floats]),
                f"llvm.vector.reduce.fadd.v{_LANES}f32",
            )
            zero = ir.Constant(ir.FloatType(), 0.0)
            return builder.call(reduce, [zero, values[0]], fastmath=("reassoc",))

        return types.float32(a, types.intp, b, types.intp, types.intp), generate

    return product


def _from_integers(builder: Any, numbers: Any) -> Any:
    return builder.sitofp(numbers, ir.VectorType(ir.FloatType(), _LANES))


def _from_halves(builder: Any, bits: Any) -> Any:
    halves = builder.bitcast(bits, ir.VectorType(ir.HalfType(), _LANES))
    return builder.fpext(halves, ir.VectorType(ir.FloatType(), _LANES))


# Compilers leave short loops over whole numbers without the processor's instructions for vectors.
_dot_bytes = _dot_product(_from_integers, ir.IntType(8))
_dot_words = _dot_product(_from_integers, ir.IntType(16))
_dot_halves = _dot_product(_from_halves, ir.IntType(16))


@intrinsic  # type: ignore[untyped-decorator]
def _float_of_half(_: Any, bits: Any) -> Any:
    """Return the number that 16 bits are in half precision."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, array: Any, position: Any) -> Any:
    """Ask for the line of the cache that an element of an array is in."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        function_type = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(**_JIT)  # type: ignore[untyped-decorator]
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


@njit(**_JIT)  # type: ignore[untyped-decorator]
def _doubled(seen: Any) -> Any:
    larger = np.full(2 * seen.size, _FREE, np.uint32)
    for slot in range(seen.size):
        if seen[slot] != _FREE:
            _insert(larger, seen[slot])
    return larger


@njit(**_JIT)  # type: ignore[untyped-decorator]
def _keep(scores: Any, rows: Any, kept: Any, score: Any, row: Any) -> Any:
    """Put a row into a list, best first, of which `kept` places are taken. Returns: its place, or the length."""
    if kept == scores.size:
        if not score > scores[kept - 1]:
            return kept
        place = kept - 1
    else:
        place = kept
    while place > 0 and scores[place - 1] < score:
        scores[place], rows[place] = scores[place - 1], rows[place - 1]
        place -= 1
    scores[place], rows[place] = score, row
    return place


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


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep that beside this file, or where Numba keeps such else."""
    try:
        compiled: Callable[..., Any] = njit(**_JIT, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: every process compiles it
        compiled = njit(**_JIT)(function)
    return compiled


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
                similarity = _dot_words(scaled, 0, wide, start, wide_length)
                for i in range(wide_length // _LANES * _LANES, wide_length):
                    similarity += scaled[i] * np.float32(wide[start + i])
                start = row * row_bytes + 2 * wide_length
                similarity += _dot_bytes(scaled, wide_length, narrow, start, used - wide_length)
                place = _keep(similarities, candidates, kept, similarity, fresh[new])
                if place < window:
                    kept = min(kept + 1, window)
                    if place <= current:
                        current = place
                        start = np.intp(fresh[new]) * LINK_SLOTS
                        _prefetch(links, start)
                        _prefetch(links, start + LINK_SLOTS // 2)
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
                        _prefetch(narrow, np.intp(links[slot]) * row_bytes + place)
            met += news
            # Most often the next step is to the next candidate.
            if current + 1 < kept:
                start = np.intp(candidates[current + 1] & _ROW) * LINK_SLOTS
                _prefetch(links, start)
                _prefetch(links, start + LINK_SLOTS // 2)
        # 4. The best by prefixes, or of a shortlist by full codes.
        rescored = min(shortlist, kept)
        for j in range(rescored):
            start = np.intp(candidates[j] & _ROW) * code_length
            for i in range(0, code_length, _LINE // 2):
                _prefetch(codes, start + i)
        found = 0
        for j in range(rescored):
            row = np.intp(candidates[j] & _ROW)
            start = row * code_length
            score = _dot_halves(unit, 0, codes, start, code_length)
            for i in range(code_length // _LANES * _LANES, code_length):
                score += unit[i] * _float_of_half(codes[start + i])
            if _keep(scores[number], rows[number], found, score, row) < rows.shape[1]:
                found = min(found + 1, rows.shape[1])
        if shortlist == 0:
            for j in range(min(kept, rows.shape[1])):
                scores[number, j], rows[number, j] = similarities[j], np.intp(candidates[j] & _ROW)
        for j in range(rows.shape[1]):
            if rows[number, j] < 0 or (j > 0 and scores[number, j] == scores[number, j - 1]):
                are_decided = False
    return are_decided
