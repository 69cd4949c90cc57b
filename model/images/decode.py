"""Bytes to pixels: bounded before decoding, upright, sRGB, and a clear error for everything else."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from eigenlens.image_files import HEAD_BYTES, IMAGE_FORMATS, RAW, UNSUPPORTED, VIDEO, kind_of
from eigenlens.model.errors import ImageError, ImageTooLargeError, NotAnImageError
from eigenlens.model.images.colours import (
    choose_ground,
    has_transparency,
    high_bytes,
    is_deep,
    lay,
    shallow,
    to_srgb,
)
from eigenlens.model.images.containers import Container, open_container, orientation_of, size_of_webp
from eigenlens.model.images.ground import OVERSAMPLING, show_on_black
from eigenlens.model.images.preprocessing import (
    CROP_PLACES,
    CROPS,
    FIRST,
    ON_BLACK,
    STANDARD,
    WHOLE,
    Preprocessing,
)

FORMATS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
    "JPEG2000": "image/jp2",
}
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000"
TRUNCATED = "the file lacks its last bytes; the image is shown as far as it goes"
DEFAULT_MAX_PIXELS = 64_000_000
_LARGE_PIXELS = 4_000_000
_STRIP_PIXELS = 1_000_000
# Largest share of the pixels of a truncated JPEG that may be missing.
_MAX_MISSING = 1 / 16
_MISSING_LEVELS = 24

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
# What they raise where there is no whole header: too little is there to tell what it would have been.
_NO_HEADER = (SyntaxError, IndexError, TypeError, struct.error)
# By EXIF's number: how to turn the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says, after orientation.

    Attributes:
        width, height: in pixels.
        note: what a person should know of the file; None if it is as it should be.
    """

    media_type: str
    width: int
    height: int
    note: str | None = None


@dataclass(frozen=True)
class _Opened:
    """An image whose header was read: what it is, how to turn it, and the colours of its samples."""

    image: Image.Image
    format: str
    orientation: int
    profile: bytes | None
    container: Container


def decode(
    data: bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    at_least: int | None = None,
    preprocessing: Preprocessing = STANDARD,
) -> Image.Image:
    """Decode an image, turned upright by its EXIF orientation, as RGB; transparency is laid on a ground that suits.

    Pixels alone decide whether an image is whole: metadata that cannot be read are as if they were not there. A JPEG
    without its last bytes is decoded as far as it goes, if next to nothing is missing. Of an animation the first frame
    is taken.

    Args:
        max_pixels: images with more are refused before decoding.
        at_least: the caller needs no more than this many pixels on the shorter side, so a JPEG may be decoded at a
            half, a quarter or an eighth of its size, and other large images are made smaller at once.
        preprocessing: version of what becomes of colours, transparency and deep samples.

    Raises: ImageTooLargeError; ImageError, if the bytes are no image, or a damaged one.
    """
    return _decode(data, max_pixels=max_pixels, at_least=at_least, preprocessing=preprocessing)[0]


def _decode(
    data: bytes, *, max_pixels: int, at_least: int | None, preprocessing: Preprocessing
) -> tuple[Image.Image, ImageInfo]:
    opened = _open(data, max_pixels=max_pixels)
    info = _info(opened)  # before the pixels: a JPEG that is decoded at a part of its size tells that size
    try:
        if preprocessing == ON_BLACK and at_least is not None:
            at_least *= OVERSAMPLING
        image = _load(opened, at_least=at_least)
        # Twice as large as needed is enough: what follows takes time and memory by the pixel.
        factor = 1 if at_least is None else min(image.size) // (2 * at_least)
        rgb = _render(image, opened, factor=max(1, factor), preprocessing=preprocessing)
        return (rgb.transpose(_TURNS[opened.orientation]) if opened.orientation in _TURNS else rgb), info
    except _DAMAGE as error:
        problem = f"the {opened.format} image is truncated or damaged: {error}"
    # Raised out here, without a cause: whoever keeps an error keeps the frames of all in it, and with them the pixels.
    del opened
    raise ImageError(problem)


