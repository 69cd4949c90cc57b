"""Samples to sRGB: colour profiles, deep samples by their real range, and a ground for transparency that suits."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageStat

_RELATIVE_COLORIMETRIC = ImageCms.Intent.RELATIVE_COLORIMETRIC
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# A profile whose colours differ from sRGB's by no more than this many levels is taken for sRGB.
_SAME_LEVELS = 2
_MAX_PROFILES = 64
# Depths that samples of a deeper container really have, by their largest value.
_WHITES = (255, 1023, 4095, 16383, 65535)
# Side of the picture that the ground is chosen by.
_GROUND_SIDE = 128
_GROUND_CONTRAST = 4.0
_HAS_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def is_deep(image: Image.Image) -> bool:
    """Return whether the samples of an image are deeper than a byte; their range is that of the whole image."""
    return image.mode.startswith("I") or image.mode == "F"


def has_transparency(image: Image.Image) -> bool:
    """Return whether an image has pixels that may be transparent."""
    return image.mode in _HAS_ALPHA or "transparency" in image.info


def shallow(image: Image.Image) -> Image.Image:
    """Return a deep image with a byte a sample, by the real range of its samples.

    Whole numbers: white is the largest of 10, 12, 14 or 16 bits (or of 8, in 32 bits) that holds all samples, black is
    0; beyond 16 bits and below 0, the range of the samples. Numbers with a fraction: 0 to 1 or 0 to 255 where all
    samples lie there, otherwise the range of the samples. Samples that are no numbers are black.
    """
    samples = np.asarray(image)
    integral = samples.dtype.kind != "f"
    with np.errstate(invalid="ignore"):  # NaNs that signal
        finite = samples if integral else samples[np.isfinite(samples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if integral and low >= 0 and high <= _WHITES[-1]:
        whites = _WHITES if image.mode == "I" else _WHITES[1:]
        bits = next(white for white in whites if high <= white).bit_length()
        return Image.fromarray((samples.astype(np.uint32) >> (bits - 8)).astype(np.uint8))
    black, white = _range_of(low, high, integral=integral)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (samples.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
        levels = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return Image.fromarray(levels.astype(np.uint8))


def _range_of(low: float, high: float, *, integral: bool) -> tuple[float, float]:
    """Return what black and white are among samples from `low` to `high`."""
    if low >= 0 and not integral:
        if high <= 1:
            return 0.0, 1.0
        if 16 < high <= 255:
            return 0.0, 255.0
    return (low, high) if high > low else (low - 1, low)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image in sRGB, with its transparency if it has any: mode RGB or RGBA.

    Args:
        profile: of its colours; ignored if it cannot be read or is of other colours than the image's.
    """
    alpha = image.convert("RGBA").getchannel("A") if has_transparency(image) else None
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    transform = None if profile is None else _transform(profile, image.mode)
    if transform is None and profile is not None and image.mode == "L":
        image = image.convert("RGB")
        transform = _transform(profile, image.mode)
    if transform is not None:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        image = converted
    image = image.convert("RGB")
    image.info.clear()
    if alpha is not None:
        image.putalpha(alpha)
    return image


@lru_cache(maxsize=_MAX_PROFILES)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of colours to sRGB; None if there is nothing to do, or the profile does not fit."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        core: Any = source.profile
        if _SPACES.get(core.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", _RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 8).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(16, -1, 3)
    changed = ImageCms.applyTransform(Image.fromarray(colours), transform)
    assert changed is not None
    return bool(np.abs(np.asarray(changed).astype(int) - colours).max() <= _SAME_LEVELS)


def choose_ground(image: Image.Image) -> str:
    """Choose the ground for an image with transparency: white, unless it shows next to nothing on white.

    A white drawing on a transparent ground is the same on white as an empty page. Where an image has far more contrast
    on black than on white, black is its ground.
    """
    small = image.resize((min(image.width, _GROUND_SIDE), min(image.height, _GROUND_SIDE)), Image.Resampling.NEAREST)
    layer = small.convert("RGBA")
    contrast = {ground: ImageStat.Stat(_lay(layer, ground).convert("L")).stddev[0] for ground in ("white", "black")}
    return "black" if _GROUND_CONTRAST * contrast["white"] < contrast["black"] else "white"


def lay(image: Image.Image, ground: str) -> Image.Image:
    """Return an image in sRGB on a ground, without transparency."""
    return _lay(image, ground) if image.mode == "RGBA" else image


def _lay(layer: Image.Image, ground: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer).convert("RGB")


def high_bytes(image: Image.Image) -> Image.Image:
    """Return a deep image as preprocessing of version 1 did: 16-bit samples keep their high byte."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    with np.errstate(invalid="ignore"):  # NaNs that signal
        samples: NDArray[np.float64] = np.nan_to_num(np.asarray(image).astype(np.float64))
    scale = 1 / 257 if samples.max(initial=0) > 255 else 1.0
    return Image.fromarray((samples * scale).clip(0, 255).astype(np.uint8))
