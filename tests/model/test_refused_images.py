"""Images that are refused: truncated, damaged, of no format that is promised, or too large, before they are decoded."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image, ImageFile

from eigenlens.model.errors import ImageError, ImageTooLargeError, NotAnImageError
from eigenlens.model.images.decode import TRUNCATED, ImageInfo, decode, inspect
from tests.support.codes import encoded, handmade_png
from tests.support.pictures import FILES, ORIENTATION, as_file, flat, noise


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("format", FILES)
def test_truncated_images_are_refused_and_never_half_grey(format: str, share: float) -> None:
    data = as_file(noise(64, 64), format)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_a_truncated_image_is_called_truncated_and_its_format_named(format: str) -> None:
    data = as_file(noise(64, 64), format)
    with pytest.raises(ImageError, match=f"the {format} image is truncated or damaged"):
        decode(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", FILES)
def test_damage_anywhere_is_an_image_error_and_nothing_else(format: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    more = {"exif": exif} if format not in ("GIF", "BMP") else {}
    data = as_file(noise(9, 12), format, **more)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        # Half of the damage goes to the first bytes, where the headers are.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 300)
        for position in rng.integers(0, reach, rng.integers(1, 6)):
            damaged[position] = rng.choice(np.array([0, 255, rng.integers(256)]))
        for read in (decode, inspect):
            try:
                read(bytes(damaged), max_pixels=1_000_000)
            except ImageError:
                refused += 1
    assert refused > 0


def test_a_damaged_avif_is_an_image_error_though_its_decoder_raises_another() -> None:
    data = as_file(noise(32, 32), "AVIF")
    start = data.index(b"mdat") + 4
    with pytest.raises(ImageError, match="AVIF image is truncated or damaged"):
        decode(data[:start] + bytes(len(data) - start))


def test_no_bytes_are_said_to_be_none() -> None:
    for read in (decode, inspect):
        with pytest.raises(NotAnImageError, match=r"empty \(0 bytes\)"):
            read(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text file and not an image at all",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!doctype html><title>404</title>",
        b"%PDF-1.7\n",
        b"\x00",
        bytes(1000),
    ],
)
def test_what_is_no_image_is_refused_with_the_formats_that_work(data: bytes) -> None:
    for read in (decode, inspect):
        with pytest.raises(NotAnImageError, match="JPEG, PNG, WebP"):
            read(data)


@pytest.mark.parametrize("format", ["EPS", "PPM", "ICO", "TGA", "PCX", "ICNS"])
def test_formats_that_are_not_promised_are_not_even_tried(format: str) -> None:
    """Pillow hands EPS to Ghostscript, and its rarer decoders are where its security holes have been."""
    with pytest.raises(NotAnImageError):
        decode(encoded(Image.fromarray(flat(1, 2, 3, height=16, width=16)), format))


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        pytest.fail("the image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


def one_bit_png(side: int) -> bytes:
    line = bytes(1 + (side + 7) // 8)
    return handmade_png(side, side, (line * 100 for _ in range(side // 100)), bit_depth=1, colour_type=0)


@pytest.mark.usefixtures("no_decoding")
def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = one_bit_png(50_000)
    assert len(bomb) < 1_500_000, "312 MB of scan lines in a small file"
    for read in (decode, inspect):
        started = time.perf_counter()
        with pytest.raises(ImageTooLargeError, match="64,000,000"):
            read(bomb)
        assert time.perf_counter() - started < 1


@pytest.mark.usefixtures("no_decoding")
def test_an_image_over_our_limit_and_under_that_of_pillow_is_refused() -> None:
    side = 9_000
    assert side * side < 89_478_485
    for read in (decode, inspect):
        with pytest.raises(ImageTooLargeError, match=r"9000 x 9000 = 81,000,000 pixels; at most 64,000,000"):
            read(one_bit_png(side))


@pytest.mark.parametrize("format", FILES)
def test_the_limit_is_of_pixels_and_is_inclusive(format: str) -> None:
    data = as_file(flat(1, 2, 3, height=20, width=30), format)
    assert decode(data, max_pixels=600).size == (30, 20)
    assert inspect(data, max_pixels=600).width == 30
    for read in (decode, inspect):
        with pytest.raises(ImageTooLargeError, match=r"30 x 20 = 600 pixels; at most 599"):
            read(data, max_pixels=599)


@pytest.mark.usefixtures("no_decoding")
def test_inspecting_reads_no_pixels() -> None:
    data = as_file(noise(64, 48), "JPEG")
    assert inspect(data[: len(data) // 2]) == ImageInfo("image/jpeg", width=48, height=64, note=TRUNCATED)


def test_an_error_that_is_kept_does_not_keep_the_pixels() -> None:
    data = as_file(noise(64, 64), "PNG")
    try:
        decode(data[: len(data) // 2])
    except ImageError as error:
        kept: BaseException | None = error
        while kept is not None:
            frame = kept.__traceback__
            while frame is not None:
                assert not [v for v in frame.tb_frame.f_locals.values() if isinstance(v, Image.Image)]
                frame = frame.tb_next
            kept = kept.__context__
