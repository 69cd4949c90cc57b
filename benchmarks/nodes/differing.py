"""A graph whose neighbours differ: what smoothing over the edges does harm to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from eigenlens.benchmarks.nodes.probe import Labels
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sources.source import FeatureChunk, GraphSource, chunks_of_edges
from eigenlens.model.graphs.two_passes import import_graph

_ROWS = 1 << 13


def with_differing_neighbours(graph: Graph, path: Path) -> Graph:
    """Import the nodes of a graph with as many edges at random, each between nodes of different labels.

    Raises: ConfigError, if all nodes have the same label.
    """
    labels = graph.labels
    if labels is None or len(np.unique(labels)) < 2:
        raise ConfigError(f"{graph.name} has no nodes with different labels")
    edges = _edges_between_labels(labels, graph.edges)

    def features() -> Iterator[FeatureChunk]:
        for start in range(0, graph.count, _ROWS):
            chunk = graph.features(start, min(start + _ROWS, graph.count))
            assert chunk is not None
            yield chunk

    source = GraphSource(
        name=f"{graph.name}, neighbours differ",
        count=graph.count,
        edges=partial(chunks_of_edges, edges),
        features=features,
        feature_count=graph.feature_count,
        labels=labels,
    )
    return import_graph(source, path)


def _edges_between_labels(labels: Labels, count: int) -> Labels:
    """Draw so many pairs of nodes, (count, 2)."""
    rng, drawn, size = np.random.default_rng(0), [], 0
    while size < count:
        pairs = rng.integers(0, len(labels), (2 * count, 2))
        drawn.append(pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]])
        size += len(drawn[-1])
    edges: Labels = np.concatenate(drawn)[:count]
    return edges
