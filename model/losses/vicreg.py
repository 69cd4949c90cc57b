"""VICReg: invariance between views, variance and decorrelation within each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eigenlens.model.losses.pairs import require_pair

_EPSILON = 1e-4


def vicreg_loss(z_a: Tensor, z_b: Tensor, *, invariance: float, variance: float, covariance: float) -> Tensor:
    """Three terms, each with its weight.

        L = λ mean (z_a - z_b)² + μ [v(z_a) + v(z_b)] + ν [c(z_a) + c(z_b)]
        v(z) = 1/d Σ_j max(0, 1 - √(Var z_j + ε)) / 2,   c(z) = 1/d Σ_{i≠j} Cov(z)_ij²

    The halves are those of the authors' program; the paper leaves them out.

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        invariance, variance, covariance: λ, μ and ν.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: Bardes et al., arXiv:2105.04906, equations 1 to 6.
    """
    z_a, z_b = require_pair(z_a, z_b)
    total = invariance * F.mse_loss(z_a, z_b)
    for z in (z_a, z_b):
        n, length = z.shape
        centred = z - z.mean(0)
        cov = centred.T @ centred / (n - 1)
        spread = torch.relu(1 - (cov.diagonal() + _EPSILON).sqrt()).mean() / 2
        off = (cov.square().sum() - cov.diagonal().square().sum()) / length
        total = total + variance * spread + covariance * off
    return total
