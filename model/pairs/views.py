"""Views of images: random crop, flip, colour jitter, grayscale and noise, for a whole batch in a few operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.config import AugmentationConfig

# RGB to YIQ (luma, and the colour plane that hue rotates); its inverse takes it back.
_YIQ = torch.tensor(((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)))
_RGB = torch.linalg.inv(_YIQ)


def augment(pixels: Tensor, config: AugmentationConfig, *, size: int, generator: torch.Generator) -> Tensor:
    """Draw one random view of each image; every image has its own parameters.

    Args:
        pixels: uint8, (n, height, width, 3), on any device.
        size: side of the views, in pixels.
        generator: source of randomness; lives on the CPU, so that all devices draw the same views.

    Returns: normalised float32 views, (n, 3, size, size), channels last in memory, on the device of `pixels`.
    """
    images = pixels.permute(0, 3, 1, 2).float() * (1 / 255)
    theta = _draw_crops(images.shape[0], config, generator=generator).to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if config.jitter > 0 or config.grayscale > 0:
        matrix, offset = _colour_transform(views, config, generator=generator)
        flat = torch.baddbmm(offset, matrix, views.flatten(2))
        views = flat.view_as(views)
    if config.noise > 0:
        noise = torch.randn(views.shape, generator=generator).to(views.device, non_blocking=True)
        views = views + config.noise * noise
    views = (views.clamp(0, 1) - PIXEL_MEAN) / PIXEL_STD
    return views.contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _draw_crops(n: int, config: AugmentationConfig, *, generator: torch.Generator) -> Tensor:
    """Draw the affine maps of random crops, (n, 2, 3): random resized crop and flip in one."""
    area = _uniform(n, config.crop_area_min, config.crop_area_max, generator)
    log_ratio = math.log(config.crop_ratio_max)
    ratio = torch.exp(_uniform(n, -log_ratio, log_ratio, generator))
    width = (area * ratio).sqrt().clamp_max(1)
    height = (area / ratio).sqrt().clamp_max(1)
    left = torch.rand(n, generator=generator) * (1 - width)
    top = torch.rand(n, generator=generator) * (1 - height)
    mirror = torch.where(torch.rand(n, generator=generator) < config.flip, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * mirror
    theta[:, 0, 2] = 2 * left + width - 1
    theta[:, 1, 1] = height
    theta[:, 1, 2] = 2 * top + height - 1
    return theta


def _colour_transform(
    views: Tensor, config: AugmentationConfig, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw brightness, contrast, saturation, hue and grayscale as one affine map per image: (n, 3, 3), (n, 3, 1)."""
    n, device = views.shape[0], views.device
    jitter = torch.rand(n, generator=generator) < config.jitter
    zero, one = torch.zeros(n), torch.ones(n)

    def factor(strength: float) -> Tensor:
        return torch.where(jitter, _uniform(n, 1 - strength, 1 + strength, generator), one)

    brightness, contrast, saturation = factor(config.brightness), factor(config.contrast), factor(config.saturation)
    hue = torch.where(jitter, _uniform(n, -config.hue, config.hue, generator), zero) * 2 * math.pi
    saturation = torch.where(torch.rand(n, generator=generator) < config.grayscale, zero, saturation)
    # In YIQ: the chroma plane is rotated by the hue and scaled by the saturation; brightness and contrast scale all.
    chroma = torch.zeros(n, 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * hue.cos()
    chroma[:, 2, 1] = saturation * hue.sin()
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    matrix = ((brightness * contrast).view(n, 1, 1) * (_RGB @ chroma @ _YIQ)).to(device, non_blocking=True)
    luma = torch.einsum("nchw,c->n", views, _YIQ[0].to(device, non_blocking=True)) / (views.shape[2] * views.shape[3])
    offset = (brightness * (1 - contrast)).to(device, non_blocking=True) * luma
    return matrix, offset.view(n, 1, 1).expand(n, 3, 1)
