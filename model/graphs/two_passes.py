"""From a source to a graph artifact in two passes over its edges, in memory that does not grow with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.errors import SourceError
from eigenlens.model.graphs import artifact as files
from eigenlens.model.graphs.artifact import KIND, Graph
from eigenlens.model.graphs.sources.source import EdgeChunk, GraphSource
from eigenlens.model.graphs.sparse import SparseRows

_ENTRIES_PER_BLOCK = 1 << 22
_SCRATCH = "entries"
# Rows and what marks the direction of an edge share 31 bits.
_MAX_NODES = 2**30


@dataclass
class _Counts:
    """What the passes count of the source's edges."""

    listed: int = 0
    loops: int = 0
    distinct: int = 0
    one_way: int = 0
    edges: int = 0
    faults: list[str] = field(default_factory=list)


def import_graph(source: GraphSource, path: Path) -> Graph:
    """Write the graph artifact of a source at `path`, with progress on standard error.

    The first pass checks the ends of all edges and counts those of each node; the second writes each edge at both its
    ends. Then each node's neighbours are sorted and counted once, in blocks.

    Returns: the opened graph. What was put right (edges in one direction, listed twice, from a node to itself) is in
        its `faults`, with what else a person should know (isolated nodes, missing labels, no features).

    Raises: SourceError, if an edge ends at no node, or a feature is not finite; ArtifactExistsError.
    """
    if not 1 <= source.count <= _MAX_NODES:
        raise SourceError(f"{source.name} has {source.count} nodes; graphs have 1 to {_MAX_NODES}")
    properties: dict[str, Any] = {
        "name": source.name,
        "count": source.count,
        "feature_count": source.feature_count,
        "label_names": list(source.label_names),
    }
    with artifact.publishing(path, kind=KIND, properties=properties) as directory:
        counts = _Counts()
        degrees = _count_ends(source, counts)
        starts = np.concatenate([[0], np.cumsum(degrees)])
        scratch = directory / _SCRATCH
        if starts[-1]:
            entries = np.memmap(scratch, dtype=np.uint32, mode="w+", shape=(int(starts[-1]),))
            _write_ends(source, entries, starts)
            _sort_rows(directory, entries, starts, counts)
            del entries
            scratch.unlink()
        else:
            _write(directory / files.INDPTR, starts.astype("<i8"))
            _write(directory / files.INDICES, np.zeros(0, dtype="<i4"))
        _describe_edges(directory, source, counts)
        _write_features(directory, source, counts)
        _write_nodes(directory, source, counts)
        properties |= {"edges": counts.edges, "faults": counts.faults}
    return Graph(path)


def _count_ends(source: GraphSource, counts: _Counts) -> NDArray[np.int64]:
    """Return how many edges end at each node, both ends counted, loops left out. Raises: SourceError."""
    degrees = np.zeros(source.count, dtype=np.int64)
    for chunk in tqdm(source.edges(), desc="count edges", unit="chunk"):
        outside = (chunk < 0) | (chunk >= source.count)
        if outside.any():
            row = int(np.flatnonzero(outside.any(axis=1))[0])
            a, b = chunk[row].tolist()
            raise SourceError(
                f"{source.name}: edge {counts.listed + row + 1} joins {a} and {b}; its nodes are 0 to "
                f"{source.count - 1}"
            )
        counts.listed += len(chunk)
        kept = _without_loops(chunk)
        counts.loops += len(chunk) - len(kept)
        degrees += np.bincount(kept.ravel(), minlength=source.count)
    return degrees


def _write_ends(source: GraphSource, entries: NDArray[np.uint32], starts: NDArray[np.int64]) -> None:
    """Write each edge at both ends, as twice the other end, plus 1 where it was listed the other way round."""
    place = starts[:-1].copy()
    for chunk in tqdm(source.edges(), desc="write edges", unit="chunk"):
        a, b = _without_loops(chunk).T.astype(np.int64)
        keys = np.concatenate([a << 32 | 2 * b, b << 32 | 2 * a + 1])
        keys.sort()
        rows = keys >> 32
        # The position of each among those of its row: how far it is from where its row begins.
        first = np.flatnonzero(_changes(rows))
        sizes = np.diff(first, append=len(rows))
        within = np.arange(len(rows)) - np.repeat(first, sizes)
        entries[place[rows] + within] = keys & 0xFFFFFFFF
        place[rows[first]] += sizes


def _sort_rows(directory: Path, entries: NDArray[np.uint32], starts: NDArray[np.int64], counts: _Counts) -> None:
    """Write each node's neighbours, sorted and without repetitions, and where they begin."""
    count = len(starts) - 1
    degrees = np.zeros(count, dtype=np.int64)
    with (directory / files.INDICES).open("wb") as indices, tqdm(total=count, desc="sort edges", unit="node") as bar:
        start = 0
        while start < count:
            stop = max(start + 1, int(np.searchsorted(starts, starts[start] + _ENTRIES_PER_BLOCK, side="right")) - 1)
            sizes = np.diff(starts[start : stop + 1])
            keys = np.repeat(np.arange(stop - start, dtype=np.int64) << 32, sizes)
            keys |= entries[starts[start] : starts[stop]]
            keys.sort()
            keys = keys[_changes(keys)]
            counts.distinct += len(keys)
            first = _changes(keys >> 1)
            counts.one_way += int(first.sum()) - (len(keys) - int(first.sum()))
            keys = keys[first]
            degrees[start:stop] = np.bincount(keys >> 32, minlength=stop - start)
            indices.write(((keys & 0xFFFFFFFF) >> 1).astype("<i4").tobytes())
            bar.update(stop - start)
            start = stop
    _write(directory / files.INDPTR, np.concatenate([[0], np.cumsum(degrees)]).astype("<i8"))


