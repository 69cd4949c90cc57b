"""Bytes to pixels: what people really upload."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from eigenlens.model.images.decode import FORMATS, ImageInfo, decode, inspect, load_square, to_square
from eigenlens.model.images.preprocessing import FIRST, WHOLE
from tests.support.codes import encoded, handmade_png
from tests.support.pictures import FILES, LOSSLESS, OPTIONS, ORIENTATION, as_file, assert_close, flat, noise, pixels


@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_keep_every_pixel(format: str) -> None:
    picture = noise(5, 7)
    np.testing.assert_array_equal(pixels(as_file(picture, format)), picture)


@pytest.mark.parametrize("format", FILES)
def test_every_format_that_is_promised_is_read(format: str) -> None:
    picture = flat(200, 60, 20, height=16, width=24)
    data = as_file(picture, format)
    assert_close(pixels(data), picture, levels=4)
    media_type = "image/jpeg" if format == "MPO" else FORMATS[format]
    assert inspect(data) == ImageInfo(media_type, width=24, height=16)


@pytest.mark.parametrize("format", FILES)
def test_one_pixel_is_an_image(format: str) -> None:
    data = as_file(flat(255, 255, 255, height=1, width=1), format)
    assert_close(pixels(data), flat(255, 255, 255, height=1, width=1), levels=1)
    assert to_square(decode(data), 4).shape == (4, 4, 3)


# EXIF 2.32, tag 274: which sides of the picture the stored first row and first column are.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_images_are_turned_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.repeat(np.repeat(noise(2, 3), 8, axis=0), 8, axis=1)
    data = as_file(stored, format, exif=exif)
    upright = UPRIGHT[orientation](stored)
    assert_close(pixels(data), upright, levels=0 if format in LOSSLESS else 8)
    assert inspect(data) == ImageInfo(FORMATS[format], width=upright.shape[1], height=upright.shape[0])


def test_an_orientation_that_does_not_exist_changes_nothing() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 9
    picture = noise(2, 3)
    data = as_file(picture, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data), picture)
    assert inspect(data) == ImageInfo("image/png", width=3, height=2)


def test_cmyk_becomes_rgb() -> None:
    inks = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], dtype=np.uint8)
    colours = np.array(
        [[[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8
    )  # cyan, magenta, yellow, key and paper
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(inks, "CMYK"), "TIFF")), colours)
    large_inks, large_colours = (np.repeat(np.repeat(a, 8, axis=0), 8, axis=1) for a in (inks, colours))
    jpeg = encoded(Image.fromarray(large_inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    assert_close(pixels(jpeg), large_colours, levels=6)


def grey_16_bit(samples: list[int]) -> bytes:
    line = b"\0" + struct.pack(f">{len(samples)}H", *samples)
    return handmade_png(len(samples), 1, [line], bit_depth=16, colour_type=0)


def test_16_bit_samples_keep_their_high_byte() -> None:
    samples = [0, 0x00FF, 0x0100, 0x0101, 0x1234, 0x7FFF, 0x8000, 0xFEFF, 0xFFFF]
    high = np.array([sample >> 8 for sample in samples], dtype=np.uint8)
    expected = np.repeat(high[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(pixels(grey_16_bit(samples)), expected)
    tiff = encoded(Image.fromarray(np.array([samples], dtype=np.uint16)), "TIFF")
    np.testing.assert_array_equal(pixels(tiff), expected)
    colour = b"\0" + b"".join(struct.pack(">3H", sample, 0, sample) for sample in samples)
    rgb = pixels(handmade_png(len(samples), 1, [colour], bit_depth=16, colour_type=2))
    np.testing.assert_array_equal(rgb, expected * np.array([1, 0, 1], dtype=np.uint8))


def test_a_dark_16_bit_image_is_not_brightened_by_preprocessing_of_version_1() -> None:
    dark = decode(grey_16_bit([0, 100, 200, 255]), preprocessing=FIRST)
    np.testing.assert_array_equal(np.asarray(dark), flat(0, 0, 0, height=1, width=4))


def test_float_samples_without_a_value_are_black() -> None:
    samples = np.array([[np.nan, 0, 100, 255]], dtype=np.float32)
    found = pixels(encoded(Image.fromarray(samples), "TIFF"))
    assert found[0, :, 0].tolist() == [0, 0, 100, 255]


def test_one_bit_is_black_and_white() -> None:
    found = pixels(handmade_png(8, 1, [b"\0\xa5"], bit_depth=1, colour_type=0))
    assert found[0].tolist() == [[255 * int(bit)] * 3 for bit in "10100101"]


def test_grey_is_repeated() -> None:
    found = pixels(handmade_png(3, 1, [b"\0\x00\x64\xff"], bit_depth=8, colour_type=0))
    assert found[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


PALETTE = (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))


def test_a_palette_is_looked_up() -> None:
    data = handmade_png(3, 1, [b"\0\2\0\1"], bit_depth=8, colour_type=3, extra=[PALETTE])
    assert pixels(data)[0].tolist() == [[0, 0, 255], [255, 0, 0], [0, 255, 0]]


def test_a_transparent_palette_entry_is_white() -> None:
    extra = [PALETTE, (b"tRNS", bytes([255, 0]))]
    data = handmade_png(3, 1, [b"\0\2\0\1"], bit_depth=8, colour_type=3, extra=extra)
    assert pixels(data)[0].tolist() == [[0, 0, 255], [255, 0, 0], [255, 255, 255]]


def test_transparency_is_laid_on_white() -> None:
    line = bytes([0, *(255, 0, 0, 255), *(255, 0, 0, 51), *(0, 0, 0, 0), *(0, 0, 0, 102)])
    found = pixels(handmade_png(4, 1, [line], bit_depth=8, colour_type=6))
    assert found[0].tolist() == [[255, 0, 0], [255, 204, 204], [255, 255, 255], [153, 153, 153]]


def test_grey_transparency_is_laid_on_white() -> None:
    found = pixels(handmade_png(3, 1, [bytes([0, 0, 255, 0, 0, 0, 51])], bit_depth=8, colour_type=4))
    assert found[0].tolist() == [[0] * 3, [255] * 3, [204] * 3]


def test_a_transparent_gif_is_laid_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    assert pixels(encoded(picture, "GIF", transparency=1))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    first, *others = (Image.fromarray(flat(*colour)) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    data = encoded(first, format, save_all=True, append_images=others, **OPTIONS[format])
    assert_close(pixels(data), flat(255, 0, 0), levels=0 if format in LOSSLESS or format == "GIF" else 4)


def test_a_large_jpeg_is_decoded_no_larger_than_needed_and_no_smaller() -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    data = as_file(np.broadcast_to(ramp[None, :, None], (600, 800, 3)).copy(), "JPEG")
    for at_least, size in ((75, (100, 75)), (76, (200, 150)), (300, (400, 300)), (301, (800, 600)), (5000, (800, 600))):
        found = decode(data, at_least=at_least)
        assert found.size == size
        assert_close(to_square(found, 64), to_square(decode(data), 64), levels=6)


def test_at_least_leaves_other_formats_whole() -> None:
    picture = noise(60, 80)
    found = decode(as_file(picture, "PNG"), at_least=8)
    np.testing.assert_array_equal(np.asarray(found), picture)


def test_the_square_is_the_middle_of_the_image() -> None:
    wide = np.concatenate([flat(255, 0, 0), flat(0, 255, 0), flat(0, 0, 255)], axis=1)
    for picture in (wide, wide.swapaxes(0, 1)):
        np.testing.assert_array_equal(to_square(Image.fromarray(picture), 8), flat(0, 255, 0))


def test_the_square_of_a_whole_picture_has_its_ends() -> None:
    for colours in [(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), (0, 255, 0), (99, 99, 99)]:
        wide = np.concatenate([flat(*colour) for colour in colours], axis=1)
        for picture, turn in ((wide, False), (wide.swapaxes(0, 1), True)):
            square = to_square(Image.fromarray(np.ascontiguousarray(picture)), 9, preprocessing=WHOLE)
            seen = square.swapaxes(0, 1) if turn else square
            assert [tuple(seen[4, x].tolist()) for x in (1, 4, 7)] == colours


def test_a_square_of_the_right_size_is_left_alone() -> None:
    picture = noise(6, 6)
    square = to_square(Image.fromarray(picture), 6)
    assert square.dtype == np.uint8
    np.testing.assert_array_equal(square, picture)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "CMYK", "P", "LA", "I;16"])
def test_a_large_image_that_is_needed_small_is_nearly_the_same_as_one_decoded_whole(mode: str) -> None:
    """Smooth pictures only: how noise is averaged is nobody's business."""
    side = 2400
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    square = ramp[None, :] // 2 + ramp[:, None] // 2
    picture = Image.fromarray(np.stack([square] * 3, axis=-1)).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(square.astype(np.uint16) * 257)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(255 - square))
    data = encoded(picture, "TIFF" if mode == "CMYK" else "PNG")
    small = np.asarray(to_square(decode(data, at_least=32), 32)).astype(int)
    whole = np.asarray(to_square(decode(data), 32)).astype(int)
    assert np.abs(small - whole).max() <= 3
    assert max(decode(data, at_least=32).size) < side


@pytest.mark.parametrize("side", [32, 224])
def test_a_photograph_of_12_megapixels_costs_at_most_a_third_of_its_plain_decode(side: int) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    data = encoded(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG", quality=90)

    def cpu_s(function: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            begun = time.thread_time()
            function()
            times.append(time.thread_time() - begun)
        return min(times)

    plain = cpu_s(lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((side, side))))
    assert cpu_s(lambda: load_square(data, side)) < plain / 3
