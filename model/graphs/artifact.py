"""The graph artifact: adjacency, features, labels and ids of nodes on disk, mapped into memory.

GRAPH/
  indptr.i64, indices.i32           adjacency in CSR form: symmetric, binary, without loops; each edge is there twice
  features.f32                      features, (count, p), where the source has them dense
  feature_indptr.i64, feature_indices.i32, feature_values.f32      the same in CSR form
  labels.i64                        label of each node, -1 where it has none
  nodes.jsonl                       id and metadata of each node, a line each
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.graphs.sparse import SparseRows

KIND = "graph"
INDPTR, INDICES = "indptr.i64", "indices.i32"
FEATURES = "features.f32"
FEATURE_INDPTR, FEATURE_INDICES, FEATURE_VALUES = "feature_indptr.i64", "feature_indices.i32", "feature_values.f32"
LABELS = "labels.i64"
NODES = "nodes.jsonl"
_DTYPES: dict[str, np.dtype[Any]] = {".i64": np.dtype("<i8"), ".i32": np.dtype("<i4"), ".f32": np.dtype("<f4")}


class Graph:
    """An opened graph artifact.

    graph = Graph(Path("work/graph"))
    graph.features(0, 100)  # of the first hundred nodes

    Attributes:
        id: of the artifact.
        name: of the source.
        count: number of nodes.
        edges: number of edges, each counted once.
        feature_count: p, numbers of a node's features; 0 if there are none.
        label_names: a name for each label; empty if they have none.
        faults: what the source had that was put right, a sentence each.
    """

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        """Open the artifact at `path`. Raises: ArtifactError."""
        self.artifact = artifact.read(path, kind=KIND, verify=verify)
        properties = self.artifact.properties
        self.id, self.name = self.artifact.id, str(properties["name"])
        self.count, self.edges = int(properties["count"]), int(properties["edges"])
        self.feature_count = int(properties["feature_count"])
        self.label_names = tuple(properties["label_names"])
        self.faults = tuple(properties["faults"])
        self.indptr: NDArray[np.int64] = self._map(INDPTR)
        self.indices: NDArray[np.int32] = self._map(INDICES)

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """Label of each node, (count,), -1 where it has none; None if the graph has no labels."""
        return self._map(LABELS) if LABELS in self.artifact.files else None

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """Number of neighbours of each node, (count,)."""
        return np.diff(self.indptr)

    def features(self, start: int, stop: int) -> NDArray[np.float32] | SparseRows | None:
        """Return the features of the nodes from `start` to `stop`, as the source has them; None if there are none."""
        if self._sparse is not None:
            return self._sparse.part(start, stop)
        return None if self._dense is None else self._dense[start:stop]

    def neighbours(self, node: int) -> NDArray[np.int32]:
        """Return the rows of a node's neighbours, ascending."""
        return self.indices[self.indptr[node] : self.indptr[node + 1]]

    def nodes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the id and the metadata of each node, its label among them, where it has one."""
        if NODES in self.artifact.files:
            with self.artifact.file(NODES).open(encoding="utf-8") as file:
                lines: Iterator[dict[str, Any]] = (json.loads(line) for line in file)
                yield from ((line["id"], self._labelled(row, line["metadata"])) for row, line in enumerate(lines))
        else:
            yield from ((str(row), self._labelled(row, {})) for row in range(self.count))

    def _labelled(self, row: int, metadata: dict[str, Any]) -> dict[str, Any]:
        if self.labels is None or self.labels[row] < 0 or "label" in metadata:
            return metadata
        label = int(self.labels[row])
        return {"label": self.label_names[label] if label < len(self.label_names) else label, **metadata}

    @cached_property
    def _dense(self) -> NDArray[np.float32] | None:
        if FEATURES not in self.artifact.files:
            return None
        return self._map(FEATURES).reshape(self.count, self.feature_count)

    @cached_property
    def _sparse(self) -> SparseRows | None:
        if FEATURE_INDPTR not in self.artifact.files:
            return None
        return SparseRows(
            self._map(FEATURE_INDPTR), self._map(FEATURE_INDICES), self._map(FEATURE_VALUES), self.feature_count
        )

    def _map(self, name: str) -> NDArray[Any]:
        path = self.artifact.file(name)
        dtype = _DTYPES[path.suffix]
        empty = path.stat().st_size == 0  # such a file cannot be mapped
        mapped: NDArray[Any] = np.zeros(0, dtype) if empty else np.memmap(path, dtype=dtype, mode="r")
        return mapped
