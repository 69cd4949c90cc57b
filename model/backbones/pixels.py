"""The scale of the pixels that every backbone takes, and its conversion to that of a published backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Pixels enter every backbone as (x / 255 - 0.5) / 0.25, whatever the data: nothing to estimate, nothing to lose.
PIXEL_MEAN = 0.5
PIXEL_STD = 0.25
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Renormalise(nn.Module):
    """Convert pixels from the scale that every backbone takes to (x / 255 - mean) / std, as a published one expects.

    Args:
        mean, std: of red, green and blue in 0..1. They are no part of the state: parameter names stay the backbone's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        target_mean, target_std = (torch.tensor(list(v), dtype=torch.float64).view(1, 3, 1, 1) for v in (mean, std))
        self.register_buffer("scale", (PIXEL_STD / target_std).float(), persistent=False)
        self.register_buffer("shift", ((PIXEL_MEAN - target_mean) / target_std).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift
