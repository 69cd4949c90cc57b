"""What every objective asks of a positive pair of batches, and the normalisations that they share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eigenlens.model.errors import ShapeError

_MIN_NORM = 1e-6


def require_pair(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32. Raises: ShapeError, if the shapes differ, are not two-dimensional, or n < 2."""
    if z_a.shape != z_b.shape or z_a.ndim != 2 or z_a.shape[0] < 2:
        raise ShapeError(
            f"a positive pair needs two equal shapes (n >= 2, code_length), not {z_a.shape} and {z_b.shape}"
        )
    return z_a.float(), z_b.float()


def l2_batch_normalise(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each coordinate to unit second moment over both views of the batch, in float32.

    Args:
        z_a, z_b: (n, code_length), n >= 2.

    Raises: ShapeError, if the shapes differ, are not two-dimensional, or n < 2.
    """
    z_a, z_b = require_pair(z_a, z_b)
    second_moment = (z_a.square().mean(0) + z_b.square().mean(0)) / 2
    scale = torch.rsqrt(second_moment.clamp_min(_MIN_NORM**2))
    return z_a * scale, z_b * scale


def normalise_samples(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each sample to unit norm, in float32.

    Args:
        z_a, z_b: (n, code_length), n >= 2.

    Raises: ShapeError, if the shapes differ, are not two-dimensional, or n < 2.
    """
    z_a, z_b = require_pair(z_a, z_b)
    return F.normalize(z_a, dim=1, eps=_MIN_NORM), F.normalize(z_b, dim=1, eps=_MIN_NORM)


def standardise(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Centre each coordinate and scale it to unit variance, over each view of its own, in float32.

    Raises: ShapeError, if the shapes differ, are not two-dimensional, or n < 2.
    """
    z_a, z_b = require_pair(z_a, z_b)
    return _standard(z_a), _standard(z_b)


def _standard(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred * torch.rsqrt(centred.square().mean(0).clamp_min(_MIN_NORM**2))
