"""A folder of images with planted groups of duplicates: an image and copies of it, each changed in one way."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from tqdm import tqdm

from eigenlens.model.errors import ConfigError
from eigenlens.model.images.decode import decode
from eigenlens.model.images.sources import open_source

ORIGINAL = "original"
_CUT = 0.05
_GAINS = (1.1, 1.0, 0.9)


def _resized(image: Image.Image) -> Image.Image:
    return image.resize((round(0.75 * image.width), round(0.75 * image.height)), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image) -> Image.Image:
    """Cut a twentieth off the width and the height, at least a pixel, from the upper left."""
    return image.crop((max(1, round(_CUT * image.width)), max(1, round(_CUT * image.height)), *image.size))


def _recoloured(image: Image.Image) -> Image.Image:
    """Make it brighter, stronger in contrast and warmer."""
    bands = ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.1)).enhance(1.1).split()
    return Image.merge(
        "RGB", [band.point(lambda x, gain=gain: min(255, x * gain)) for band, gain in zip(bands, _GAINS, strict=True)]
    )


# What is done to a copy; all but recompressed ones are saved as PNG.
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "copied": lambda image: image,
    "resized": _resized,
    "recompressed": lambda image: image,
    "cropped": _cropped,
    "mirrored": ImageOps.mirror,
    "recoloured": _recoloured,
}


def write_planted(folder: Path, images: str, *, count: int, groups: int, seed: int) -> None:
    """Write `count` images of a source into a folder, `groups` of them with a copy for each change.

    Names tell what an image is: 00012-original.png and 00012-mirrored.png are one group, 00345-single.png is in none.

    Raises: SourceError; ConfigError, if the source has too few images.
    """
    single = count - groups * (1 + len(CHANGES))
    source = open_source(images)
    if single < 0 or len(source) < groups + single:
        raise ConfigError(f"{count} images with {groups} groups take {groups + max(0, single)} images of {images}")
    chosen = np.random.default_rng(seed).permutation(len(source))[: groups + single]
    number_of = {int(position): number for number, position in enumerate(chosen)}
    folder.mkdir(parents=True)
    for position, image in enumerate(tqdm(source, desc="plant", unit="image")):
        number = number_of.get(position)
        if number is None:
            continue
        picture = decode(image.data).convert("RGB")
        if number >= groups:
            picture.save(folder / f"{number:05d}-single.png")
            continue
        original = _png(picture)
        (folder / f"{number:05d}-{ORIGINAL}.png").write_bytes(original)
        for name, change in CHANGES.items():
            if name == "recompressed":
                picture.save(folder / f"{number:05d}-{name}.jpg", quality=50)
            else:
                data = original if name == "copied" else _png(change(picture))
                (folder / f"{number:05d}-{name}.png").write_bytes(data)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
