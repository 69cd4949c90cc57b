"""Whole pictures with metadata that are odd, stale or damaged: every viewer shows them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.codes import encoded

LONG, SHORT, ASCII, RATIONAL, UNDEFINED = 4, 3, 2, 5, 7
_LARGE = 1_500_000


def base() -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))


def ifd(*entries: tuple[int, int, int, int], extra: bytes = b"") -> bytes:
    """A block of EXIF: tag, type, count and value of each entry."""
    fields = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II" + struct.pack("<HLH", 42, 8, len(entries)) + fields + bytes(4) + extra


def exif_blocks() -> Iterator[tuple[str, bytes, bool]]:
    """Name, block of EXIF, and whether it turns the picture by 90 degrees."""
    turned = (0x0112, SHORT, 1, 6)
    yield "empty", b"", False
    yield "garbage", b"this is no TIFF header", False
    yield "zeros", bytes(30), False
    yield "cut", ifd(turned)[:13], False
    yield "offset", b"II" + struct.pack("<HL", 42, 70_000), False
    yield "plain", ifd(turned), True
    yield "twice", b"Exif\0\0" + ifd(turned), True
    for name, entry in {
        "ascii-width": (0x0100, ASCII, 4, 0x636261),
        "ascii-resolution": (0x011A, ASCII, 3, 0x3237),
        "short-resolution": (0x011A, SHORT, 1, 72),
        "rational-beyond": (0x011A, RATIONAL, 2, 90_000),
        "long-date": (0x0132, LONG, 1, 20_200_101),
        "unknown-type": (0x9999, 77, 1, 1),
        "float-width": (0x0100, 11, 1, 0x3FC00000),
        "negative": (0x0100, 9, 1, 2**32 - 5),
        "gps-ascii": (0x8825, ASCII, 4, 0x636261),
        "gps-beyond": (0x8825, LONG, 1, 70_000),
        "exif-ascii": (0x8769, ASCII, 4, 0x636261),
        "exif-beyond": (0x8769, LONG, 1, 70_000),
        "maker-note": (0x927C, UNDEFINED, 4, 0x04030201),
        "sub-image": (0x014A, UNDEFINED, 4, 0x64636261),
    }.items():
        yield name, ifd(entry, turned), True
    yield "orientation-ascii", ifd((0x0112, ASCII, 2, 0x36)), False
    yield "orientation-two", ifd((0x0112, SHORT, 2, 0x60006)), False
    yield "orientation-rational", ifd((0x0112, RATIONAL, 1, 26), extra=struct.pack("<LL", 6, 1)), False
    yield "orientation-0", ifd((0x0112, SHORT, 1, 0)), False
    yield "orientation-9", ifd((0x0112, SHORT, 1, 9)), False


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpegs() -> Iterator[tuple[str, bytes, bool]]:
    plain = encoded(base(), "JPEG", quality=92)
    for name, block, turned in exif_blocks():
        yield f"exif-{name}.jpg", plain[:2] + segment(0xE1, b"Exif\0\0" + block) + plain[2:], turned
    offsets = struct.pack("<LLLHH", 0x030000, 5000, 0, 0, 0) + struct.pack("<LLLHH", 0, 5000, 900_000, 0, 0)
    for name, marker, payload in (
        ("xmp-turn", 0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'),
        ("iptc", 0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff12"),
        ("8bim", 0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10ab"),
        ("icc", 0xE2, b"ICC_PROFILE\0\x01\x05no profile"),
        ("icc-stub", 0xE2, b"ICC_PROFILE\0"),
        ("mpf", 0xE2, b"MPF\0garbage"),
        ("mpf-none", 0xE2, b"MPF\0" + ifd((0xB001, LONG, 1, 0))),
        ("mpf-beyond", 0xE2, b"MPF\0" + ifd((0xB001, LONG, 1, 2), (0xB002, 7, 32, 38), extra=offsets)),
        ("adobe-stub", 0xEE, b"Adobe\0d"),
        ("jfif-stub", 0xE0, b"JFIF\0\1"),
    ):
        yield f"{name}.jpg", plain[:2] + segment(marker, payload) + plain[2:], False


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def pngs() -> Iterator[tuple[str, bytes, bool]]:
    plain = encoded(base(), "PNG")
    large = b"x" * _LARGE
    before, after = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    wrong_sum = chunk(b"tEXt", b"a\0b")[:-1] + b"\0"
    for name, data in {
        "ztxt": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(large)),
        "itxt": chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(large)),
        "itxt-plain": chunk(b"iTXt", b"prompt\0\0\0\0\0" + large),
        "text": chunk(b"tEXt", b"prompt\0" + large),
        "ztxt-damaged": chunk(b"zTXt", b"prompt\0\0no zlib"),
        "iccp": chunk(b"iCCP", b"large\0\0" + zlib.compress(bytes(_LARGE))),
        "iccp-damaged": chunk(b"iCCP", b"large\0\0no zlib"),
        "exif": chunk(b"eXIf", b"no TIFF header at all"),
        "exif-short": chunk(b"eXIf", b"II"),
        "raw-profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 12\nzz no hex\n"),
        "sum": wrong_sum,
        "time": chunk(b"tIME", b"\0"),
        "gamma": chunk(b"gAMA", b"\0"),
        "density": chunk(b"pHYs", b"\0\0"),
        "primaries": chunk(b"cHRM", b"\0\0"),
        "srgb": chunk(b"sRGB", b""),
        "animation": chunk(b"acTL", b"\0"),
        "animation-none": chunk(b"acTL", bytes(8)),
    }.items():
        yield f"{name}.png", plain[:before] + data + plain[before:], False
    yield "ztxt-after.png", plain[:after] + chunk(b"zTXt", b"p\0\0" + zlib.compress(large)) + plain[after:], False
    yield "turned.png", plain[:before] + chunk(b"eXIf", ifd((0x0112, SHORT, 1, 6))) + plain[before:], True


def webps() -> Iterator[tuple[str, bytes, bool]]:
    for name, block, turned in exif_blocks():
        if name in ("empty", "garbage", "plain"):
            yield f"{name}.webp", encoded(base(), "WEBP", quality=90, exif=b"Exif\0\0" + block), turned


PICTURES = {name: (data, turned) for maker in (jpegs, pngs, webps) for name, data, turned in maker()}
