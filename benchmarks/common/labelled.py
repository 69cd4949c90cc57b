"""Images with labels, and their codes through the encoder that is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens.model.errors import ConfigError
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.runtime.encoder import Encoder

_BATCH = 500


@dataclass(frozen=True)
class LabelledImages:
    """Pixels (n, side, side, 3), uint8, with labels (n,).

    images = load_labelled("cifar10/train.tar.gz", side=32, directory=Path("work/train"))
    first_thousand = images.part(np.arange(1000))
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: NDArray[np.int64]) -> LabelledImages:
        """Return some of the images, in the order of the whole."""
        rows = np.sort(rows)
        return LabelledImages(self.pixels[rows], self.labels[rows])


def load_labelled(source: str, *, side: int, directory: Path) -> LabelledImages:
    """Load all images of a source whose folders are classes, as squares cached in `directory`. Raises: SourceError."""
    opened = open_source(source)
    cache = cache_pixels(opened, side=side, directory=directory)
    skipped = {id for id, _ in cache.skipped}
    folders = [image.id.rpartition("/")[0] for image in opened if image.id not in skipped]
    _, labels = np.unique(folders, return_inverse=True)
    return LabelledImages(cache.pixels, labels.astype(np.int64))


def sample_labelled(sources: Sequence[tuple[str, int]], *, side: int) -> list[LabelledImages]:
    """Load at most so many images of each source, spread evenly over it; equal names have equal labels in all.

    Raises: SourceError; ConfigError, if a source has no image.
    """
    samples = [_sample(source, side=side, count=count) for source, count in sources]
    numbers = {name: number for number, name in enumerate(sorted({name for _, names in samples for name in names}))}
    return [
        LabelledImages(pixels, np.array([numbers[name] for name in names], dtype=np.int64)) for pixels, names in samples
    ]


def _sample(name: str, *, side: int, count: int) -> tuple[NDArray[np.uint8], list[str]]:
    source = open_source(name)
    step = max(1, len(source) // count)
    pixels: list[NDArray[np.uint8]] = []
    labels: list[str] = []
    for number, image in enumerate(source):
        loaded = image.load(side) if number % step == 0 and len(pixels) < count else None
        if isinstance(loaded, np.ndarray):
            pixels.append(loaded)
            labels.append(str(image.metadata.get("label", "")))
    if not pixels:
        raise ConfigError(f"{name} has no images")
    return np.stack(pixels), labels


def encode_all(encoder: Encoder, pixels: NDArray[np.uint8], *, name: str) -> NDArray[np.float32]:
    """Encode all images through the encoder that is served, (n, code_length), with a progress bar."""
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate(
        [encoder.encode(pixels[i : i + _BATCH]) for i in tqdm(starts, desc=f"encode {name}", unit="batch")]
    )