def inspect(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageInfo:
    """Read the header only. Raises: as decode."""
    return _info(_open(data, max_pixels=max_pixels))


def _info(opened: _Opened) -> ImageInfo:
    width, height = opened.image.size
    if opened.orientation >= 5:
        width, height = height, width
    return ImageInfo(FORMATS[opened.format], width, height, TRUNCATED if opened.container.truncated else None)


@dataclass(frozen=True)
class View:
    """What of a decoded picture is seen: a part of it, or the whole in another light.

    Attributes:
        of: RGB picture to RGB picture.
        scale: pixels on the picture's shorter side that a view needs for each on its own.
    """

    of: Callable[[Image.Image], Image.Image]
    scale: float = 1.0


def load_square(
    data: bytes, size: int, *, max_pixels: int = DEFAULT_MAX_PIXELS, preprocessing: Preprocessing = STANDARD
) -> NDArray[np.uint8] | ImageError:
    """Decode an image as `to_square` has it, or return why that cannot be: one bad image fails alone."""
    loaded = load_square_with_info(data, size, max_pixels=max_pixels, preprocessing=preprocessing)
    return loaded if isinstance(loaded, ImageError) else loaded[0]


def load_square_with_info(
    data: bytes,
    size: int,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    preprocessing: Preprocessing = STANDARD,
    view: View | None = None,
) -> tuple[NDArray[np.uint8], ImageInfo] | ImageError:
    """Decode an image as `load_square` does, and tell what `inspect` tells, from one reading of its header.

    Args:
        view: of the picture; the square is of that.
    """
    try:
        at_least = size if view is None else math.ceil(size * view.scale)
        image, info = _decode(data, max_pixels=max_pixels, at_least=at_least, preprocessing=preprocessing)
        shown = image if view is None else view.of(image)
        return to_square(shown, size, preprocessing=preprocessing), info
    except ImageError as error:
        return error


def to_square(image: Image.Image, size: int, *, preprocessing: Preprocessing = STANDARD) -> NDArray[np.uint8]:
    """Resize the largest centred square of an RGB image, or the whole of it, to (size, size, 3), uint8.

    Where an encoder sees crops, these are three squares, (3, size, size, 3).
    """
    if preprocessing == WHOLE:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    if preprocessing == CROPS:
        return np.stack([_largest_square(image, size, place=place) for place in CROP_PLACES])
    if preprocessing == ON_BLACK:
        image = show_on_black(image, size)
    return _largest_square(image, size, place=0.5)


def _largest_square(image: Image.Image, size: int, *, place: float) -> NDArray[np.uint8]:
    """Resize the largest square of an image at a place along its longer side, from 0 to 1."""
    fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR, centering=(place, place))
    return np.asarray(fitted, dtype=np.uint8)


def _open(data: bytes, *, max_pixels: int) -> _Opened:
    format = kind_of(bytes(data[:HEAD_BYTES]))
    if format not in IMAGE_FORMATS:
        raise NotAnImageError(_why_no_image(data, format))
    if format == "WEBP":
        _require_size(size_of_webp(data), max_pixels)
    container = open_container(data, format)
    try:
        image = _decoders()[format](io.BytesIO(container.data), "")
    except _DAMAGE as error:
        if format == "TIFF" and isinstance(error, SyntaxError):
            raise ImageError(
                f"the TIFF image is of a kind that cannot be read ({error}); save it with 8 or 16 bits a sample"
            ) from None
        if isinstance(error, _NO_HEADER):
            raise NotAnImageError(_why_no_image(data, format)) from None
        raise ImageError(f"the header of the {format} image is truncated or damaged: {error}") from None
    _require_size(image.size, max_pixels)
    orientation, profile = container.orientation, container.profile
    if format not in ("JPEG", "PNG"):
        profile = image.info.get("icc_profile") or None
        # A TIFF's decoder and HEIF's turn the picture themselves.
        orientation = 1 if format in ("TIFF", "HEIF") else orientation_of(image.info.get("exif"))
    return _Opened(image, format, orientation, profile, container)


