"""Graphs in an .npz: an adjacency matrix and features in CSR parts, or arrays of edges and features."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import (
    PICKLED,
    EdgeChunk,
    FeatureChunk,
    GraphSource,
    chunks_of_edges,
    chunks_of_features,
    chunks_of_rows,
    edges_of,
    integer_labels,
)
from eigenlens.model.graphs.sparse import SparseRows

Arrays = dict[str, NDArray[Any]]
_EDGES = ("edge_index", "edges")
_FEATURES = ("x", "features", "node_feat", "attr_matrix")
_LABELS = ("labels", "y", "node_label")
_LABEL_NAMES = ("class_names", "label_names")
_NODE_NAMES = ("node_names", "ids")
_USED = (*_EDGES, *_FEATURES, *_LABELS, *_LABEL_NAMES, *_NODE_NAMES, "num_nodes", "n_features")
_PREFIXES = ("adj_", "attr_", "feature_")


def open_file(path: Path) -> GraphSource:
    """Open an .npz with arrays of one of the known sets of names. Raises: SourceError."""
    return from_arrays(_load(path), name=path.stem)


def from_arrays(arrays: Arrays, *, name: str) -> GraphSource:
    """Return the graph of arrays by name. Raises: SourceError."""
    features = _features(arrays, name)
    count, edges = _edges(arrays, name, None if features is None else len(features))
    if features is not None and len(features) != count:
        raise SourceError(f"{name} has features of {len(features)} nodes, and {count} nodes")
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    if (given := _first(arrays, _LABELS)) is not None:
        labels, label_names = integer_labels(given, count=count, name=f"{name}: labels")
    names = _first(arrays, _LABEL_NAMES)
    ids = _first(arrays, _NODE_NAMES)
    return GraphSource(
        name=name,
        count=count,
        edges=edges,
        features=None if features is None else partial(chunks_of_features, features),
        feature_count=0
        if features is None
        else features.columns
        if isinstance(features, SparseRows)
        else features.shape[1],
        labels=labels,
        label_names=label_names or (() if names is None else tuple(names.astype(str).ravel().tolist())),
        ids=None if ids is None else tuple(ids.astype(str).ravel().tolist()),
    )


def has_meaning(name: str) -> bool:
    """Return whether an array of this name is part of a graph."""
    return name in _USED or name.startswith(_PREFIXES)


def _load(path: Path) -> Arrays:
    """Load the arrays that have a meaning here, without pickles."""
    arrays: Arrays = {}
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{path} is no readable .npz: it is no archive of arrays, as np.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in filter(has_meaning, file.files):
                arrays[name] = file[name]
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise SourceError(f"{path}: the array '{name}' {PICKLED}") from None
        raise SourceError(f"{path} is no readable .npz: {error}") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, MemoryError) as error:
        raise SourceError(f"{path} is no readable .npz: {error}") from None
    if wrong := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise SourceError(f"{path}: {wrong[0]} is no array")
    return arrays


def _first(arrays: Arrays, names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _edges(arrays: Arrays, name: str, nodes: int | None) -> tuple[int, Callable[[], Iterator[EdgeChunk]]]:
    if "adj_indptr" in arrays and "adj_indices" in arrays:
        indptr, indices = _csr(arrays, "adj", name)
        return len(indptr) - 1, partial(chunks_of_rows, indptr, indices)
    given = _first(arrays, _EDGES)
    if given is None:
        held = ", ".join(sorted(arrays)) or "none that it needs"
        raise SourceError(f"{name} has no edges: adj_indptr and adj_indices, edge_index or edges; it has {held}")
    edges = edges_of(given, name=f"{name}: edges")
    labels = _first(arrays, _LABELS)
    if nodes is None:
        nodes = _count(arrays, "num_nodes", name) or (len(np.atleast_1d(labels)) if labels is not None else None)
    if nodes is None:
        nodes = int(edges.max()) + 1 if len(edges) else 0
    return nodes, partial(chunks_of_edges, edges)


def _features(arrays: Arrays, name: str) -> FeatureChunk | None:
    if "attr_indptr" in arrays:
        indptr, indices = _csr(arrays, "attr", name)
        shape = _integers(arrays, "attr_shape", name) if "attr_shape" in arrays else None
        if shape is not None and len(shape) != 2:
            raise SourceError(f"{name}: attr_shape has {len(shape)} numbers; it is (nodes, features)")
        columns = int(shape[1]) if shape is not None else int(indices.max(initial=-1)) + 1
        values = arrays["attr_data"] if "attr_data" in arrays else np.ones(len(indices))
        if values.shape != indices.shape or values.dtype.kind not in "fiub":
            raise SourceError(f"{name}: attr_data has the shape {values.shape}; it has a number for each column")
        return SparseRows(indptr, indices, values.astype(np.float32), columns)
    if "feature_rows" in arrays and "feature_cols" in arrays:
        return _from_pairs(arrays, name)
    features = _first(arrays, _FEATURES)
    if features is not None and (features.ndim != 2 or features.dtype.kind not in "fiub"):
        raise SourceError(f"{name}: features have the shape {features.shape}; they are numbers, (nodes, features)")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, which is refused later
        return None if features is None else features.astype(np.float32, copy=False)


def _from_pairs(arrays: Arrays, name: str) -> SparseRows:
    """Return the features of lists of rows and columns, each entry a one."""
    rows, columns = _integers(arrays, "feature_rows", name), _integers(arrays, "feature_cols", name)
    if len(rows) != len(columns) or (rows < 0).any():
        raise SourceError(f"{name}: feature_rows and feature_cols are a row of a node and a column for each feature")
    labels = _first(arrays, _LABELS)
    count = len(np.atleast_1d(labels)) if labels is not None else int(rows.max(initial=-1)) + 1
    width = _count(arrays, "n_features", name) or int(columns.max(initial=-1)) + 1
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
    return SparseRows(indptr, columns[order], np.ones(len(rows), dtype=np.float32), width)


def _csr(arrays: Arrays, prefix: str, name: str) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Return where the rows of a matrix begin, and its columns. Raises: SourceError."""
    indptr, indices = _integers(arrays, f"{prefix}_indptr", name), _integers(arrays, f"{prefix}_indices", name)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise SourceError(f"{name}: {prefix}_indptr does not fit {prefix}_indices: it rises from 0 to {len(indices)}")
    return indptr, indices


def _integers(arrays: Arrays, key: str, name: str) -> NDArray[np.integer[Any]]:
    """Return a list of whole numbers by name. Raises: SourceError."""
    if key not in arrays:
        raise SourceError(f"{name} has no {key}, which belongs to {', '.join(sorted(arrays))}")
    array = arrays[key]
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array
    if array.ndim == 1 and array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN becomes a number, which it does not equal
            whole = array.astype(np.int64)
        if np.array_equal(whole, array):
            return whole
    raise SourceError(f"{name}: {key} is {array.dtype} of the shape {array.shape}; it is a list of whole numbers")


def _count(arrays: Arrays, key: str, name: str) -> int | None:
    """Return a number that an array of one holds; None if there is none of this name. Raises: SourceError."""
    if key not in arrays:
        return None
    if arrays[key].size != 1:
        raise SourceError(f"{name}: {key} has the shape {arrays[key].shape}; it is one number")
    return int(_integers({key: arrays[key].ravel()}, key, name)[0])
