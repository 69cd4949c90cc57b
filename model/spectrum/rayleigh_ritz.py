"""The Rayleigh-Ritz step: exact order and calibrated eigenvalues from the functions that training found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eigenlens.model.errors import ShapeError
from eigenlens.model.spectrum.moments import PairMoments

# Directions of C below this share of its largest eigenvalue are numerically absent from psi.
_NULL = 1e-10
_TINY = torch.finfo(torch.float64).tiny
# 97.5 % quantile of Student's t with FOLDS - 1 degrees of freedom.
_T_QUANTILE = 2.365


class Moments(Protocol):
    """C and R of functions, and their Rayleigh quotients by fold: of pairs of images or of the nodes of a graph."""

    length: int

    @property
    def pairs(self) -> int: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...

    @property
    def cross_covariance(self) -> Tensor: ...

    def rayleigh_by_fold(self, directions: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Spectrum:
    """Ordered eigenfunctions as a linear map of psi: function j is `directions[:, j] . (psi - mean)`.

        spectrum = rayleigh_ritz(moments, ridge=0.1)
        weight, offset = spectrum.code_weights(diffusion_time=1.0)  # code = weight @ psi + offset

    Attributes:
        eigenvalues: (count,), descending, in [0, 1] up to noise; where leading functions were found apart, these
            and the others are each in order.
        directions: (length, count); the functions are uncorrelated on the training set and have unit variance, both
            with the ridge counted in: a large one leaves functions that varied little with less.
        mean: (length,), E[psi]. Centring drops the constant eigenfunction, whose eigenvalue is 1.
        margins: (count,), half the width of each eigenvalue's 95 % interval; NaN where there is one fold only.
        leading: how many functions were found apart, before the others.
    """

    eigenvalues: Tensor
    directions: Tensor
    mean: Tensor
    margins: Tensor
    leading: int = 0

    def to_records(self, count: int) -> list[dict[str, float | None]]:
        """Return the first eigenvalues, each with half the width of its 95 % interval, where there is one."""
        pairs = zip(self.eigenvalues[:count].tolist(), self.margins[:count].tolist(), strict=True)
        return [
            {"value": round(value, 6), "margin_95": None if math.isnan(margin) else round(margin, 6)}
            for value, margin in pairs
        ]

    def first(self, count: int) -> Spectrum:
        """Return the first `count` functions alone."""
        return Spectrum(self.eigenvalues[:count], self.directions[:, :count], self.mean, self.margins[:count])

    def code_weights(self, diffusion_time: float, *, code_length: int | None = None) -> tuple[Tensor, Tensor]:
        """Compute W and b of the linear map from psi to codes.

            code = W psi + b,   code_j = eigenvalue_j^t v_j^T (psi - mean)

        Leading functions are not scaled. Eigenvalues at or below zero are noise; their coordinates are zero for t > 0.
        Coordinates beyond the functions that there are, are zero.

        Args:
            diffusion_time: t, dimensionless, >= 0.
            code_length: coordinates of the code; as many as there are functions when None.

        Returns: W, (code_length, length), and b, (code_length,), float64.
        """
        scale = self.eigenvalues.clamp(0, 1) ** diffusion_time
        scale[: self.leading] = 1
        rows = (self.directions * scale).T[:code_length]
        weight = torch.zeros(code_length or len(rows), rows.shape[1], dtype=rows.dtype)
        weight[: len(rows)] = rows
        return weight, -weight @ self.mean


def rayleigh_ritz(moments: Moments, *, ridge: float, one_scale: bool = False) -> Spectrum:
    """Solve R v = lambda (C + ridge diag C) v; sort by lambda, descending.

    Among linear combinations of psi these are the best eigenfunctions of the augmentation kernel (Courant-Fischer).
    Directions that C lacks get eigenvalue 0 and a zero function. The ridge follows each coordinate's own variance, so
    the scale of psi does not matter.

    The interval of an eigenvalue is that of the mean over folds of v^T R v - lambda v^T C v, its change to first order.

    Args:
        moments: C and R of psi, (length, length) each.
        ridge: dimensionless, >= 0.
        one_scale: psi has one scale, as the features of one layer have: the ridge is the mean variance in every
            direction. It takes the functions from the kernel's own (0) towards the principal components of R (large).

    Raises: ShapeError, if there are fewer than two pairs.

    Source: Golub and Van Loan, Matrix Computations, section 8.7, for the reduction to a symmetric problem.
    """
    if moments.pairs < 2:
        raise ShapeError(f"the spectrum needs at least 2 pairs, not {moments.pairs}")
    covariance, cross = moments.covariance, moments.cross_covariance
    length = moments.length

    # Scale every coordinate to unit variance, so that C is a correlation matrix and the ridge its unit. A unit that
    # never fires has no variance, and what rounding leaves of it must not be blown up.
    variance = covariance.diagonal()
    to_unit = torch.where(variance > _NULL**2 * variance.max(), variance.clamp_min(_TINY).rsqrt(), 0.0)
    ridge_diagonal = variance.mean() * to_unit.square() if one_scale else torch.ones_like(variance)
    correlation = covariance * torch.outer(to_unit, to_unit) + ridge * ridge_diagonal.diag()

    # Whiten: with C = A diag(s) Aᵀ, the columns of A s^(-1/2) make the regularised C the identity. Null directions go.
    variances, axes = torch.linalg.eigh(correlation)
    present = variances > _NULL * variances[-1].clamp_min(_TINY)
    whiten = axes[:, present] / variances[present].sqrt() * to_unit[:, None]

    # In whitened coordinates the generalised problem is a symmetric one. eigh sorts ascending: turn it round.
    whitened_eigenvalues, rotation = torch.linalg.eigh(whiten.T @ cross @ whiten)
    eigenvalues = torch.zeros(length, dtype=torch.float64)
    directions = torch.zeros(length, length, dtype=torch.float64)
    count = int(present.sum())
    eigenvalues[:count] = whitened_eigenvalues.flip(0)
    directions[:, :count] = (whiten @ rotation).flip(1)

    # Null directions (0) may belong before noise below zero: sort once more, stably.
    order = torch.sort(eigenvalues, descending=True, stable=True).indices
    eigenvalues, directions = eigenvalues[order], directions[:, order]

    # The interval of the mean over folds, by Student's t.
    cross_by_fold, second_by_fold = moments.rayleigh_by_fold(directions)
    changes = cross_by_fold - eigenvalues * second_by_fold
    folds = len(changes)
    spread = changes.std(0) if folds > 1 else torch.full_like(eigenvalues, math.nan)
    return Spectrum(eigenvalues, directions, moments.mean, _T_QUANTILE * spread / folds**0.5)


def rayleigh_ritz_within(moments: PairMoments, span: Tensor, *, ridge: float) -> Spectrum:
    """Solve Rayleigh-Ritz for the functions psi @ span alone; the result is a map of psi.

    Args:
        moments: of psi, whose length is `length`.
        span: (length, m).
        ridge: as for `rayleigh_ritz`.

    Returns: m eigenfunctions; their directions are (length, m).
    """
    spectrum = rayleigh_ritz(moments.transform(span), ridge=ridge)
    return Spectrum(spectrum.eigenvalues, span @ spectrum.directions, moments.mean, spectrum.margins)


def project_out(moments: PairMoments, span: Tensor, leading: Tensor) -> Tensor:
    """Return the residual of the functions psi @ span after least-squares regression on the functions psi @ leading.

        residual = S - L (Lᵀ C L)⁺ Lᵀ C S,   C = E[psi psi^T] of centred psi

    The functions psi @ residual are uncorrelated with the functions psi @ leading.

    Args:
        span: S, (length, m).
        leading: L, (length, l).

    Returns: (length, m), float64.
    """
    covariance = moments.covariance
    inverse: Tensor = torch.linalg.pinv(leading.T @ covariance @ leading, hermitian=True)
    return span - leading @ (inverse @ (leading.T @ covariance @ span))
