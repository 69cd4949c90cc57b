"""Smoothing of a new node from what a gallery keeps of its neighbours; free of torch and of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import ShapeError


@dataclass(frozen=True)
class NodeState:
    """What a node gives to a new neighbour.

    Attributes:
        degree: number of its neighbours.
        levels: (hops, projection_length), float32: its projection, and that smoothed once, up to hops - 1 times.
    """

    degree: int
    levels: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the state as bytes: the degree, int64, and the levels, both little endian."""
        return self.degree.to_bytes(8, "little") + np.ascontiguousarray(self.levels, dtype="<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, *, hops: int) -> NodeState:
        """Read a state of so many hops. Raises: ShapeError, if the bytes are of no such state."""
        if len(data) < 8 or (len(data) - 8) % (4 * max(hops, 1)):
            raise ShapeError(f"{len(data)} bytes are no state of a node with {hops} hops")
        degree = int.from_bytes(data[:8], "little")
        return cls(degree, np.frombuffer(data, dtype="<f4", offset=8).reshape(hops, -1) if hops else _NO_LEVELS)


_NO_LEVELS = np.zeros((0, 0), dtype=np.float32)


def smooth_new_node(
    projection: NDArray[np.floating[Any]], neighbours: Sequence[NodeState], *, hops: int
) -> tuple[NDArray[np.float32], NodeState]:
    """Smooth the projection of a new node over its edges to nodes that are there.

        h^l = D^-1/2 (A + I) D^-1/2 h^(l-1),   h^0 = projection

    The new node changes its neighbours too: their degrees, and what they get from it. That is counted, exactly for two
    hops where no two of its neighbours are neighbours of each other; what it changes farther away is not.

    Args:
        projection: h^0 of the new node, (projection_length,).
        neighbours: states of its neighbours.

    Returns: h^hops of the new node, (projection_length,), from which its code follows; and its own state.
    """
    own = np.asarray(projection, dtype=np.float64)
    levels = [own]
    size = len(neighbours) + 1.0
    old = np.array([node.degree + 1.0 for node in neighbours])[:, None]
    new = old + 1
    kept = (
        [np.stack([node.levels[level] for node in neighbours]).astype(np.float64) for level in range(hops)]
        if (neighbours)
        else []
    )
    around = kept[0] if kept else np.zeros((0, len(own)))  # the neighbours' h^l, with the new node among theirs
    for level in range(1, hops + 1):
        smoothed = (own / np.sqrt(size) + (around / np.sqrt(new)).sum(0)) / np.sqrt(size)
        if level < hops and kept:
            # Of the neighbours' own sums, those terms change that hold their degree, and the new node's joins them.
            sums = kept[level] * np.sqrt(old) - kept[level - 1] / np.sqrt(old)
            around = (sums + around / np.sqrt(new) + own / np.sqrt(size)) / np.sqrt(new)
        own = smoothed
        levels.append(own)
    state = NodeState(len(neighbours), np.stack(levels[:hops]).astype(np.float32) if hops else _NO_LEVELS)
    return own.astype(np.float32), state
