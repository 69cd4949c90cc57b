"""What a camera wrote into an image file (EXIF), in the few fields that people ask for."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

_FORMATS = ("JPEG", "TIFF", "WEBP", "PNG", "AVIF")
_MAX_LENGTH = 200
# What Pillow raises on EXIF that is damaged.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, RuntimeError)
_TAGS = {
    "camera": (ExifTags.Base.Make, ExifTags.Base.Model),
    "lens": (ExifTags.Base.LensModel,),
    "exposure": (ExifTags.Base.ExposureTime,),
    "aperture": (ExifTags.Base.FNumber,),
    "ISO": (ExifTags.Base.ISOSpeedRatings,),
    "focal length": (ExifTags.Base.FocalLength,),
    "software": (ExifTags.Base.Software,),
    "artist": (ExifTags.Base.Artist,),
    "copyright": (ExifTags.Base.Copyright,),
}
_NUMBERS: dict[str, Callable[[float], str]] = {
    "exposure": lambda seconds: f"{seconds:g} s" if seconds >= 0.4 else f"1/{round(1 / seconds)} s",
    "aperture": lambda number: f"f/{number:g}",
    "focal length": lambda mm: f"{mm:g} mm",
}


def read_exif(data: bytes) -> dict[str, str]:
    """Return what EXIF tells, as text by name; empty if there is none, or if it cannot be read.

    Names: taken (ISO 8601, without a zone, as cameras write it), camera, lens, exposure, aperture, ISO, focal length,
    position (degrees north and east), software, artist, copyright. No pixel is decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            exif = image.getexif()
            values: dict[int, Any] = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
            position = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except (*_DAMAGE, Image.DecompressionBombError):
        return {}
    told = {"taken": _moment(values)}
    for name, tags in _TAGS.items():
        texts = [_text(name, values[tag]) for tag in tags if tag in values]
        # Models often begin with their maker's name.
        told[name] = texts[-1] if len(texts) == 2 and texts[-1].startswith(texts[0]) else " ".join(filter(None, texts))
    told["position"] = _position(position)
    return {name: text for name, text in told.items() if text}


def _text(name: str, value: Any) -> str:
    try:
        if name in _NUMBERS:
            number = float(value)  # 0/0, which is NaN, where the camera did not know it
            return _NUMBERS[name](number) if 0 < number < math.inf else ""
        value = value[0] if isinstance(value, tuple) else value
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except _DAMAGE:
        return ""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", value).strip()[:_MAX_LENGTH]


def _moment(values: Mapping[int, Any]) -> str:
    written = str(values.get(ExifTags.Base.DateTimeOriginal) or values.get(ExifTags.Base.DateTime) or "")
    try:
        return datetime.strptime(written[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:  # zeros, where the clock was not set
        return ""


def _position(tags: Mapping[int, Any]) -> str:
    """Return degrees north and east, such as "48.85837, 2.29448"."""
    try:
        north = _degrees(tags[ExifTags.GPS.GPSLatitude], tags[ExifTags.GPS.GPSLatitudeRef] == "S")
        east = _degrees(tags[ExifTags.GPS.GPSLongitude], tags[ExifTags.GPS.GPSLongitudeRef] == "W")
    except _DAMAGE:
        return ""
    return f"{north:.5f}, {east:.5f}" if math.isfinite(north) and math.isfinite(east) else ""


def _degrees(parts: Any, opposite: bool) -> float:
    degrees, minutes, seconds = map(float, parts)
    return (degrees + minutes / 60 + seconds / 3600) * (-1 if opposite else 1)
