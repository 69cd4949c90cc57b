"""Barlow Twins: the cross-correlation of two views is drawn to the identity."""

from __future__ import annotations

from torch import Tensor

from eigenlens.model.losses.pairs import standardise


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, *, redundancy: float) -> Tensor:
    """Every coordinate agrees between the views and with no other coordinate.

        L = Σ_j (1 - C_jj)² + redundancy Σ_{i≠j} C_ij²,   C = Z_aᵀ Z_b / n, Z standardised over the batch

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        redundancy: weight of the off-diagonal terms, dimensionless.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: Zbontar et al., arXiv:2103.03230, equations 1 and 2.
    """
    z_a, z_b = standardise(z_a, z_b)
    correlation = z_a.T @ z_b / z_a.shape[0]
    agreement = correlation.diagonal()
    off = correlation.square().sum() - agreement.square().sum()
    return (1 - agreement).square().sum() + redundancy * off
