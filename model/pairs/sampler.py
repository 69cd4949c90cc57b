"""Positive pairs of images: views of the same image, or of a near one."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eigenlens.model.config import TrainingConfig
from eigenlens.model.network import normalise_pixels
from eigenlens.model.pairs.neighbours import pixel_neighbours
from eigenlens.model.pairs.views import augment

# Share of a GPU's free memory that the pixels of all images may take.
_SHARE_FOR_PIXELS = 0.25


class PairSampler:
    """A PairSource over images: two views of an image or, with `neighbours`, a view of it and one of a near image.

    pairs = PairSampler(pixels, run.config, device=device)
    train(run, pairs, device=device)
    """

    def __init__(self, pixels: NDArray[np.uint8], config: TrainingConfig, *, device: torch.device) -> None:
        """Sample from `pixels`, uint8, (n, side, side, 3); views and inputs have the side `config.image_size`."""
        self._pixels, self._config, self._device = pixels, config, device
        self._on_device = _copy_to_device(pixels, device)

    def __len__(self) -> int:
        return len(self._pixels)

    def draw(self, rows: NDArray[np.int64], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a positive pair for each of the images: two batches (n, 3, size, size), normalised, on the device.

        Raises: TrainingError, if there are not more images than `neighbours`.
        """
        partners = rows
        if self._neighbours is not None:
            choice = torch.randint(self._neighbours.shape[1], (len(rows),), generator=rng).numpy()
            partners = self._neighbours[rows, choice]
        return self._view(rows, rng), self._view(partners, rng)

    def of_views(self) -> PairSampler:
        """Return pairs of the same images that are two views of one each, whatever these pairs are."""
        config = self._config.model_copy(update={"neighbours": 0})
        return PairSampler(self._pixels, config, device=self._device)

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Return whole images as the network takes them: (n, 3, size, size), normalised, on the device."""
        x = normalise_pixels(self._load(rows), size=self._config.image_size)
        return x.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _neighbours(self) -> NDArray[np.int64] | None:
        """Rows of each image's neighbours, (n, neighbours), found at the first draw; None for views alone."""
        count = self._config.neighbours
        return pixel_neighbours(self._pixels, count, device=self._device) if count else None

    def _view(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        return augment(self._load(rows), self._config.augmentation, size=self._config.image_size, generator=rng)

    def _load(self, rows: NDArray[np.int64]) -> Tensor:
        if self._on_device is not None:
            return self._on_device[torch.from_numpy(rows).to(self._device, non_blocking=True)]
        return torch.from_numpy(np.array(self._pixels[rows])).to(self._device, non_blocking=True)


def _copy_to_device(pixels: NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """Return all pixels on a GPU, so that no step waits for them; None on the CPU, or if the GPU lacks the memory."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return torch.from_numpy(np.array(pixels)).to(device) if pixels.nbytes < _SHARE_FOR_PIXELS * free else None
