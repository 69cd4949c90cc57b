"""The spectral contrastive loss: its minimum spans the top eigenfunctions of the augmentation kernel, in no order."""

from __future__ import annotations

from torch import Tensor

from eigenlens.model.losses.pairs import normalise_samples


def spectral_contrastive_loss(z_a: Tensor, z_b: Tensor, *, radius: float) -> Tensor:
    """The best low-rank approximation of the kernel by inner products.

        L = -2/n Σ_i f(a_i)·f(b_i) + 1/(n(n-1)) Σ_{i≠k} (f(a_i)·f(b_k))²,   f = radius z / |z|

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        radius: norm of every f.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: HaoChen et al., arXiv:2106.04156, equation 6; on the sphere as in its experiments.
    """
    f_a, f_b = (radius * f for f in normalise_samples(z_a, z_b))
    n = f_a.shape[0]
    products = f_a @ f_b.T
    positive = products.diagonal()
    others = (products.square().sum() - positive.square().sum()) / (n * (n - 1))
    return others - 2 * positive.mean()
