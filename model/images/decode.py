"""Bytes to pixels: bounded before decoding, upright, RGB, and a clear error for everything else."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from eigenlens.model.errors import ImageError, ImageTooLargeError, NotAnImageError

FORMATS = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}
# An MPO (several JPEGs in one file) is opened by the JPEG plugin, which then calls it MPO.
_PLUGINS = [name for name in FORMATS if name != "MPO"]
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
DEFAULT_MAX_PIXELS = 64_000_000
_LARGE_PIXELS = 4_000_000
_STRIP_PIXELS = 1_000_000

# What Pillow's decoders raise on damaged files; RuntimeError is AVIF's.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says, after orientation.

    Attributes:
        width, height: in pixels.
    """

    media_type: str
    width: int
    height: int


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """Decode an image, turned upright by its EXIF orientation, as RGB; transparency is laid on white.

    Of an animation the first frame is taken; 16-bit samples keep their high byte.

    Args:
        max_pixels: images with more are refused before decoding.
        at_least: the caller needs no more than this many pixels on the shorter side, so a JPEG may be decoded at a
            half, a quarter or an eighth of its size, and other large images are made smaller at once.

    Raises: ImageTooLargeError; ImageError, if the bytes are no image, or a damaged one.
    """
    image = _open(data, max_pixels=max_pixels)
    if at_least is not None and image.format in ("JPEG", "MPO"):
        image.draft("RGB", (at_least, at_least))
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        # Twice as large as needed is enough: what follows takes time and memory by the pixel.
        factor = 1 if at_least is None else min(image.size) // (2 * at_least)
        # The scale of integers and floats is that of the whole image.
        if factor > 1 and image.width * image.height > _LARGE_PIXELS and image.mode not in ("I", "F"):
            return _shrink(image, factor)
        return _to_rgb(image)
    except _DAMAGE as error:
        problem = f"the {image.format} image is truncated or damaged: {error}"
    # Raised out here, without a cause: whoever keeps an error keeps the frames of all in it, and with them the pixels.
    del image
    raise ImageError(problem)


def inspect(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageInfo:
    """Read the header only. Raises: as decode."""
    image = _open(data, max_pixels=max_pixels)
    width, height = image.size
    try:
        orientation = image.getexif().get(0x0112, 1)
    except _DAMAGE:
        orientation = 1
    if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # a TIFF's size is that of the upright image already
        width, height = height, width
    return ImageInfo(FORMATS[image.format or ""], width, height)


def load_square(data: bytes, size: int, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8] | ImageError:
    """Decode an image to a centred square, (size, size, 3), or return why that cannot be: one bad image fails alone."""
    try:
        return to_square(decode(data, max_pixels=max_pixels, at_least=size), size)
    except ImageError as error:
        return error


def to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the largest centred square of an RGB image to (size, size, 3), uint8."""
    fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(fitted, dtype=np.uint8)


def _open(data: bytes, *, max_pixels: int) -> Image.Image:
    if not data:
        raise NotAnImageError(f"the image is empty (0 bytes); send a {READABLE} file")
    try:
        image = Image.open(io.BytesIO(data), formats=_PLUGINS)
    except UnidentifiedImageError:
        raise NotAnImageError(f"the {len(data)} bytes are no image that can be read; send a {READABLE} file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLargeError(f"the image has more than the {max_pixels:,} pixels allowed") from None
    except _DAMAGE as error:
        raise ImageError(f"the image's header is truncated or damaged: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"the image has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )
    return image


def _shrink(image: Image.Image, factor: int) -> Image.Image:
    """Shrink an image to RGB, the means of blocks; what cannot be averaged as it is, strip by strip to save memory."""
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "RGB", "CMYK"):
        return _to_rgb(image.reduce(factor))
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    step = factor * max(1, _STRIP_PIXELS // (width * factor))
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        small.paste(_to_rgb(strip).reduce(factor), (0, top // factor))
    return small


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        with np.errstate(invalid="ignore"):  # NaNs that signal
            samples = np.nan_to_num(np.asarray(image).astype(np.float64))
        scale = 1 / 257 if samples.max(initial=0) > 255 else 1.0
        return Image.fromarray((samples * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
