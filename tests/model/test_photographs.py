"""Photographs as people have them: odd metadata, other colour spaces, deep samples, transparency, cut ends."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, TiffImagePlugin

from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import TRUNCATED, decode, inspect
from eigenlens.model.images.preprocessing import FIRST
from tests.support.codes import encoded
from tests.support.odd_metadata import PICTURES, base
from tests.support.pictures import OPTIONS, as_file, noise, pixels


@pytest.mark.parametrize("name", PICTURES)
def test_metadata_do_not_decide_whether_a_picture_is_whole(name: str) -> None:
    data, turned = PICTURES[name]
    upright = np.rot90(np.asarray(base()), -1) if turned else np.asarray(base())
    decoded = np.asarray(decode(data)).astype(int)
    assert decoded.shape == upright.shape
    assert np.abs(decoded - upright).mean() < 6
    info = inspect(data)
    assert (info.height, info.width) == upright.shape[:2]


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """A matrix profile (ICC.1:2001) of three primaries, as XYZ of D50, and a gamma."""
    white = (0.9642, 1.0, 0.8249)
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = [(b"desc", name), (b"cprt", b"text" + bytes(8)), (b"wtpt", b"XYZ " + bytes(4) + b"".join(map(fixed, white)))]
    for channel, colour in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags.append((channel + b"XYZ", b"XYZ " + bytes(4) + b"".join(map(fixed, colour))))
        tags.append((channel + b"TRC", curve))
    offset, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags:
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I", offset + len(body)) + bytes(4) + b"\2\x40\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    head = head + bytes(28) + b"".join(map(fixed, white))
    return head.ljust(128, b"\0") + table + body


SRGB_PRIMARIES = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139))
P3 = profile(((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2)
ADOBE = profile(((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.2)
PROPHOTO = profile(((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8)
LINEAR = profile(SRGB_PRIMARIES, 1.0)
SWAPPED = profile((SRGB_PRIMARIES[2], SRGB_PRIMARIES[1], SRGB_PRIMARIES[0]), 2.2)
PROFILES = {"p3": P3, "adobe": ADOBE, "prophoto": PROPHOTO, "linear": LINEAR, "swapped": SWAPPED}


def colourful() -> Image.Image:
    image = Image.new("RGB", (96, 96), (200, 60, 40))
    draw = ImageDraw.Draw(image)
    draw.ellipse([10, 10, 60, 80], fill=(60, 140, 80))
    draw.rectangle([56, 6, 90, 46], fill=(70, 80, 180))
    return image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("space", PROFILES)
def test_a_picture_has_the_same_colours_in_every_space_and_format(space: str, format: str) -> None:
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[space]))
    stored = ImageCms.profileToProfile(
        colourful(), source, target, outputMode="RGB", renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert stored is not None
    assert np.abs(np.asarray(stored).astype(int) - np.asarray(colourful())).max() > 15
    data = encoded(stored, format, icc_profile=PROFILES[space], **OPTIONS[format])
    decoded = decode(data)
    error = np.abs(np.asarray(decoded).astype(int) - np.asarray(colourful()))
    assert error.mean() < 2
    # Eight bits of linear light, and of ProPhoto's wide space, tell dark colours apart by a few levels only.
    assert np.median(error) <= 2
    plain = np.asarray(decode(data, preprocessing=FIRST))
    assert np.abs(plain.astype(int) - np.asarray(stored)).mean() < 2, "an earlier encoder sees what it always saw"


def test_linear_light_loses_what_eight_bits_cannot_hold_and_no_more() -> None:
    stored = np.arange(256, dtype=np.uint8)
    picture = Image.fromarray(np.repeat(stored[None, :, None], 3, axis=2).repeat(8, axis=0))
    decoded = np.asarray(decode(encoded(picture, "PNG", icc_profile=LINEAR)))[0].astype(int)
    light = stored / 255
    exact = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(decoded - exact[:, None]).max() <= 1
    assert exact[:4].round().tolist() == [0, 13, 22, 28], "a grey of 17 is 4 levels off in any decoder"
    assert np.abs(exact - 17).min() > 3


def test_a_profile_of_grey_and_one_that_does_not_fit() -> None:
    grey = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8)[None, :].repeat(8, axis=0))
    linear = encoded(grey, "PNG", icc_profile=LINEAR)
    assert pixels(linear)[0, 16, 0] > 2 * np.asarray(grey)[0, 16], "each channel is that grey"
    inks = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert pixels(encoded(inks, "TIFF", icc_profile=P3))[0, 0].tolist() == [255, 0, 0], "ignored"


def tiff(samples: NDArray[np.generic]) -> bytes:
    return encoded(Image.fromarray(samples), "TIFF")


RAMP = np.linspace(0, 1, 64)[None, :].repeat(8, axis=0)
DEEP: dict[str, NDArray[np.generic]] = {
    "10 bits": (RAMP * 1023).astype(np.uint16),
    "12 bits": (RAMP * 4095).astype(np.uint16),
    "16 bits": (RAMP * 65535).astype(np.uint16),
    "32 bits": (RAMP * (2**31 - 1)).astype(np.int32),
    "signed": (RAMP * 2000 - 1000).astype(np.int32),
    "0 to 1": RAMP.astype(np.float32),
    "0 to 255": (RAMP * 255).astype(np.float32),
    "0 to 65535": (RAMP * 65535).astype(np.float32),
    "height": (RAMP * 700 - 200).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("at_least", [None, 2])
def test_deep_samples_are_shown_by_their_real_range(name: str, at_least: int | None) -> None:
    shown = np.asarray(decode(tiff(DEEP[name]), at_least=at_least)).astype(int)
    np.testing.assert_allclose(shown[0, :, 0], RAMP[0] * 255, atol=2)
    assert (shown[..., 0] == shown[..., 2]).all()


def test_infinite_samples_are_black_and_white_and_do_not_count() -> None:
    samples = np.array([[-np.inf, np.nan, 0, 500, 1000, np.inf]], dtype=np.float32)
    assert pixels(tiff(samples))[0, :, 0].tolist() == [0, 0, 0, 127, 255, 255]


def test_what_cannot_be_shown_is_refused_in_words() -> None:
    colours = np.zeros((8, 8, 3), dtype=np.float32)
    header = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: 8, 257: 8, 258: (32, 32, 32), 259: 1, 262: 2, 277: 3, 278: 8, 339: (3, 3, 3)}.items():
        header[tag] = value
    header[273], header[279] = 400, colours.nbytes
    stream = io.BytesIO()
    stream.write(b"II*\0\x08\0\0\0")
    header.save(stream)
    data = stream.getvalue().ljust(400, b"\0") + colours.tobytes()
    with pytest.raises(ImageError, match="TIFF image is of a kind that cannot be read"):
        decode(data)


def drawing(colour: tuple[int, int, int], shape: str) -> bytes:
    image = Image.new("RGBA", (64, 64), (*colour, 0))
    draw = ImageDraw.Draw(image)
    getattr(draw, shape)([8, 8, 56, 40], fill=(*colour, 255))
    return encoded(image, "PNG")


def test_a_white_drawing_does_not_vanish_and_two_of_them_differ() -> None:
    box, ellipse = (pixels(drawing((255, 255, 255), shape)).astype(int) for shape in ("rectangle", "ellipse"))
    assert box.std() > 50
    assert np.abs(box - ellipse).max() == 255
    assert pixels(drawing((0, 0, 0), "rectangle"))[0, 0].tolist() == [255, 255, 255], "a dark one lies on white"
    photograph = Image.fromarray(noise(32, 32))
    photograph.putalpha(Image.linear_gradient("L").resize((32, 32)))
    assert pixels(encoded(photograph, "PNG"))[0].min() > 200, "a picture that fades out fades into white"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_shown_and_noted(progressive: bool) -> None:
    picture = Image.fromarray(noise(12, 16)).resize((160, 120), Image.Resampling.BICUBIC)
    data = encoded(picture, "JPEG", quality=90, progressive=progressive)
    whole = pixels(data).astype(int)
    for missing in (1, 2, 3, 20):
        cut = pixels(data[:-missing]).astype(int)
        assert np.abs(cut - whole)[:100].max() <= 8
        assert inspect(data[:-missing]).note == TRUNCATED
        assert decode(data[:-missing], at_least=20).size
    assert inspect(data).note is None
    assert inspect(data + b"trailing bytes").note is None


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_that_claims_many_pixels_is_refused_without_decoding_them(
    mode: str, progressive: bool
) -> None:
    """A file of a thousand bytes took seconds, and hundreds of megabytes."""
    data = bytearray(encoded(Image.fromarray(noise(40, 60)).convert(mode), "JPEG", progressive=progressive)[:-100])
    frame = re.search(rb"\xff[\xc0\xc2]..\x08", bytes(data), re.DOTALL)
    assert frame is not None
    data[frame.end() : frame.end() + 4] = struct.pack(">HH", 7999, 8000)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"at least (9\d|100)% of the pixels are missing"):
            decode(bytes(data), at_least=20)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_truncated_jpeg_of_one_colour_has_room_for_its_pixels() -> None:
    """Nothing takes fewer bytes for a pixel."""
    for options in ({}, {"progressive": True}, {"optimize": True, "quality": 5, "subsampling": "4:1:1"}):
        data = encoded(Image.new("RGB", (1600, 1200), (90, 20, 20)), "JPEG", **options)
        assert decode(data[:-2], at_least=20).size
        assert inspect(data[:-2]).note == TRUNCATED


def test_bytes_before_a_marker_are_passed_over_as_browsers_do() -> None:
    data = as_file(noise(16, 16), "JPEG")
    end = 4 + int.from_bytes(data[4:6], "big")
    odd = data[:end] + b"\xff\xff\xff" + data[end + 1 :]
    np.testing.assert_array_equal(pixels(odd), pixels(data))
