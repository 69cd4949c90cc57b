"""Positive pairs, drawn anew at every step and the same for the same seed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eigenlens.model.config import TrainingConfig
from eigenlens.model.pairs.neighbours import pixel_neighbours
from eigenlens.model.pairs.views import augment

# Keeps the streams of training orders, training pairs, the spectrum and the summary apart.
_STREAMS = {"order": 1, "pairs": 2, "spectrum": 3, "summary": 4}


def stream(seed: int, name: str, step: int, *, rank: int = 0) -> torch.Generator:
    """The random numbers of one step of one purpose in one process; a resumed run draws the same again."""
    words = np.random.SeedSequence([seed, _STREAMS[name], step, *([rank] if rank else [])]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


class PairSampler:
    """Draws positive pairs: two views of an image or, with `neighbours`, a view of it and one of a near image."""

    def __init__(self, pixels: NDArray[np.uint8], config: TrainingConfig, *, device: torch.device) -> None:
        self._pixels, self._config, self._device = pixels, config, device
        self._neighbours: NDArray[np.int64] | None = None
        if config.neighbours:
            self._neighbours = pixel_neighbours(pixels, config.neighbours, device=device)

    def draw(self, rows: NDArray[np.int64], *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A positive pair for each of the images `rows`: two batches (n, 3, size, size), normalised, on the device."""
        partners = rows
        if self._neighbours is not None:
            choice = torch.randint(self._neighbours.shape[1], (len(rows),), generator=generator).numpy()
            partners = self._neighbours[rows, choice]
        return self._view(rows, generator), self._view(partners, generator)

    def _view(self, rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        images = torch.from_numpy(np.array(self._pixels[rows])).to(self._device, non_blocking=True)
        return augment(images, self._config.augmentation, size=self._config.image_size, generator=generator)
