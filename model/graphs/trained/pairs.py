"""Positive pairs of nodes: the two ends of a short walk over the edges, each seen through noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eigenlens.model.config import NodePairsConfig
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.trained.inputs import NodeInputs


class NodePairs:
    """A PairSource over the nodes of a graph: a node and where a walk from it ends, with noise on the inputs of both.

        pairs = NodePairs(graph, inputs, run.config.nodes, device=device)
        train(run, pairs, device=device)

    Noise is to a network what a ridge is to a linear fit: without it, the leading functions tell tiny components apart.
    """

    def __init__(self, graph: Graph, inputs: NodeInputs, config: NodePairsConfig, *, device: torch.device) -> None:
        """Draw from the nodes of `graph`, whose inputs are `inputs`."""
        self._graph, self._inputs, self._device = graph, inputs, device
        self._steps, self._noise = config.steps, config.noise**0.5

    def __len__(self) -> int:
        return self._graph.count

    def draw(self, rows: NDArray[np.int64], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a positive pair for each of the nodes: two batches (n, INPUT_LENGTH) on the device."""
        return self._noisy(rows, rng), self._noisy(self._walk(rows, rng), rng)

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the inputs of nodes without noise, (n, INPUT_LENGTH), on the device."""
        return torch.from_numpy(self._inputs.rows(rows)).to(self._device)

    def _walk(self, rows: NDArray[np.int64], rng: torch.Generator) -> NDArray[np.int64]:
        """Return where a walk of `steps` from each node ends. A step stays, or takes one of the edges, all alike."""
        starts, neighbours = self._graph.indptr, self._graph.indices
        for _ in range(self._steps):
            degrees = starts[rows + 1] - starts[rows]
            choices = (torch.rand(len(rows), generator=rng).double().numpy() * (degrees + 1)).astype(np.int64)
            moving = choices < degrees
            ends = rows.copy()
            ends[moving] = neighbours[starts[rows[moving]] + choices[moving]]
            rows = ends
        return rows

    def _noisy(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        inputs = torch.from_numpy(self._inputs.rows(rows))
        # The columns that the graph has no features for stay zero.
        columns = inputs[:, : self._inputs.columns]
        columns += self._noise * torch.randn(columns.shape, generator=rng)
        return inputs.to(self._device)
