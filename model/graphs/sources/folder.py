"""Graphs in a folder: edges.csv, .tsv, .parquet or .npy and, if there are any, nodes of one of these endings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import (
    PICKLED,
    GraphSource,
    chunks_of_edges,
    chunks_of_features,
    edges_of,
    integer_labels,
)
from eigenlens.model.graphs.sources.tables import node_columns, read_columns, read_edges

_ENDINGS = (".csv", ".tsv", ".parquet", ".npy")


def open_file(path: Path) -> GraphSource:
    """Open a folder with edges and nodes. Raises: SourceError, which says what would have worked."""
    edges, nodes = _find(path, "edges"), _find(path, "nodes")
    if edges is None:
        raise SourceError(f"{path} is no graph: it has no {', '.join(f'edges{ending}' for ending in _ENDINGS)}")
    labels = _load(path / "labels.npy") if (path / "labels.npy").exists() else None
    if nodes is not None and nodes.suffix != ".npy":
        table = node_columns(read_columns(nodes), name=str(nodes))
        if edges.suffix == ".npy":
            return table.to_source(path.name, partial(chunks_of_edges, edges_of(_load(edges), name=str(edges))))
        return table.to_source(path.name, partial(read_edges, edges, table.ids))
    features = None if nodes is None else _load(nodes)
    if features is not None and (features.ndim != 2 or features.dtype.kind not in "fiub"):
        raise SourceError(f"{nodes} has the shape {features.shape}; features are numbers, (nodes, features)")
    if edges.suffix == ".npy":
        pairs = edges_of(_load(edges), name=str(edges))
        chunks = partial(chunks_of_edges, pairs)
    else:
        chunks = partial(read_edges, edges, None)
    count = len(features) if features is not None else len(np.atleast_1d(labels)) if labels is not None else 0
    if count == 0:
        count = 1 + max((int(chunk.max()) for chunk in chunks() if len(chunk)), default=-1)
    numbers, names = (None, ()) if labels is None else integer_labels(labels, count=count, name=f"{path}: labels.npy")
    return GraphSource(
        name=path.name,
        count=count,
        edges=chunks,
        features=None if features is None else partial(chunks_of_features, features),
        feature_count=0 if features is None else features.shape[1],
        labels=numbers,
        label_names=names,
    )


def _find(path: Path, stem: str) -> Path | None:
    there = [path / f"{stem}{ending}" for ending in _ENDINGS if (path / f"{stem}{ending}").exists()]
    if len(there) > 1:
        raise SourceError(f"{path} has {' and '.join(file.name for file in there)}; keep one of them")
    return there[0] if there else None


def _load(path: Path) -> NDArray[Any]:
    """Map an array into memory, without pickles."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "python object" in str(error).lower() or "pickle" in str(error).lower():
            raise SourceError(f"{path} {PICKLED}") from None
        raise SourceError(f"{path} is no readable .npy: {error}") from None
    except (OSError, EOFError) as error:
        raise SourceError(f"{path} is no readable .npy: {error}") from None
    return array
