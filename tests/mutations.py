"""Images of every kind, whole and mutated, sent to a service in every way that it takes images.

`python -m tests.mutations --gallery DIR --images 10000` runs it as long as wanted; the suite runs a short form.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import random
import re
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from eigenlens.benchmarks.common.service_process import start_service
from tests.support.codes import encoded, handmade_png
from tests.support.service import admin_headers, build_gallery

ALLOWED = {200, 201, 400, 413, 415, 422}
# One bit a pixel, so that it is small in memory too until it is made RGB: just under the limit of 64 million.
_BOMB_SIDE = 7_900
_PIECES = 10
_GROWTH_MIB = 32


def _noise(height: int, width: int, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _one_bit(side: int) -> bytes:
    line = bytes(1 + (side + 7) // 8)
    return handmade_png(side, side, (line * 100 for _ in range(side // 100)), bit_depth=1, colour_type=0)


def whole_images() -> dict[str, bytes]:
    """Images that are odd and nothing else: each has to be taken."""
    rgb = Image.fromarray(_noise(40, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(_noise(30, 30 + n)).resize((30, 30)) for n in range(4)]
    animated = {"save_all": True, "append_images": frames[1:], "duration": 50}
    deep = Image.fromarray(_noise(30, 30, 1)[:, :, 0].astype(np.uint16) * 257)
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "progressive": encoded(rgb, "JPEG", progressive=True),
        "grey": encoded(rgb.convert("L"), "JPEG"),
        "cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "rotated": encoded(rgb, "JPEG", exif=exif),
        "png": encoded(rgb, "PNG"),
        "palette": encoded(rgb.convert("P"), "PNG", transparency=3),
        "transparent": encoded(rgb.convert("RGBA"), "PNG"),
        "one-bit": encoded(rgb.convert("1"), "PNG"),
        "16-bit": encoded(deep, "PNG"),
        "16-bit-tiff": encoded(deep, "TIFF"),
        "float-tiff": encoded(rgb.convert("F"), "TIFF"),
        "cmyk-tiff": encoded(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "pages": encoded(frames[0], "TIFF", **animated),
        "gif": encoded(rgb, "GIF"),
        "animated-gif": encoded(frames[0], "GIF", **animated),
        "animated-webp": encoded(frames[0], "WEBP", **animated),
        "animated-png": encoded(frames[0], "PNG", **animated),
        "webp": encoded(rgb, "WEBP"),
        "avif": encoded(rgb, "AVIF"),
        "bmp": encoded(rgb, "BMP"),
        "mpo": encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]),
        "1x1": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
        "1x1-jpeg": encoded(rgb.crop((0, 0, 1, 1)), "JPEG"),
        "30000x1": encoded(Image.fromarray(_noise(1, 30_000)), "PNG"),
        "1x30000": encoded(Image.fromarray(_noise(30_000, 1)), "PNG"),
        "30000x1-jpeg": encoded(Image.fromarray(_noise(1, 30_000)), "JPEG"),
        "62-megapixels": _one_bit(_BOMB_SIDE),
    }


def hopeless_images() -> dict[str, bytes]:
    """What is no image that may be decoded: each has to be refused."""
    return {
        "bomb": _one_bit(30_000),
        "empty": b"",
        "text": b"no image\n" * 100,
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "zeros": bytes(100_000),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "gzip": zlib.compress(bytes(10_000_000)),
    }


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def _overwrite(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 2, 5])):
        data[_place(data, rng)] = rng.choice([0, 255, 127, 128, rng.randrange(256)])
    return data


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice([1, 2, 4, 100]))
    return data


def _remove(data: bytearray, rng: random.Random) -> bytearray:
    place = _place(data, rng)
    del data[place : place + rng.choice([1, 2, 4, 100])]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = _place(data, rng)
    part = data[start : start + rng.randrange(1, 2000)]
    data[start:start] = part * rng.choice([1, 3, 50])
    return data


def _polyglot(data: bytearray, rng: random.Random) -> bytearray:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("a.html", "<script>alert(1)</script>")
    other = rng.choice(
        [archive.getvalue(), b"<html><script>alert(1)</script>", b"%PDF-1.7\n%%EOF", b"\x7fELF" + bytes(60)]
    )
    return data + other if rng.random() < 0.7 else bytearray(other) + data


def _claim(data: bytearray, rng: random.Random) -> bytearray:
    """A size in a header that the file does not have: PNG with a right checksum, JPEG, GIF, BMP."""
    width, height = rng.choice([(1, 1), (60_000, 60_000), (8_000, 7_999), (65_535, 1), (0, 0), (2**31 - 1, 1)])
    if data[:4] == b"\x89PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif data[:2] == b"BM":
        data[18:26] = struct.pack("<ii", width, height)
    elif (found := re.search(rb"\xff[\xc0\xc2]..\x08", bytes(data), re.DOTALL)) is not None:
        data[found.end() : found.end() + 4] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    return data


def _place(data: bytearray, rng: random.Random) -> int:
    """Half of the damage goes where the headers are."""
    return rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 300))


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip,
    _flip,
    _overwrite,
    _truncate,
    _insert,
    _remove,
    _repeat,
    _polyglot,
    _claim,
)


def mutated_images(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutated images and what was done to each."""
    rng = random.Random(seed)
    bases = {name: data for name, data in whole_images().items() if len(data) < 200_000}
    names = sorted(bases)
    for _ in range(count):
        name = rng.choice(names)
        data, done = bytearray(bases[name]), [name]
        for mutation in rng.sample(MUTATIONS, rng.choice([1, 1, 1, 2, 3])):
            if data:
                data = mutation(data, rng)
                done.append(mutation.__name__)
        if rng.random() < 0.05:  # two files as one
            data += bases[rng.choice(names)]
        yield "+".join(done), bytes(data)


