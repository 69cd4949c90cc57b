"""Where positive pairs come from: what training and the spectrum ask of images, nodes of a graph or anything else."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Keeps the random numbers of training orders, training pairs, the spectrum and the summary apart.
_PURPOSES = {"order": 1, "pairs": 2, "spectrum": 3, "summary": 4}


class PairSource(Protocol):
    """Items that are counted by rows, and positive pairs of them.

        source: PairSource = PairSampler(pixels, config, device=device)
        a, b = source.draw(np.arange(64), rng_for(config.seed, "pairs", step))

    Whatever the items are, the network that is trained on them takes what `draw` and `inputs` return.
    """

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def draw(self, rows: NDArray[np.int64], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one positive pair for each of the items `rows`.

        Args:
            rows: (n,), from 0 to the number of items.
            rng: the only source of randomness; lives on the CPU, so that all devices draw the same pairs.

        Returns: two batches of network inputs, (n, ...) each, on the network's device.
        """
        ...

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the network's inputs for the items `rows` as they are, (n, ...), on the network's device."""
        ...


def rng_for(seed: int, purpose: str, step: int, *, rank: int = 0) -> torch.Generator:
    """Return the random numbers of one step of one purpose in one process; a resumed run draws the same again.

    Args:
        purpose: "order", "pairs", "spectrum" or "summary".
    """
    sequence = np.random.SeedSequence([seed, _PURPOSES[purpose], step, *([rank] if rank else [])])
    words = sequence.generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
