"""How long a code needs to be: lengths that are worth building, and how many directions outputs use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny


def suggest_lengths(eigenvalues: Sequence[float], *, diffusion_time: float) -> list[int]:
    """Return the code lengths worth building: doubling, from where a code begins to tell things apart to its end.

    Starts at the first power of two, from 4, that holds a fifth of the energy Σ lambda^2t, and doubles until what is
    left holds less than a thousandth; the full length always ends the list.

    Args:
        eigenvalues: lambda, (code_length,).
        diffusion_time: t.
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
    """Compute how many directions z uses: the exponential of the entropy of its covariance's normalised eigenvalues.

        effective rank = exp(-Σ p_j log p_j),   p = eigenvalues of Cov(z) / their sum

    Args:
        z: (n, length).

    Returns: from 1 to length.

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007.
    """
    values = torch.linalg.eigvalsh(torch.cov(z.float().T.cpu().double())).clamp_min(0)
    share = values / values.sum().clamp_min(_TINY)
    return float(torch.exp(-(share * share.clamp_min(_TINY).log()).sum()))