def _require_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"the image has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )


def _why_no_image(data: bytes, kind: str) -> str:
    if not data:
        return f"the image is empty (0 bytes); send a {READABLE} file"
    named = {VIDEO: "a video", RAW: "a camera's raw file", UNSUPPORTED: "of a format that is no image that can be read"}
    what = f"the {len(data)} bytes are {named.get(kind, 'no image that can be read')}"
    return f"{what}; send a {READABLE} file"


@cache
def _decoders() -> Mapping[str, Callable[[io.BytesIO, str], ImageFile.ImageFile]]:
    """Return the decoder of each format. The limit of pixels is ours and not Pillow's, which is one for all calls."""
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )
    from pillow_heif import HeifImageFile

    Image.MAX_IMAGE_PIXELS = None
    return {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
        "HEIF": HeifImageFile,
        "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    }


def _load(opened: _Opened, *, at_least: int | None) -> Image.Image:
    """Load the pixels as they are stored. Raises: one of _DAMAGE."""
    image: Any = opened.image
    if at_least is not None and opened.format == "JPEG":
        image.draft("RGB", (at_least, at_least))
    if not opened.container.truncated:
        image.load()
        return opened.image
    _require_pixels(opened.container.least_missing)  # a few bytes that claim many pixels would take seconds
    return _load_truncated(opened.container.data, at_least=at_least)


def _require_pixels(missing: float) -> None:
    if missing > _MAX_MISSING:
        raise OSError(f"at least {missing:.0%} of the pixels are missing")


def _load_truncated(data: bytes, *, at_least: int | None) -> Image.Image:
    """Load a JPEG without its end. Raises: OSError, if more than next to nothing is missing.

    What is missing decodes to something else for each end that is put in its place.
    """
    width, height = _decoders()["JPEG"](io.BytesIO(data), "").size
    noise = np.random.default_rng(0).integers(0, 255, 3 * width * height, dtype=np.uint8).tobytes()  # no byte FF
    ends = []
    for end in (b"", noise):
        image = _decoders()["JPEG"](io.BytesIO(data.rstrip(b"\xff") + end + b"\xff\xd9"), "")
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        image.load()
        ends.append(image)
    first, second = (np.asarray(image).astype(np.int16) for image in ends)
    # Of a progressive JPEG the last details of the whole picture are missing, of any other the whole of its last rows.
    differs = np.abs(first - second) > (_MISSING_LEVELS if ends[0].info.get("progressive") else 0)
    share = float((differs.any(axis=-1) if differs.ndim == 3 else differs).mean())
    _require_pixels(share)
    return ends[0]


def _render(image: Image.Image, opened: _Opened, *, factor: int, preprocessing: Preprocessing) -> Image.Image:
    """Return the pixels as sRGB, made smaller by a factor."""
    first = preprocessing == FIRST
    if not first and opened.container.deep and image.mode == "RGB" and not _uses_depth(image):
        raise OSError("its 16-bit colours use their lowest bits only; save it with 8 bits a sample")
    if is_deep(image):
        image = high_bytes(image) if first else shallow(image)
    ground = "white" if first or not has_transparency(image) else choose_ground(image)
    profile = None if first else opened.profile

    def rgb(part: Image.Image) -> Image.Image:
        return lay(to_srgb(part, profile), ground)

    if factor == 1 or image.width * image.height <= _LARGE_PIXELS:
        return rgb(image)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "RGB", "CMYK") and not has_transparency(image):
        return rgb(image.reduce(factor))
    # What cannot be averaged as it is, strip by strip to save memory.
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    step = factor * max(1, _STRIP_PIXELS // (width * factor))
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        small.paste(rgb(strip).reduce(factor), (0, top // factor))
    return small


def _uses_depth(image: Image.Image) -> bool:
    """Return whether an image of deep colours, of which the high bytes are left, has more than its darkest levels."""
    extrema: Any = image.getextrema()
    highest = max(high for _, high in extrema)
    return bool(highest == 0 or highest > 15)
