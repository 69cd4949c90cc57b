"""Small folders of images with structure, and tiny training configurations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.registry import BACKBONES
from eigenlens.model.config import load_config
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run

CPU = torch.device("cpu")

TINY = {
    "image_size": 16,
    "backbone": "tiny-conv",
    "code_length": 8,
    "hidden_length": 32,
    "hidden_layers": 1,
    "batch_size": 16,
    "steps": 24,
    "warmup_steps": 2,
    "checkpoint_every_s": 1000,
}


class FewConv(Backbone):
    """Two convolutions: exported in half the time of tiny-conv, and as wide."""

    feature_length = 128

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 128, 3, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).mean((2, 3))
        return features


@contextmanager
def few_conv_registered() -> Iterator[str]:
    """While it lasts, there is a backbone of the name that it yields."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "few-conv", FewConv)
        yield "few-conv"


CHECKPOINT_AFTER_EVERY_STEP = {"checkpoint_every_s": 0.001}
"""For runs that are interrupted: most are not, and writing checkpoints is half of a tiny step."""


def write_images(folder: Path, *, count: int = 48, side: int = 20) -> Path:
    """Four kinds of coloured gradients in class folders: enough structure for a spectrum."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, side)
    for i in range(count):
        kind = i % 4
        pattern = np.outer(ramp, np.ones(side)) if kind < 2 else np.outer(np.ones(side), ramp)
        colour = rng.uniform(100, 250, 3) if kind % 2 else rng.uniform(20, 120, 3)
        pixels = (pattern[..., None] * colour + rng.normal(0, 8, (side, side, 3))).clip(0, 255)
        path = folder / f"kind-{kind}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def tiny_overrides(**changes: object) -> list[str]:
    """`--set` values of the tiny configuration."""
    found = []
    for key, value in (TINY | changes).items():
        inner = {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
        found += [f"{name}={v}" for name, v in inner.items()]
    return found


def finished_run(path: Path, images: Path, **changes: object) -> Run:
    """A run of the tiny configuration over `images`, trained to its end."""
    run = Run.start(path, images=str(images), config=load_config(None, tiny_overrides(**changes)))
    cache = cache_pixels(open_source(run.images), side=run.config.cached_side, directory=run.cache)
    train(run, PairSampler(cache.pixels, run.config, device=CPU), device=CPU)
    return run
