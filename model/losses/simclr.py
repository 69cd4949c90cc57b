"""SimCLR: each view has to pick its partner among all other views of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eigenlens.model.losses.pairs import normalise_samples


def simclr_loss(z_a: Tensor, z_b: Tensor, *, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross-entropy over 2n views (NT-Xent).

        L = mean over views i, with partner p(i), of -log( exp(c_ip / τ) / Σ_{k≠i} exp(c_ik / τ) ),   c = cosine

    Args:
        z_a, z_b: projector outputs for a positive pair, (n, code_length), n >= 2.
        temperature: τ, in units of cosine.

    Returns: a scalar to minimise, in float32.

    Raises: ShapeError, if the shapes differ or n < 2.

    Source: Chen et al., arXiv:2002.05709, equation 1.
    """
    views = torch.cat(normalise_samples(z_a, z_b))
    n = z_a.shape[0]
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(logits, partners)
