"""Views: each step does what it says, image by image, and every image draws its own parameters."""

from __future__ import annotations

import colorsys

import numpy as np
import torch

from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.pairs.views import augment

NOTHING = {
    "crop_area_min": 1.0, "crop_ratio_max": 1.0, "flip": 0.0, "jitter": 1.0, "brightness": 0.0, "contrast": 0.0,
    "saturation": 0.0, "hue": 0.0, "grayscale": 0.0, "noise": 0.0,
}  # fmt: skip


def views(pixels: torch.Tensor, seed: int = 0, size: int | None = None, **changes: float) -> torch.Tensor:
    """Views as RGB in 0..1, (n, 3, size, size)."""
    config = AugmentationConfig.model_validate(NOTHING | changes)
    generator = torch.Generator().manual_seed(seed)
    normalised = augment(pixels, config, size=size or pixels.shape[1], generator=generator)
    return normalised * PIXEL_STD + PIXEL_MEAN


def images(n: int = 8, side: int = 12, low: int = 60, high: int = 190) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(low, high, (n, side, side, 3), dtype=np.uint8))


def as_rgb(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def test_without_any_step_a_view_is_the_image() -> None:
    pixels = images()
    torch.testing.assert_close(views(pixels), as_rgb(pixels), atol=1e-5, rtol=0)


def test_a_flip_mirrors_and_happens_to_its_share_of_images() -> None:
    pixels = images(n=400, side=8)
    torch.testing.assert_close(views(pixels, flip=1.0), as_rgb(pixels).flip(3), atol=1e-5, rtol=0)
    flipped = (views(pixels, flip=0.25) - as_rgb(pixels)).abs().amax((1, 2, 3)) > 0.01
    assert 0.15 < flipped.float().mean().item() < 0.35


def test_crops_lie_within_the_image_and_keep_their_share_of_its_area() -> None:
    """On a ramp, a crop's corner values tell where it was taken: area and place can be read off."""
    side, n = 64, 300
    ramp = torch.linspace(0, 255, side).round().to(torch.uint8)
    pixels = torch.zeros(n, side, side, 3, dtype=torch.uint8)
    pixels[..., 0] = ramp[None, None, :]
    pixels[..., 1] = ramp[None, :, None]
    out = views(pixels, size=32, crop_area_min=0.2, crop_area_max=0.5, crop_ratio_max=4 / 3)
    width = (out[:, 0, 16, -1] - out[:, 0, 16, 0]) * 32 / 31
    height = (out[:, 1, -1, 16] - out[:, 1, 0, 16]) * 32 / 31
    area, ratio = width * height, width / height
    assert 0.18 < area.min() < 0.25
    assert 0.45 < area.max() < 0.53
    assert 0.7 < ratio.min() < 0.8
    assert 1.27 < ratio.max() < 1.4
    assert out[:, 0].std(0).mean() > 0.05, "every image draws its own place"


def test_brightness_contrast_and_grayscale_match_their_definitions() -> None:
    pixels = images(n=1)
    rgb = as_rgb(pixels)[0]
    luma = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    gray = views(pixels, grayscale=1.0)[0]
    torch.testing.assert_close(gray, luma.expand(3, -1, -1), atol=2e-3, rtol=0)

    factor = (views(pixels, brightness=0.3)[0] / rgb).mean().item()
    torch.testing.assert_close(views(pixels, brightness=0.3)[0], rgb * factor, atol=1e-3, rtol=0)
    assert 0.7 <= factor <= 1.3
    assert factor != 1

    contrasted = views(pixels, contrast=0.3)[0]
    slope = ((contrasted - luma.mean()) / (rgb - luma.mean())).median().item()
    torch.testing.assert_close(contrasted, (rgb - luma.mean()) * slope + luma.mean(), atol=2e-3, rtol=0)
    assert slope != 1


def test_hue_turns_colours_and_keeps_luma() -> None:
    pixels = torch.zeros(50, 4, 4, 3, dtype=torch.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 150, 100, 100
    turned = views(pixels, hue=0.1)[:, :, 0, 0]
    luma = turned @ torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(luma, luma[:1].expand(50), atol=2e-3, rtol=0)
    hues = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in turned.tolist()])
    shift = (hues + 0.5) % 1 - 0.5
    assert np.abs(shift).max() < 0.16
    assert shift.std() > 0.03


def test_jitter_leaves_its_share_of_images_alone() -> None:
    pixels = images(n=400, side=4)
    changed = (views(pixels, jitter=0.3, brightness=0.5) - as_rgb(pixels)).abs().amax((1, 2, 3)) > 0.01
    assert 0.2 < changed.float().mean().item() < 0.4


def test_noise_has_the_given_strength() -> None:
    pixels = torch.full((20, 16, 16, 3), 128, dtype=torch.uint8)
    assert abs(views(pixels, noise=0.05).std().item() - 0.05) < 0.003


def test_the_same_seed_gives_the_same_views_and_another_seed_others() -> None:
    pixels = images()
    config = AugmentationConfig()
    first, again, other = (
        augment(pixels, config, size=8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)
