"""Positive pairs: views of the same image, or of a near one; the same draw for the same step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.registry import BACKBONES
from eigenlens.model.config import load_config
from eigenlens.model.errors import TrainingError
from eigenlens.model.export.coder import code_network, estimate_spectrum, set_codes
from eigenlens.model.pairs.neighbours import pixel_neighbours
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.pairs.source import rng_for
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run
from tests.support.training import CPU, tiny_overrides

PLAIN = [f"augmentation.{key}=0" for key in ("flip", "jitter", "grayscale")] + ["augmentation.crop_area_min=1"]


def kinds(count: int = 60, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of three random patterns, and which pattern each is of."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(40, 215, (3, side, side, 3))
    labels = rng.integers(0, 3, count)
    noise = rng.integers(-20, 20, (count, side, side, 3))
    return (patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels


def test_neighbours_are_the_nearest_other_images() -> None:
    pixels, labels = kinds()
    rows = pixel_neighbours(pixels, 5, device=CPU)
    assert rows.shape == (60, 5)
    assert not (rows == np.arange(60)[:, None]).any(), "an image is not its own neighbour"
    assert (labels[rows] == labels[:, None]).all()
    flat = pixels.reshape(60, -1).astype(np.float64)
    flat -= flat.mean(0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = flat @ flat.T
    np.fill_diagonal(cosines, -1)
    assert (rows[:, 0] == cosines.argmax(1)).mean() > 0.8, "64 components keep nearly all of the nearest"


def test_without_neighbours_a_pair_is_two_views_of_one_image() -> None:
    pixels, _ = kinds()
    config = load_config(None, tiny_overrides() + PLAIN + ["augmentation.crop_ratio_max=1.0"])
    view_a, view_b = PairSampler(pixels, config, device=CPU).draw(np.arange(10), rng_for(0, "pairs", 0))
    torch.testing.assert_close(view_a, view_b)


def test_with_neighbours_a_pair_is_of_two_images_of_a_kind() -> None:
    pixels, labels = kinds()
    config = load_config(None, tiny_overrides(neighbours=3) + PLAIN + ["augmentation.crop_ratio_max=1.0"])
    sampler = PairSampler(pixels, config, device=CPU)
    view_a, view_b = sampler.draw(np.arange(60), rng_for(0, "pairs", 0))
    distances = torch.cdist(view_b.flatten(1), view_a.flatten(1))
    partners = distances.argmin(1).numpy()
    assert (partners != np.arange(60)).all()
    assert (labels[partners] == labels).all()


def test_the_same_step_draws_the_same_pair_and_another_step_another() -> None:
    pixels, _ = kinds()
    sampler = PairSampler(pixels, load_config(None, tiny_overrides()), device=CPU)
    first, again, other = (sampler.draw(np.arange(8), rng_for(7, "pairs", step))[0] for step in (3, 3, 4))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


class VectorPairs:
    """A source of pairs that are no views of pixels: noisy copies of points on a line."""

    def __init__(self, count: int) -> None:
        self._points = torch.linspace(-1, 1, count)[:, None] * torch.ones(1, 8)

    def __len__(self) -> int:
        return len(self._points)

    def draw(self, rows: np.ndarray, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = (self.inputs(rows) + 0.1 * torch.randn(len(rows), 8, generator=rng) for _ in range(2))
        return a, b

    def inputs(self, rows: np.ndarray) -> torch.Tensor:
        return self._points[rows]


class Identity(Backbone):
    feature_length = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("chunks", [1, 2])
def test_pairs_need_not_be_views_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Trained and ordered, the first function is the place on the line."""
    monkeypatch.setitem(BACKBONES, "identity", Identity)
    overrides = tiny_overrides(backbone="identity", chunks=chunks, **{"spectrum.leading": 0})
    run = Run.start(tmp_path / "run", images="points", config=load_config(None, overrides))
    pairs = VectorPairs(200)
    network = train(run, pairs, device=CPU)
    assert run.finished
    coder = code_network(network, run.config).eval()
    spectrum = estimate_spectrum(coder, pairs, run.config)
    set_codes(coder, spectrum, diffusion_time=1.0)
    rows = np.arange(200)
    with torch.inference_mode():
        first = coder(pairs.inputs(rows))[:, 0]
    assert abs(np.corrcoef(first, rows)[0, 1]) > 0.99
    assert spectrum.eigenvalues[0] > 0.9


def test_too_few_images_for_the_neighbours_say_so() -> None:
    with pytest.raises(TrainingError, match="lower `neighbours`"):
        pixel_neighbours(kinds(count=5)[0], 5, device=CPU)
