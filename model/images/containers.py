"""A file without its metadata: what decides over pixels stays, orientation and colour profile are read, the rest goes.

Decoders refuse whole pictures for a note that they cannot read. Browsers do not; so JPEG and PNG files are taken apart
here and put together again without such notes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_MAX_PROFILE_BYTES = 4 * 2**20
_ORIENTATION = 0x0112
_SHORT = 3
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_END_OF_IMAGE = b"\xff\xd9"
# Baseline, extended and progressive with Huffman's codes; arithmetic ones may take less than a bit for a block.
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_PNG_SIGNATURE_BYTES = 8
# Chunks of PNG that pixels depend on. An animation's first picture is in IDAT, or it is not shown without the others.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


@dataclass(frozen=True)
class Container:
    """An image file without metadata.

    Attributes:
        data: the file; decoding it gives the pixels as they are stored.
        orientation: how to turn them, 1 to 8 as EXIF counts; 1 is upright.
        profile: the ICC profile of their colours; None if there is none, or it cannot be read.
        truncated: whether a JPEG lacks its last bytes.
        least_missing: share of the pixels of a truncated JPEG for which it has no bytes, at least.
        deep: whether samples have 16 bits.
    """

    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    truncated: bool = False
    least_missing: float = 0.0
    deep: bool = False


def open_container(data: bytes, format: str) -> Container:
    """Take an image file apart. Formats other than JPEG and PNG are left as they are, since their decoders bear notes.

    Args:
        format: of the file, as `kind_of` tells.
    """
    if format == "JPEG":
        return _open_jpeg(data)
    if format == "PNG":
        return _open_png(data)
    return Container(data)


def size_of_webp(data: bytes) -> tuple[int, int]:
    """Return the size of a WebP image by its header; (0, 0) where it has none. Its decoder takes the memory at once."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return 0, 0
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 6)
    return width & 0x3FFF, height & 0x3FFF


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation in a block of EXIF data, with or without its head; 1 where none can be read.

    Like browsers do, take only a tag that is one short number, as the standard says.
    """
    if exif is None:
        return 1
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}L", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for position in range(at + 2, at + 2 + 12 * count, 12):
            tag, type_, number, value = struct.unpack_from(f"{order}HHLH", exif, position)
            if tag == _ORIENTATION:
                return value if (type_, number) == (_SHORT, 1) and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _open_jpeg(data: bytes) -> Container:
    kept: list[bytes] = [data[:2]]
    exif: bytes | None = None
    profile: dict[int, bytes] = {}
    blocks = 0
    position = 2
    while True:
        position = data.find(b"\xff", position)
        while position >= 0 and data[position + 1 : position + 2] == b"\xff":  # fill bytes
            position += 1
        head = data[position : position + 4]
        if position < 0 or len(head) < 4:
            break
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no segment: go on to the next marker, as decoders do
            position += 2
            continue
        if marker in (0xD9, 0xDA) or length < 2:
            break
        segment, payload = data[position : position + 2 + length], data[position + 4 : position + 2 + length]
        position += 2 + length
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
            if marker in _HUFFMAN_FRAMES:
                blocks = _blocks_of(payload)
        elif marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
            kept.append(_JFIF)  # decides that three components are YCbCr
        elif marker == 0xEE and payload.startswith(b"Adobe") and len(payload) >= 12:
            kept.append(segment)  # decides what four components are
        elif marker == 0xE1 and payload.startswith(b"Exif\0\0") and exif is None:
            exif = payload
        elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0") and len(payload) > 14:
            profile[payload[12]] = payload[14:]
    pixels = data[position:] if position >= 0 else b""
    # Within the data of pixels, a byte FF is followed by 00 or by a marker.
    truncated = pixels.rfind(_END_OF_IMAGE) < 0
    # A block takes one bit at least.
    least_missing = 1 - min(1.0, 8 * len(pixels) / blocks) if truncated and blocks else 0.0
    whole = b"".join(profile[number] for number in sorted(profile)) or None
    if whole is not None and (sorted(profile) != list(range(1, len(profile) + 1)) or len(whole) > _MAX_PROFILE_BYTES):
        whole = None
    return Container(b"".join([*kept, pixels]), orientation_of(exif), whole, truncated, least_missing)


def _blocks_of(frame: bytes) -> int:
    """Return how many blocks of 8 x 8 samples the largest component of a JPEG has; 0 if its frame header has none."""
    if len(frame) < 6:
        return 0
    height, width = struct.unpack_from(">HH", frame, 1)
    samplings = [(frame[at] >> 4, frame[at] & 15) for at in range(7, min(len(frame), 6 + 3 * frame[5]), 3)]
    across, down = (max((sampling[axis] for sampling in samplings), default=0) for axis in (0, 1))
    if not across or not down:
        return 0
    return int(max(width * h * height * v for h, v in samplings) // (64 * across * down))


def _open_png(data: bytes) -> Container:
    kept = [data[:_PNG_SIGNATURE_BYTES]]
    exif, profile, deep = None, None, False
    position = _PNG_SIGNATURE_BYTES
    while position + 8 <= len(data):
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        chunk, payload = data[position:end], data[position + 8 : position + 8 + length]
        if name in _PIXEL_CHUNKS or not name[:1].islower():  # capitals: nobody may leave it out
            kept.append(chunk)
        elif name == b"eXIf":
            exif = payload
        elif name == b"iCCP":
            profile = _inflated_profile(payload)
        deep = deep or (name == b"IHDR" and payload[8:9] == b"\x10")
        position = end
        if name == b"IEND":
            break
    return Container(b"".join(kept), orientation_of(exif), profile, deep=deep)


def _inflated_profile(payload: bytes) -> bytes | None:
    """Return the profile of a chunk iCCP: a name, a zero, a method, compressed data."""
    compressed = payload.partition(b"\0")[2][1:]
    try:
        inflater = zlib.decompressobj()
        profile = inflater.decompress(compressed, _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None