@dataclass
class Findings:
    """What came of sending images."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slow: list[str] = field(default_factory=list)

    def add(self, more: Findings) -> None:
        """Count what came of others too."""
        self.statuses += more.statuses
        self.wrong += more.wrong
        self.slow += more.slow
        self.slowest_s = max(self.slowest_s, more.slowest_s)


WAYS = ("form", "body", "base64", "embedding", "add", "put")


def send(client: httpx.Client, data: bytes, way: str) -> int:
    """Send an image in one of the ways; the status, that of the image where several could have been sent."""
    text = base64.b64encode(data).decode()
    if way == "form":
        return client.post("/v1/search?k=1", files={"image": ("x.gif", data, "image/gif")}).status_code
    if way == "body":
        return client.post("/v1/search?k=1", content=data, headers={"content-type": "image/tiff"}).status_code
    if way == "base64":
        return client.post("/v1/search", json={"image": text, "k": 1}).status_code
    if way == "embedding":
        return client.post("/v1/embeddings", json={"input": f"data:image/png;base64,{text}"}).status_code
    if way == "put":
        return client.put("/v1/images/mutated", content=data, headers={"content-type": "image/bmp"}).status_code
    answer = client.post("/v1/images", files={"image": ("mutated.jpg", data)}, data={"id": "mutated"})
    failed = answer.status_code == 200 and answer.json()["failed"]
    return 422 if failed else answer.status_code


def check(client: httpx.Client, images: Iterable[tuple[str, bytes]], *, limit_s: float, first_way: int = 0) -> Findings:
    """Send each in one way after the other; what is neither taken nor refused with a reason, and what takes long."""
    found = Findings()
    for number, (name, data) in enumerate(images, start=first_way):
        way = WAYS[number % len(WAYS)]
        began = time.perf_counter()
        try:
            status = send(client, data, way)
        except httpx.HTTPError as error:
            found.wrong.append(f"{name} as {way}: {error!r}")
            continue
        took = time.perf_counter() - began
        found.statuses[status] += 1
        found.slowest_s = max(found.slowest_s, took)
        if status not in ALLOWED:
            found.wrong.append(f"{name} as {way}: {status}")
        if took > limit_s:
            found.slow.append(f"{name} as {way}: {took:.1f} s")
    return found


def resident_bytes(process: int) -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run it, in pieces between which the memory of the service is looked at."""
    parser = argparse.ArgumentParser(description="Send mutated images to a service.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=2.0, help="no answer may take longer")
    args = parser.parse_args()
    gallery = build_gallery(args.gallery, count=40)
    process, address = start_service(gallery.root, args.gallery / "service.log")
    total, memory = Findings(), []
    odd = [*whole_images().items(), *hopeless_images().items()]
    pieces: list[Iterable[tuple[str, bytes]]] = [odd] * len(WAYS)  # each odd image in each way
    pieces += [mutated_images(args.images // _PIECES, args.seed + piece) for piece in range(_PIECES)]
    try:
        with httpx.Client(base_url=address, timeout=30) as client:
            client.headers.update(admin_headers(gallery))
            for number, images in enumerate(pieces):
                total.add(check(client, images, limit_s=args.limit_s, first_way=number % len(WAYS)))
                memory.append(resident_bytes(process.pid) / 2**20)
                print(f"{total.statuses.total()} sent, {memory[-1]:.0f} MiB", file=sys.stderr)
    finally:
        process.terminate()
        process.wait()
    # Large images leave their mark on some readings and not on others, so the highest ones are compared.
    half = len(WAYS) + _PIECES // 2
    growth = max(memory[half:]) - max(memory[:half])
    print(f"{total.statuses.total()} images: {dict(sorted(total.statuses.items()))}")
    print(f"slowest {total.slowest_s:.2f} s; memory grew by {growth:.1f} MiB over the second half")
    for line in total.wrong + total.slow:
        print(line)
    return int(bool(total.wrong or total.slow) or growth > _GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
