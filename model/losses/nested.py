"""Jointly nested low-rank approximation: each prefix of a code is fitted as the best approximation of its length."""

from __future__ import annotations

import torch
from torch import Tensor

from eigenlens.model.losses.pairs import normalise_samples


def nested_low_rank_loss(z_a: Tensor, z_b: Tensor, *, radius: float) -> Tensor:
    """The spectral contrastive loss, averaged over all prefixes of the code.

        L = 1/d Σ_l [ -2 E f_l(a)·f_l(b) + E (f_l(a)·f_l(b'))² ],   f_l = the first l coordinates of radius z / |z|

    The first expectation is over positive pairs, the second over independent ones (a_i, b_k), i ≠ k. The mean over l
    weighs the product of coordinates i and j by the share of prefixes that hold both, so no prefix is cut out in turn.

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        radius: norm of every f.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: Ryu et al., arXiv:2402.03655, joint nesting with equal weights, on the sphere.
    """
    f_a, f_b = (radius * f for f in normalise_samples(z_a, z_b))
    n, length = f_a.shape
    held = torch.arange(length, 0, -1, device=f_a.device, dtype=f_a.dtype) / length
    both = torch.minimum(held[:, None], held[None, :])
    products = f_a * f_b
    # Σ_l Σ_{i≠k} (f_l(a_i)·f_l(b_k))²: all pairs through the two second-moment matrices, less the positive ones.
    all_pairs = (both * (f_a.T @ f_a) * (f_b.T @ f_b)).sum()
    positive = ((products @ both) * products).sum()
    return (all_pairs - positive) / (n * (n - 1)) - 2 * (products @ held).mean()
