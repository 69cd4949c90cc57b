"""Small graphs with classes, and the matrices that codes of their nodes are checked against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sources.npz import from_arrays
from eigenlens.model.graphs.two_passes import import_graph

Array = NDArray[np.float64]


def block_graph(seed: int = 0, *, count: int = 120, features: int = 20, classes: int = 3) -> dict[str, NDArray[Any]]:
    """Arrays of a graph whose edges mostly join nodes of a class, and whose features tell the class by half."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    a, b = rng.integers(0, count, (2, 16 * count))
    kept = (a < b) & ((labels[a] == labels[b]) | (rng.random(len(a)) < 0.03))
    x = rng.normal(size=(count, features)) + 2.5 * np.eye(classes, features)[labels]
    return {
        "edge_index": np.unique(np.stack([a[kept], b[kept]], axis=1), axis=0).T,
        "x": x.astype(np.float32),
        "labels": labels,
    }


def imported(path: Path, arrays: dict[str, NDArray[Any]]) -> Graph:
    """The graph artifact of these arrays."""
    return import_graph(from_arrays(arrays, name="graph"), path)


def save_graph(path: Path, seed: int = 0) -> Path:
    """Write such a graph as an .npz."""
    arrays = block_graph(seed)
    np.savez(path, edge_index=arrays["edge_index"], x=arrays["x"], labels=arrays["labels"])
    return path


def smoothing_matrix(graph: Graph) -> Array:
    """S = D^-1/2 (A + I) D^-1/2, dense, by plain loops."""
    matrix = np.eye(graph.count)
    for node in range(graph.count):
        for neighbour in graph.neighbours(node):
            matrix[node, neighbour] = 1
    root = np.sqrt(matrix.sum(1))
    scaled: Array = matrix / root[:, None] / root[None, :]
    return scaled


def unit_features(graph: Graph) -> Array:
    """The features with unit rows, dense."""
    features = graph.features(0, graph.count)
    assert features is not None
    dense = np.array(features if isinstance(features, np.ndarray) else features.to_dense(), dtype=np.float64)
    lengths = np.array([np.sqrt(sum(x * x for x in row)) for row in dense])
    scaled: Array = dense / np.where(lengths > 0, lengths, 1)[:, None]
    return scaled
