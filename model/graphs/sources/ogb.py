"""Graphs in a folder of OGB's node property prediction, such as ogbn_products: gzipped CSV files below raw/."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import (
    EDGES_PER_CHUNK,
    ROWS_PER_CHUNK,
    EdgeChunk,
    GraphSource,
    integer_labels,
)


def open_file(path: Path) -> GraphSource:
    """Open the folder of a data set: raw/edge.csv.gz, num-node-list, node-feat and node-label. Raises: SourceError."""
    raw = path / "raw"
    counts = _whole(raw / "num-node-list.csv.gz", np.int64)
    if len(counts) != 1:
        raise SourceError(f"{raw / 'num-node-list.csv.gz'} holds {len(counts)} numbers; it is the count of nodes alone")
    count = int(counts[0])
    features, width = raw / "node-feat.csv.gz", 0
    if features.exists():
        width = next((rows.shape[1] for rows in _rows(features, np.float32, 1)), 0)
    labels = None
    if (raw / "node-label.csv.gz").exists():
        given = _whole(raw / "node-label.csv.gz", np.float64)
        # A data set of several tasks has a column for each: none of them is the class.
        labels = integer_labels(given, count=count, name=f"{path}: node-label")[0] if given.size == count else None
    return GraphSource(
        name=path.name,
        count=count,
        edges=partial(_edges, raw / "edge.csv.gz"),
        features=partial(_rows, features, np.float32, ROWS_PER_CHUNK) if width else None,
        feature_count=width,
        labels=labels,
    )


def _edges(path: Path) -> Iterator[EdgeChunk]:
    for rows in _rows(path, np.int64, EDGES_PER_CHUNK):
        if rows.shape[1] != 2:
            raise SourceError(f"{path} has {rows.shape[1]} columns; edges are pairs of rows of nodes")
        yield rows


def _rows(path: Path, dtype: Any, size: int) -> Iterator[NDArray[Any]]:
    """Yield the rows of a CSV file of numbers, `size` at a time."""
    try:
        with gzip.open(path, "rt") as file:
            while lines := [line for _, line in zip(range(size), file, strict=False)]:
                yield np.loadtxt(lines, delimiter=",", dtype=dtype, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _whole(path: Path, dtype: Any) -> NDArray[Any]:
    none: NDArray[Any] = np.zeros(0, dtype=dtype)
    return np.concatenate([none, *(chunk.ravel() for chunk in _rows(path, dtype, EDGES_PER_CHUNK))])
