"""Nearest images: positives that say "the same kind" where augmented views say "the same thing"."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens.model.errors import TrainingError

# Fewer images than this for each neighbour, and neighbours would be of no particular kind.
IMAGES_PER_NEIGHBOUR = 50
_SIDE = 16
_COMPONENTS = 64
_CHUNK = 1024


def nearest_neighbours(vectors: Tensor, count: int) -> NDArray[np.int64]:
    """Find the `count` nearest other rows of each by cosine, exactly, block by block.

    Args:
        vectors: (n, length), on any device.

    Returns: rows, (n, count), nearest first.

    Raises: TrainingError, if there are not more than `count` images.
    """
    n = len(vectors)
    if n <= count:
        raise TrainingError(f"{count} neighbours need more than {count} images, not {n}; lower `neighbours`")
    unit = F.normalize(vectors, dim=1)
    indices = []
    for start in tqdm(range(0, n, _CHUNK), desc="neighbours", unit="batch", delay=2):
        chunk = unit[start : start + _CHUNK]
        cosines = chunk @ unit.T
        cosines[torch.arange(len(chunk)), start + torch.arange(len(chunk))] = -torch.inf
        indices.append(cosines.topk(count, dim=1).indices.cpu())
    rows: NDArray[np.int64] = torch.cat(indices).numpy()
    return rows


def pixel_neighbours(pixels: NDArray[np.uint8], count: int, *, device: torch.device) -> NDArray[np.int64]:
    """Find the `count` nearest other images of each by the cosine of their principal components, exactly.

    Images are shrunk to at most 16 x 16 and described by their first 64 principal components, centred. That suits
    aligned pictures such as product photographs on a plain ground; it is of little use for scenes.

    Args:
        pixels: (n, side, side, 3), uint8.

    Returns: rows, (n, count), nearest first.

    Raises: TrainingError, if there are not more than `count` images.
    """
    return nearest_neighbours(_principal_components(pixels).to(device), count)


def _principal_components(pixels: NDArray[np.uint8]) -> Tensor:
    """Return the first principal components of shrunk images, (n, at most 64), centred."""
    shrunk = torch.cat([_shrink(pixels[i : i + _CHUNK]) for i in range(0, len(pixels), _CHUNK)])
    shrunk -= shrunk.mean(0)
    # The last axes of the scatter matrix have the largest variances: eigh sorts ascending.
    _, axes = torch.linalg.eigh((shrunk.T @ shrunk).double())
    described: Tensor = shrunk @ axes[:, -_COMPONENTS:].float()
    return described


def _shrink(pixels: NDArray[np.uint8]) -> Tensor:
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    side = min(_SIDE, images.shape[2])
    return F.interpolate(images, size=(side, side), mode="area").flatten(1)
