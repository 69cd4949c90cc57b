"""What a camera wrote into a file is told as people write it, and what it did not know is left out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffTags
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from eigenlens.model.images.exif import read_exif

Tags = Mapping[str, Any]


def photograph(base: Tags, details: Tags, position: Tags, *, format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif.update({ExifTags.Base[name]: value for name, value in base.items()})
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base[name]: value for name, value in details.items()})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS[name]: value for name, value in position.items()})
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format, exif=exif)
    return buffer.getvalue()


def details_of(**details: Any) -> dict[str, str]:
    return read_exif(photograph({}, details, {}))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_told_as_people_write_it(format: str) -> None:
    base = {"Make": "Canon", "Model": "Canon EOS R5", "DateTime": "2026:05:04 08:00:00", "Artist": "A\x00\nB"}
    details = {
        "DateTimeOriginal": "2026:05:03 14:12:09",
        "ExposureTime": IFDRational(1, 250),
        "FNumber": IFDRational(28, 10),
        "FocalLength": IFDRational(50, 1),
        "ISOSpeedRatings": 400,
    }
    position = {
        "GPSLatitudeRef": "S",
        "GPSLatitude": (IFDRational(33), IFDRational(51), IFDRational(2436, 100)),
        "GPSLongitudeRef": "E",
        "GPSLongitude": (IFDRational(151), IFDRational(12), IFDRational(36)),
    }
    assert read_exif(photograph(base, details, position, format=format)) == {
        "taken": "2026-05-03T14:12:09",
        "camera": "Canon EOS R5",
        "exposure": "1/250 s",
        "aperture": "f/2.8",
        "ISO": "400",
        "focal length": "50 mm",
        "position": "-33.85677, 151.21000",
        "artist": "A B",
    }


def test_the_maker_is_told_where_the_model_does_not_begin_with_it() -> None:
    assert read_exif(photograph({"Make": "NIKON", "Model": "D850"}, {}, {})) == {"camera": "NIKON D850"}


def test_a_long_exposure_is_told_in_seconds() -> None:
    assert details_of(ExposureTime=IFDRational(25, 10)) == {"exposure": "2.5 s"}


@pytest.mark.parametrize("unknown", [IFDRational(0, 0), IFDRational(0, 1), IFDRational(1, 0)])
def test_numbers_that_the_camera_did_not_know_are_left_out(unknown: IFDRational) -> None:
    assert details_of(ExposureTime=unknown, FNumber=unknown, FocalLength=unknown) == {}


@pytest.mark.parametrize("unknown", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2026:13:03 14:12:09", "2026:05:03"])
def test_a_date_that_is_none_is_left_out(unknown: str) -> None:
    assert details_of(DateTimeOriginal=unknown) == {}


def test_a_number_whose_inverse_is_none_is_left_out() -> None:
    """A TIFF may have a double where cameras write a fraction."""
    directory = ImageFileDirectory_v2()
    directory.tagtype[ExifTags.Base.ExposureTime] = TiffTags.DOUBLE
    directory[ExifTags.Base.ExposureTime] = 5e-324
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TIFF", tiffinfo=directory)
    assert read_exif(buffer.getvalue()) == {}


def test_what_cannot_be_read_is_left_out() -> None:
    position = {"GPSLatitudeRef": "N", "GPSLatitude": (1.0, 2.0)}
    assert read_exif(photograph({"DateTime": "yesterday"}, {}, position)) == {}
    whole = photograph({"Make": "Canon"}, {}, {})
    for damaged in (b"", b"no image", whole[:20], whole.replace(b"Exif\x00\x00", b"Exif\x00\x00junk")):
        assert read_exif(damaged) == {}