def _describe_edges(directory: Path, source: GraphSource, counts: _Counts) -> None:
    """Count the edges, and say what of the source's was put right."""
    indptr = np.fromfile(directory / files.INDPTR, dtype="<i8")
    counts.edges = int(indptr[-1]) // 2
    one_way = counts.one_way // 2  # counted at both ends
    if counts.loops:
        counts.faults.append(
            f"{_number(counts.loops, 'edge')} from a node to itself: left out, S has one for each node"
        )
    twice = counts.listed - counts.loops - counts.distinct // 2
    if twice:
        counts.faults.append(f"{_number(twice, 'edge')} listed before: counted once")
    if one_way == counts.edges > 0:
        counts.faults.append("every edge is listed in one direction: taken in both")
    elif one_way:
        counts.faults.append(
            f"the edges are directed: {one_way} of {counts.edges} have none in the other direction; all count in both"
        )
    if isolated := int((np.diff(indptr) == 0).sum()):
        known = "of these the features alone count" if source.feature_count else "nothing tells what these are like"
        counts.faults.append(f"{_number(isolated, 'node')} without an edge: {known}")


def _write_features(directory: Path, source: GraphSource, counts: _Counts) -> None:
    """Write the features as the source has them, dense or sparse. Raises: SourceError."""
    if source.features is None or source.feature_count == 0:
        counts.faults.append("no features: fit it with the preset structure-only")
        return
    rows, entries, zeros = 0, [np.zeros(1, dtype=np.int64)], 0
    with (
        (directory / files.FEATURES).open("wb") as dense,
        (directory / files.FEATURE_INDICES).open("wb") as indices,
        (directory / files.FEATURE_VALUES).open("wb") as values,
    ):
        for chunk in tqdm(source.features(), desc="features", unit="chunk"):
            numbers = chunk.values if isinstance(chunk, SparseRows) else chunk
            finite = np.isfinite(numbers)
            if not finite.all():
                bad = int(np.flatnonzero(~finite.ravel())[0])
                row = (
                    int(np.searchsorted(chunk.indptr, bad, side="right")) - 1
                    if isinstance(chunk, SparseRows)
                    else (bad // chunk.shape[1])
                )
                raise SourceError(
                    f"{source.name}: a feature of node {rows + row} is NaN or infinite; fill it or leave the node out"
                )
            if isinstance(chunk, SparseRows):
                if len(chunk.indices) and not 0 <= chunk.indices.min() <= chunk.indices.max() < source.feature_count:
                    raise SourceError(
                        f"{source.name}: a feature has a column outside of 0 to {source.feature_count - 1}"
                    )
                indices.write(chunk.indices.astype("<i4").tobytes())
                values.write(chunk.values.astype("<f4").tobytes())
                entries.append(np.asarray(chunk.indptr[1:], dtype=np.int64) + entries[-1][-1])
                zeros += int((np.diff(chunk.indptr) == 0).sum())
            else:
                dense.write(np.ascontiguousarray(chunk, dtype="<f4").tobytes())
                zeros += int((~chunk.any(axis=1)).sum())
            rows += len(chunk)
    if rows != source.count:
        raise SourceError(f"{source.name} has features of {rows} nodes, and {source.count} nodes")
    if len(entries) > 1:
        _write(directory / files.FEATURE_INDPTR, np.concatenate(entries).astype("<i8"))
        (directory / files.FEATURES).unlink()
    else:
        (directory / files.FEATURE_INDICES).unlink()
        (directory / files.FEATURE_VALUES).unlink()
    if zeros:
        counts.faults.append(
            f"{_number(zeros, 'node')} with features that are all zero: of these the edges alone count"
        )


def _write_nodes(directory: Path, source: GraphSource, counts: _Counts) -> None:
    """Write labels, ids and metadata, where there are any. Raises: SourceError."""
    if source.labels is not None:
        _write(directory / files.LABELS, source.labels.astype("<i8"))
        if missing := int((source.labels < 0).sum()):
            counts.faults.append(f"{_number(missing, 'node')} without a label: left out where labels are compared")
    if source.ids is None and source.metadata is None:
        return
    ids = source.ids or tuple(map(str, range(source.count)))
    if len(set(ids)) != source.count:
        raise SourceError(f"{source.name} has {source.count} nodes and {len(set(ids))} different ids")
    metadata = source.metadata() if source.metadata is not None else ({} for _ in ids)
    with (directory / files.NODES).open("w", encoding="utf-8") as lines:
        for id, values in zip(ids, metadata, strict=True):
            lines.write(json.dumps({"id": id, "metadata": values}) + "\n")


def _without_loops(chunk: EdgeChunk) -> EdgeChunk:
    kept: EdgeChunk = chunk[chunk[:, 0] != chunk[:, 1]]
    return kept


def _changes(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where a sorted array differs from the entry before."""
    changes = np.ones(len(values), dtype=bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _write(path: Path, values: NDArray[Any]) -> None:
    values.tofile(path)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
