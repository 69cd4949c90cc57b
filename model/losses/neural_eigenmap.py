"""The Neural Eigenmap objective: its minimum is the ordered top eigenfunctions of the augmentation kernel."""

from __future__ import annotations

from torch import Tensor

from eigenlens.model.losses.pairs import l2_batch_normalise, normalise_samples


def neural_eigenmap_loss(
    z_a: Tensor, z_b: Tensor, *, alpha: float, ordered: bool = True, normalise: str = "coordinate"
) -> Tensor:
    """Objective whose minimum is the ordered top eigenfunctions.

        L = -Σ_j R_jj + α Σ_{i<j} R̂_ij²,   R = ψ_aᵀ ψ_b / n

    ψ is z with each coordinate scaled to unit second moment over both views (L2 batch normalisation). R̂ stops the
    gradient of ψ_i, so j yields to every i < j and never the reverse: that asymmetry is what orders the code. A pair
    is unordered, so the penalty is the mean of its two readings, (a, b) and (b, a).

    Without the order nothing is stopped and i yields to j as well: the minimum is any rotation of the same functions.

    The paper scales ψ to second moment t/n instead; its penalty weight α_p (0.01, 0.005, 0.0025 for 2048, 4096, 8192
    coordinates, t = 10) is α = t α_p here.

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        alpha: weight of the penalty, dimensionless.
        ordered: the paper's objective for ordered codes; False is its variant for linear probes.
        normalise: "coordinate", or "sample": every row of ψ has the norm √code_length instead.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: Deng et al., arXiv:2210.12637, the ordered objective, its L2 batch normalisation and its unordered variant.
    """
    if normalise == "sample":
        psi_a, psi_b = (psi * psi.shape[1] ** 0.5 for psi in normalise_samples(z_a, z_b))
    else:
        psi_a, psi_b = l2_batch_normalise(z_a, z_b)
    n = psi_a.shape[0]
    alignment = (psi_a * psi_b).sum() / n
    left_a, left_b = (psi_a.detach(), psi_b.detach()) if ordered else (psi_a, psi_b)
    r_ab = left_a.T @ psi_b / n
    r_ba = left_b.T @ psi_a / n
    penalty = (r_ab.triu(1).square().sum() + r_ba.triu(1).square().sum()) / 2
    loss: Tensor = alpha * penalty - alignment
    return loss
