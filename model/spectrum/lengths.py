"""How long a code needs to be: lengths that are worth building, and how many coordinates or directions count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny
_MAX_TIME, _HALVINGS = 8.0, 40


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


def effective_dimension(eigenvalues: Sequence[float], *, diffusion_time: float) -> float:
    """Compute over how many coordinates the variance of codes spreads, their participation ratio.

        effective dimension = (Σ lambda^2t)² / Σ lambda^4t

    Args:
        eigenvalues: lambda, (code_length,).
        diffusion_time: t.

    Returns: from 1 to code_length; 0, if no eigenvalue is positive.
    """
    energy = torch.tensor(eigenvalues, dtype=torch.float64).clamp(0, 1) ** (2 * diffusion_time)
    return float(energy.sum() ** 2 / energy.square().sum().clamp_min(_TINY))


def time_of_dimension(eigenvalues: Sequence[float], *, dimension: float, least: float) -> float:
    """Return the diffusion time, at least `least`, from which on a code's effective dimension is at most `dimension`.

    The longer the time, the fewer coordinates count. At most 8, where eigenvalues are so alike that none is enough.
    """
    if effective_dimension(eigenvalues, diffusion_time=least) <= dimension:
        return least
    shorter, longer = least, max(least, _MAX_TIME)
    for _ in range(_HALVINGS):
        middle = (shorter + longer) / 2
        if effective_dimension(eigenvalues, diffusion_time=middle) > dimension:
            shorter = middle
        else:
            longer = middle
    return longer


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
