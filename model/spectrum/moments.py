"""Moments of positive pairs: what the Rayleigh-Ritz step needs to know of them, summed batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens.model.errors import ShapeError

FOLDS = 8
_ROWS = 4096


class PairMoments:
    """Streaming first and second moments of positive pairs, summed in float64: any number of pairs, in any batches.

    A batch's products are computed where it is; the sums are kept on the CPU.

        moments = PairMoments(length)
        moments.update(psi_a, psi_b, fold=0)  # as often as there are batches

    Each fold has sums of its own, so that the spread between folds tells how sure an eigenvalue is.
    """

    def __init__(self, length: int) -> None:
        """Start with no pairs of psi, each (length,)."""
        self.length = length
        self._count = torch.zeros(FOLDS, dtype=torch.float64)
        self._sum = torch.zeros(FOLDS, length, dtype=torch.float64)
        self._second = torch.zeros(FOLDS, length, length, dtype=torch.float64)
        self._cross = torch.zeros(FOLDS, length, length, dtype=torch.float64)

    def update(self, psi_a: Tensor, psi_b: Tensor, *, fold: int = 0, weight: float = 1.0) -> None:
        """Add n pairs, each (n, length), to a fold; an image's pairs belong into one fold.

        Args:
            fold: any number; it counts modulo FOLDS.
            weight: what each of the pairs counts.

        Raises: ShapeError, if the shapes differ or are not (n, length).
        """
        if psi_a.shape != psi_b.shape or psi_a.ndim != 2 or psi_a.shape[1] != self.length:
            raise ShapeError(f"expected two arrays (n, {self.length}), not {psi_a.shape} and {psi_b.shape}")
        a, b = psi_a.detach().double(), psi_b.detach().double()
        fold %= FOLDS
        self._count[fold] += a.shape[0] * weight
        self._sum[fold] += ((a.sum(0) + b.sum(0)) * (weight / 2)).cpu()
        # With s = a + b and d = a - b: aᵀa + bᵀb = (sᵀs + dᵀd)/2 and aᵀb + bᵀa = (sᵀs - dᵀd)/2, two products for three.
        total, difference = a + b, a - b
        even, odd = total.T @ total, difference.T @ difference
        self._second[fold] += ((even + odd) * (weight / 4)).cpu()
        self._cross[fold] += ((even - odd) * (weight / 4)).cpu()

    def update_neighbours(
        self, psi: Tensor, near: NDArray[np.int64], folds: NDArray[np.int64], *, weight: float
    ) -> None:
        """Add the pairs of each of n items and its neighbours, in the fold of the item.

        The same as `update` for each of the neighbours in turn, at the cost of a few, however many there are: with the
        sum s_i of item i's neighbours, sum_ij psi_i psi_j^T = sum_i psi_i s_i^T.

        Args:
            psi: of the items, (n, length).
            near: rows of each item's neighbours, (n, k).
            folds: any number for each item, (n,); it counts modulo FOLDS.
            weight: what each of the n k pairs counts.

        Raises: ShapeError, if the shapes do not fit.
        """
        if psi.ndim != 2 or psi.shape[1] != self.length or not len(near) == len(folds) == len(psi):
            raise ShapeError(f"expected (n, {self.length}) and n rows, not {psi.shape}, {near.shape} and {folds.shape}")
        k = near.shape[1]
        for fold in tqdm(range(FOLDS), desc="neighbours' pairs", unit="fold", delay=2):
            items = np.flatnonzero(folds % FOLDS == fold)
            # How often a row is one of a pair of this fold, as an item or as a neighbour.
            times = k * np.bincount(items, minlength=len(psi)) + np.bincount(near[items].ravel(), minlength=len(psi))
            self._count[fold] += len(items) * k * weight
            for start in range(0, len(psi), _ROWS):
                rows = psi[start : start + _ROWS].detach().double()
                often = torch.from_numpy(times[start : start + _ROWS]).to(rows)[:, None]
                self._sum[fold] += ((often * rows).sum(0) * (weight / 2)).cpu()
                self._second[fold] += ((often * rows).T @ rows * (weight / 2)).cpu()
            for start in range(0, len(items), _ROWS):
                part = items[start : start + _ROWS]
                sums = F.embedding_bag(torch.from_numpy(near[part]).to(psi.device), psi.detach(), mode="sum")
                cross = psi[torch.from_numpy(part)].detach().double().T @ sums.double()
                self._cross[fold] += ((cross + cross.T) * (weight / 2)).cpu()

    def transform(self, span: Tensor) -> PairMoments:
        """Return the moments of psi @ span, (n, m).

        Args:
            span: (length, m).
        """
        span = span.double()
        moments = PairMoments(span.shape[1])
        moments._count, moments._sum = self._count.clone(), self._sum @ span
        moments._second, moments._cross = span.T @ self._second @ span, span.T @ self._cross @ span
        return moments

    @property
    def pairs(self) -> int:
        """Number of pairs that were added, by their weights, rounded."""
        return round(float(self._count.sum()))

    @property
    def mean(self) -> Tensor:
        """E[psi], (length,), float64."""
        return self._sum.sum(0) / self._count.sum()

    @property
    def covariance(self) -> Tensor:
        """C = E[psi psi^T] of centred psi, (length, length), float64."""
        return self._second.sum(0) / self._count.sum() - torch.outer(self.mean, self.mean)

    @property
    def cross_covariance(self) -> Tensor:
        """R = E[psi(a) psi(b)^T] of centred psi, symmetrised, (length, length), float64."""
        return self._cross.sum(0) / self._count.sum() - torch.outer(self.mean, self.mean)

    def rayleigh_by_fold(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute v^T R v and v^T C v of each direction in each fold that has pairs, about the common mean.

        Args:
            directions: (length, m).

        Returns: two arrays (folds with pairs, m), float64.
        """
        # About the mean m of all folds: E[(x - m)(y - m)] = E[xy] - 2 m E[x] + m², where E[x] is the fold's own mean.
        used = self._count > 0
        count = self._count[used, None]
        fold_mean = (self._sum[used] / count) @ directions
        mean = self.mean @ directions
        correction = 2 * fold_mean * mean - mean.square()
        cross = torch.stack([((r @ directions) * directions).sum(0) for r in self._cross[used]]) / count
        second = torch.stack([((c @ directions) * directions).sum(0) for c in self._second[used]]) / count
        return cross - correction, second - correction
