"""The Rayleigh-Ritz step: exact order and calibrated eigenvalues from the functions that training found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eigenlens.model.errors import ShapeError

# Directions of C below this share of its largest eigenvalue are numerically absent from psi.
_NULL = 1e-10
_TINY = torch.finfo(torch.float64).tiny
FOLDS = 8
# 97.5 % quantile of Student's t with FOLDS - 1 degrees of freedom.
_T_QUANTILE = 2.365


class PairMoments:
    """Streaming first and second moments of positive pairs, summed in float64: any number of pairs, in any batches.

    They are kept by fold, so that the spread between folds tells how sure an eigenvalue is.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._count = torch.zeros(FOLDS, dtype=torch.float64)
        self._sum = torch.zeros(FOLDS, length, dtype=torch.float64)
        self._second = torch.zeros(FOLDS, length, length, dtype=torch.float64)
        self._cross = torch.zeros(FOLDS, length, length, dtype=torch.float64)

    def update(self, psi_a: Tensor, psi_b: Tensor, *, fold: int = 0, weight: float = 1.0) -> None:
        """Add n pairs, each (n, length), to a fold; an image's pairs belong into one fold.

        Args:
            weight: what each of the pairs counts.

        Raises: ShapeError.
        """
        if psi_a.shape != psi_b.shape or psi_a.ndim != 2 or psi_a.shape[1] != self.length:
            raise ShapeError(f"expected two arrays (n, {self.length}), not {psi_a.shape} and {psi_b.shape}")
        a, b = psi_a.detach().cpu().double(), psi_b.detach().cpu().double()
        fold %= FOLDS
        self._count[fold] += a.shape[0] * weight
        self._sum[fold] += (a.sum(0) + b.sum(0)) * (weight / 2)
        # With s = a + b and d = a - b: aᵀa + bᵀb = (sᵀs + dᵀd)/2 and aᵀb + bᵀa = (sᵀs - dᵀd)/2, two products for three.
        total, difference = a + b, a - b
        even, odd = total.T @ total, difference.T @ difference
        self._second[fold] += (even + odd) * (weight / 4)
        self._cross[fold] += (even - odd) * (weight / 4)

    def through(self, span: Tensor) -> PairMoments:
        """The moments of psi @ span, (n, m).

        Args:
            span: (length, m).
        """
        span = span.double()
        found = PairMoments(span.shape[1])
        found._count, found._sum = self._count.clone(), self._sum @ span
        found._second, found._cross = span.T @ self._second @ span, span.T @ self._cross @ span
        return found

    @property
    def pairs(self) -> int:
        """How many pairs were added, by their weights."""
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
        """v^T R v and v^T C v of each direction in each fold that has pairs, about the common mean.

        Args:
            directions: (length, m).

        Returns: two arrays (folds with pairs, m), float64.
        """
        used = self._count > 0
        count = self._count[used, None]
        drift = (self._sum[used] / count) @ directions
        centre = self.mean @ directions
        about = 2 * drift * centre - centre.square()
        cross = torch.stack([((r @ directions) * directions).sum(0) for r in self._cross[used]]) / count
        second = torch.stack([((c @ directions) * directions).sum(0) for c in self._second[used]]) / count
        return cross - about, second - about


@dataclass(frozen=True)
class Spectrum:
    """Ordered eigenfunctions as a linear map of psi: function j is `directions[:, j] . (psi - mean)`.

    Attributes:
        eigenvalues: (count,), descending, in [0, 1] up to noise; where leading functions were found apart, these
            and the others are each in order.
        directions: (length, count); the functions have unit variance and are uncorrelated on the training set.
        mean: (length,), E[psi]. Centring drops the constant eigenfunction, whose eigenvalue is 1.
        margins: (count,), half the width of each eigenvalue's 95 % interval; NaN where there is one fold only.
        leading: how many functions were found apart, before the others.
    """

    eigenvalues: Tensor
    directions: Tensor
    mean: Tensor
    margins: Tensor
    leading: int = 0

    def told(self, count: int) -> list[dict[str, float | None]]:
        """The first eigenvalues, each with half the width of its 95 % interval, where there is one."""
        pairs = zip(self.eigenvalues[:count].tolist(), self.margins[:count].tolist(), strict=True)
        return [
            {"value": round(value, 6), "margin_95": None if math.isnan(margin) else round(margin, 6)}
            for value, margin in pairs
        ]

    def first(self, count: int) -> Spectrum:
        """The first functions alone."""
        return Spectrum(self.eigenvalues[:count], self.directions[:, :count], self.mean, self.margins[:count])

    def code_weights(self, diffusion_time: float, *, code_length: int | None = None) -> tuple[Tensor, Tensor]:
        """W (code_length, length) and b with code = W psi + b, code_j = eigenvalue_j^t v_j^T (psi - mean).

        Leading functions are not scaled. Eigenvalues at or below zero are noise; their coordinates are zero for t > 0.
        Coordinates beyond the functions that there are, are zero.
        """
        scale = self.eigenvalues.clamp(0, 1) ** diffusion_time
        scale[: self.leading] = 1
        found = (self.directions * scale).T[:code_length]
        weight = torch.zeros(code_length or len(found), found.shape[1], dtype=found.dtype)
        weight[: len(found)] = found
        return weight, -weight @ self.mean


