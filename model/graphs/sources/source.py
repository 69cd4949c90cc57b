"""What a graph is read from, whatever its format: chunks of edges and of features, labels, ids and metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sparse import SparseRows

EDGES_PER_CHUNK = 1 << 20
ROWS_PER_CHUNK = 1 << 14
_MAX_LABEL = (1 << 31) - 1
PICKLED = (
    "is a pickle, which can run any program when it is read. Where you trust it, convert it: "
    "np.savez('graph.npz', edge_index=edge_index, x=x, labels=labels), with arrays of numbers"
)

EdgeChunk = NDArray[np.integer[Any]]
"""Both ends of each edge, (m, 2): rows of nodes."""
FeatureChunk = NDArray[np.floating[Any]] | SparseRows
"""Features of the next nodes, (m, feature_count)."""


@dataclass(frozen=True)
class GraphSource:
    """A graph to import. Edges and features are read as often as they are called.

        source = open_graph_source("cora.npz")
        for chunk in source.edges(): ...

    Attributes:
        name: what it is called in manifests.
        count: number of nodes.
        edges: yields chunks of edges, (m, 2).
        features: yields chunks of features, in the order of the nodes; None if there are none.
        feature_count: numbers of a node's features, p.
        labels: (count,), from 0; -1 where a node has none. None if there are none at all.
        label_names: a name for each label; empty if they have none.
        ids: id of each node; None for row numbers.
        metadata: yields the metadata of each node; None if there are none.
    """

    name: str
    count: int
    edges: Callable[[], Iterator[EdgeChunk]]
    features: Callable[[], Iterator[FeatureChunk]] | None = None
    feature_count: int = 0
    labels: NDArray[np.integer[Any]] | None = None
    label_names: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None
    metadata: Callable[[], Iterable[dict[str, Any]]] | None = field(default=None, repr=False)


def chunks_of_edges(edges: EdgeChunk) -> Iterator[EdgeChunk]:
    """Yield an array of edges, (m, 2), in chunks."""
    for start in range(0, len(edges), EDGES_PER_CHUNK):
        yield np.asarray(edges[start : start + EDGES_PER_CHUNK])


def chunks_of_rows(indptr: NDArray[np.integer[Any]], indices: NDArray[np.integer[Any]]) -> Iterator[EdgeChunk]:
    """Yield the edges of an adjacency matrix in CSR form, in chunks."""
    for start in range(0, len(indices), EDGES_PER_CHUNK):
        stop = min(start + EDGES_PER_CHUNK, len(indices))
        rows = np.searchsorted(indptr, np.arange(start, stop), side="right") - 1
        yield np.stack([rows, indices[start:stop]], axis=1)


def chunks_of_features(features: FeatureChunk) -> Iterator[FeatureChunk]:
    """Yield features in chunks of rows."""
    for start in range(0, len(features), ROWS_PER_CHUNK):
        stop = min(start + ROWS_PER_CHUNK, len(features))
        yield features.part(start, stop) if isinstance(features, SparseRows) else np.asarray(features[start:stop])


def edges_of(array: NDArray[Any], *, name: str) -> EdgeChunk:
    """Return edges given as (m, 2) or (2, m) as (m, 2). Raises: SourceError."""
    if array.ndim != 2 or 2 not in array.shape or array.dtype.kind not in "iuf":
        raise SourceError(f"{name} has the shape {array.shape}; edges are pairs of rows of nodes, (edges, 2) or (2, m)")
    pairs = array if array.shape[1] == 2 else array.T
    if pairs.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN becomes a number, which it does not equal
            whole = pairs.astype(np.int64)
        if not np.array_equal(whole, pairs):
            raise SourceError(f"{name} holds fractions; edges are pairs of rows of nodes, which are whole numbers")
        return whole
    return pairs


def integer_labels(labels: NDArray[Any], *, count: int, name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as numbers from 0, -1 where one is missing, and their names.

    Whole numbers stay as they are; negative ones, NaN and empty texts are missing labels. Texts are numbered in their
    order.

    Raises: SourceError, if there is not one label for each node.
    """
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (count,):
        raise SourceError(f"{name} has the shape {labels.shape}; there is one label for each of {count} nodes")
    if labels.dtype.kind in "iub":
        return np.maximum(labels.astype(np.int64), -1), ()
    if labels.dtype.kind == "f":
        if not np.array_equal(np.floor(labels), labels, equal_nan=True) or (labels > _MAX_LABEL).any():
            raise SourceError(f"{name} holds fractions, or more than {_MAX_LABEL}; labels are whole numbers or texts")
        return np.where(labels >= 0, labels, -1).astype(np.int64), ()  # NaN is not at least 0
    texts = labels.astype(str)
    names, numbers = np.unique(texts, return_inverse=True)
    if names[0] == "":
        return numbers.astype(np.int64) - 1, tuple(names[1:].tolist())
    return numbers.astype(np.int64), tuple(names.tolist())
