"""Moments of a graph: what the Rayleigh-Ritz step needs to know of functions of its nodes, summed block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from eigenlens.model.errors import ShapeError
from eigenlens.model.spectrum.moments import FOLDS


class GraphMoments:
    """Moments of centred functions f of nodes and of what smoothing makes of them, h = S^(m/2) f, in float64.

        C = E[f fᵀ],   R = E[h hᵀ]

    f and S^m f are the two sides of a positive pair: since S is symmetric, Σ f (S^m f)ᵀ = Σ h hᵀ.

        moments = GraphMoments(length, mean=mean)
        moments.update(functions, smoothed, fold=0)  # as often as there are blocks of nodes

    Each fold of nodes has sums of its own, so that the spread between folds tells how sure an eigenvalue is.
    """

    def __init__(self, length: int, *, mean: Tensor) -> None:
        """Start without nodes.

        Args:
            length: number of functions.
            mean: of the functions over all nodes, (length,); it is subtracted before they are smoothed.
        """
        self.length = length
        self.mean = mean.double()
        self._count = torch.zeros(FOLDS, dtype=torch.float64)
        self._second = torch.zeros(FOLDS, length, length, dtype=torch.float64)
        self._cross = torch.zeros(FOLDS, length, length, dtype=torch.float64)

    def update(self, functions: Tensor, smoothed: Tensor, *, fold: int = 0) -> None:
        """Add n nodes to a fold.

        Args:
            functions, smoothed: f and h of the nodes, centred, (n, length) each.
            fold: any number; it counts modulo FOLDS.

        Raises: ShapeError, if the shapes differ or are not (n, length).
        """
        if functions.shape != smoothed.shape or functions.ndim != 2 or functions.shape[1] != self.length:
            raise ShapeError(f"expected two arrays (n, {self.length}), not {functions.shape} and {smoothed.shape}")
        f, h = functions.double(), smoothed.double()
        fold %= FOLDS
        self._count[fold] += len(f)
        self._second[fold] += f.T @ f
        self._cross[fold] += h.T @ h

    @property
    def pairs(self) -> int:
        """Number of nodes that were added: each is a pair with what its neighbours make of it."""
        return int(self._count.sum())

    @property
    def covariance(self) -> Tensor:
        """C, (length, length), float64."""
        return self._second.sum(0) / self._count.sum()

    @property
    def cross_covariance(self) -> Tensor:
        """R, (length, length), float64."""
        return self._cross.sum(0) / self._count.sum()

    def rayleigh_by_fold(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute v^T R v and v^T C v of each direction in each fold that has nodes.

        Args:
            directions: (length, m).

        Returns: two arrays (folds with nodes, m), float64.
        """
        used = self._count > 0
        count = self._count[used, None]
        cross = torch.stack([((r @ directions) * directions).sum(0) for r in self._cross[used]]) / count
        second = torch.stack([((c @ directions) * directions).sum(0) for c in self._second[used]]) / count
        return cross, second