def rayleigh_ritz(moments: PairMoments, *, ridge: float, one_scale: bool = False) -> Spectrum:
    """Solve R v = lambda (C + ridge diag C) v; sort by lambda, descending.

    Among linear combinations of psi these are the best eigenfunctions of the augmentation kernel (Courant-Fischer).
    Directions that C lacks get eigenvalue 0 and a zero function. The ridge follows each coordinate's own variance, so
    the scale of psi does not matter.

    The interval of an eigenvalue is that of the mean over folds of v^T R v - lambda v^T C v, its change to first order.

    Args:
        ridge: dimensionless, >= 0.
        one_scale: psi has one scale, as the features of one layer have: the ridge is the mean variance in every
            direction. It takes the functions from the kernel's own (0) towards the principal components of R (large).

    Raises: ShapeError, if there are fewer than two pairs.
    """
    if moments.pairs < 2:
        raise ShapeError(f"the spectrum needs at least 2 pairs, not {moments.pairs}")
    covariance, cross = moments.covariance, moments.cross_covariance
    length = moments.length
    variance = covariance.diagonal()
    # A unit that never fires has no variance, and what rounding leaves of it must not be blown up.
    to_unit = torch.where(variance > _NULL**2 * variance.max(), variance.clamp_min(_TINY).rsqrt(), 0.0)
    added = variance.mean() * to_unit.square() if one_scale else torch.ones_like(variance)
    correlation = covariance * torch.outer(to_unit, to_unit) + ridge * added.diag()
    variances, axes = torch.linalg.eigh(correlation)
    kept = variances > _NULL * variances[-1].clamp_min(_TINY)
    whiten = axes[:, kept] / variances[kept].sqrt() * to_unit[:, None]
    found, rotation = torch.linalg.eigh(whiten.T @ cross @ whiten)
    eigenvalues = torch.zeros(length, dtype=torch.float64)
    directions = torch.zeros(length, length, dtype=torch.float64)
    count = int(kept.sum())
    eigenvalues[:count] = found.flip(0)
    directions[:, :count] = (whiten @ rotation).flip(1)
    # Null directions (0) may belong before noise below zero: sort once more, stably.
    order = torch.sort(eigenvalues, descending=True, stable=True).indices
    eigenvalues, directions = eigenvalues[order], directions[:, order]
    by_fold, second = moments.rayleigh_by_fold(directions)
    changes = by_fold - eigenvalues * second
    folds = len(changes)
    spread = changes.std(0) if folds > 1 else torch.full_like(eigenvalues, math.nan)
    return Spectrum(eigenvalues, directions, moments.mean, _T_QUANTILE * spread / folds**0.5)


def rayleigh_ritz_within(moments: PairMoments, span: Tensor, *, ridge: float) -> Spectrum:
    """Rayleigh-Ritz of the functions psi @ span alone, as a map of psi.

    Args:
        span: (length, m), of which m eigenfunctions are found.
    """
    found = rayleigh_ritz(moments.through(span), ridge=ridge)
    return Spectrum(found.eigenvalues, span @ found.directions, moments.mean, found.margins)


def without(moments: PairMoments, span: Tensor, leading: Tensor) -> Tensor:
    """The functions psi @ span less what the functions psi @ leading tell of them by least squares: (length, m)."""
    covariance = moments.covariance
    inverse: Tensor = torch.linalg.pinv(leading.T @ covariance @ leading, hermitian=True)
    return span - leading @ (inverse @ (leading.T @ covariance @ span))


def suggest_lengths(eigenvalues: Sequence[float], *, diffusion_time: float) -> list[int]:
    """Code lengths worth building: a doubling menu from where a code begins to tell things apart to where it ends.

    Starts at the first power of two, from 4, that holds a fifth of the energy Σ lambda^2t, and doubles until what is
    left holds less than a thousandth; the full length always ends the list.
    """
    energy = torch.tensor(eigenvalues, dtype=torch.float64).clamp(0, 1) ** (2 * diffusion_time)
    share = energy.cumsum(0) / energy.sum().clamp_min(_TINY)
    lengths = []
    length = 4
    while length < len(share):
        if share[length - 1] >= 0.2:
            lengths.append(length)
        if share[length - 1] >= 0.999:
            break
        length *= 2
    return [*lengths, len(share)]


def effective_rank(z: Tensor) -> float:
    """How many directions z uses: the exponential of the entropy of its covariance's normalised eigenvalues.

    Args:
        z: (n, length).

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007.
    """
    values = torch.linalg.eigvalsh(torch.cov(z.float().T.cpu().double())).clamp_min(0)
    share = values / values.sum().clamp_min(_TINY)
    return float(torch.exp(-(share * share.clamp_min(_TINY).log()).sum()))
