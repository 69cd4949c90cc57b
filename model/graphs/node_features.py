"""What codes of nodes are linear in: features in unit rows or, where a graph has none, random vectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sparse import Floats, SparseRows

_ROWS = 1 << 13
RANDOM_FEATURES = 512


class NodeFeatures(Protocol):
    """Rows of features X, (count, columns), read in blocks."""

    count: int
    columns: int

    def rows(self, start: int, stop: int) -> Floats | SparseRows:
        """Return the features of the nodes from `start` to `stop`."""
        ...


class UnitFeatures:
    """A graph's own features, each node's divided by their length; features that are all zero stay."""

    def __init__(self, graph: Graph, *, dtype: np.dtype[Any] | type[np.floating[Any]] = np.float32) -> None:
        """Read features of a graph that has some. Raises: ConfigError, if it has none."""
        if graph.feature_count == 0:
            raise ConfigError(
                f"{graph.name} has no features: fit it with --preset structure-only, or name columns of numbers in "
                "nodes feature_0, feature_1 and so on"
            )
        self._graph, self._dtype = graph, np.dtype(dtype)
        self.count, self.columns = graph.count, graph.feature_count

    def rows(self, start: int, stop: int) -> Floats | SparseRows:
        """Return the unit rows of the nodes from `start` to `stop`."""
        features = self._graph.features(start, stop)
        assert features is not None
        if isinstance(features, SparseRows):
            values = np.asarray(features.values, dtype=self._dtype)
            return SparseRows(features.indptr, features.indices, values, features.columns).with_unit_rows()
        return unit_rows(features.astype(self._dtype))


class RandomFeatures:
    """Random vectors times the square root of degree + 1, which smoothing would keep if they were equal.

    What it leaves of them tells where in the graph a node is. The same seed gives the same vectors.
    """

    def __init__(self, graph: Graph, *, seed: int = 0, columns: int = RANDOM_FEATURES) -> None:
        """Draw `columns` numbers for each node."""
        self._roots = np.sqrt(graph.degrees + 1.0).astype(np.float32)
        self._seed, self.count, self.columns = seed, graph.count, min(columns, graph.count)
        self._drawn = lru_cache(maxsize=1)(self._draw)  # who reads a block in smaller parts has it drawn once

    def rows(self, start: int, stop: int) -> Floats | SparseRows:
        """Return the vectors of the nodes from `start` to `stop`."""
        first = start // _ROWS
        blocks = [self._drawn(block) for block in range(first, -(-stop // _ROWS))]
        drawn = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        scaled: NDArray[np.float32] = (
            drawn[start - first * _ROWS : stop - first * _ROWS] * self._roots[start:stop, None]
        )
        return scaled

    def _draw(self, block: int) -> NDArray[np.float32]:
        return np.random.default_rng([self._seed, block]).standard_normal((_ROWS, self.columns), dtype=np.float32)


def unit_rows(features: Floats) -> Floats:
    """Return rows divided by their length; rows of zeros stay."""
    lengths = np.sqrt(np.square(features, dtype=np.float64).sum(axis=1, keepdims=True))  # squares exceed float32
    divided: Floats = (features / np.where(lengths > 0, lengths, 1)).astype(features.dtype)
    return divided


def project(features: NodeFeatures, weights: Floats) -> Floats:
    """Return X W: (count, m) of weights W (columns, m)."""
    product = np.empty((features.count, weights.shape[1]), dtype=weights.dtype)
    for start, stop in _blocks(features.count):
        rows = features.rows(start, stop)
        product[start:stop] = rows.multiply(weights) if isinstance(rows, SparseRows) else rows @ weights
    return product


def project_back(features: NodeFeatures, values: Floats) -> Floats:
    """Return Xᵀ Y: (columns, m) of values Y (count, m)."""
    total = np.zeros((features.columns, values.shape[1]), dtype=np.float64)
    for start, stop in _blocks(features.count):
        rows, part = features.rows(start, stop), values[start:stop]
        total += rows.multiply_transposed(part) if isinstance(rows, SparseRows) else rows.T @ part
    return total


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))
