"""What a network sees of a node: its smoothed features in the leading directions of all nodes', at one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.node_features import NodeFeatures, project
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sparse import Floats

_ROWS = 1 << 13
# Share of the squares that is put down to rounding.
_SAME = 1e-10


class NodeInputs:
    """Inputs (S^k X V0 - mean) / scale of all nodes, on disk; the mean variance of their columns is one.

    inputs = NodeInputs(features, Smoother(graph), basis, hops=2, length=512, path=cache / "inputs.f32")
    inputs.rows(np.arange(64))

    Attributes:
        values: S^k X V0, (n, columns), float32.
        columns: numbers of a node that are not zero for all.
        mean: (columns,).
        scale: of all columns.
    """

    def __init__(
        self, features: NodeFeatures, smoother: Smoother, basis: Floats, *, hops: int, length: int, path: Path
    ) -> None:
        """Smooth the features X and write what V0, `basis` (p, columns), keeps of them at `path`.

        Args:
            hops: k.
            length: numbers of an input; those behind the columns are zero.

        Raises: ConfigError, if all nodes are alike.
        """
        self.columns, self._length = basis.shape[1], length
        shape = (features.count, self.columns)
        self.values: NDArray[np.float32] = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
        for start in range(0, self.columns, smoother.columns_at_once):
            part = slice(start, start + smoother.columns_at_once)
            self.values[:, part] = smoother.smooth(project(features, basis[:, part].astype(smoother.dtype)), hops)
        blocks = [self.values[start : start + _ROWS] for start in range(0, features.count, _ROWS)]
        self.mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / features.count
        squares = sum(float(np.square(block - self.mean).sum()) for block in blocks)
        if squares <= _SAME * (squares + features.count * float(np.square(self.mean).sum())):
            raise ConfigError("smoothed features are the same for all nodes: there is nothing to train on")
        self.scale = (squares / self.values.size) ** 0.5

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inputs of nodes, (n, length)."""
        inputs = np.zeros((len(rows), self._length), dtype=np.float32)
        inputs[:, : self.columns] = (self.values[rows] - self.mean) / self.scale
        return inputs
