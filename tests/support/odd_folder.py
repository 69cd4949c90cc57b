"""A folder as people have it: images under odd names and extensions, videos, raw files and odd links."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from tests.support.codes import encoded
from tests.support.service import pixels_of, png

MOVIE = b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  " + bytes(100)
RAW = b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(200)
DNG = (
    b"II*\x00\x08\x00\x00\x00\x01\x00" + (0xC612).to_bytes(2, "little") + b"\x01\x00\x04\x00\x00\x00\1\4\0\0" + bytes(9)
)
# Files by the path below the folder, each a picture of its own, and the id that it gets where that is another.
IMAGES: dict[bytes, str] = {
    b"plain.jpg": "JPEG",
    b"UPPER.JPG": "JPEG",
    b"phone.HEIC": "HEIF",
    b"web.avif": "AVIF",
    b"scan.jp2": "JPEG2000",
    b"whatsapp.jfif": "JPEG",
    b"old.jpe": "JPEG",
    b"older.pjpeg": "JPEG",
    b"moving.apng": "PNG",
    b"stereo.mpo": "JPEG",
    b"no extension": "PNG",
    b"wrong extension.txt": "WEBP",
    b"called a film.mov": "GIF",
    b"half.jpg.part": "BMP",
    b"a/content": "PNG",
    b"a/thumbnail": "TIFF",
    b"content/x.png": "PNG",
    b"new\nline.png": "PNG",
    b"latin1/M\xfcnchen.png": "PNG",
    b"latin1/\xff\xfe.png": "PNG",
    "nfc/\u00dcbung.png".encode(): "PNG",
    "nfd/U\u0308bung.png".encode(): "PNG",
    "emoji/\U0001f436 50% #1?.png".encode(): "PNG",
    b"back\\slash.png": "PNG",
    b"looks\\x41.png": "PNG",
    b"/".join([b"d" * 200] * 6) + b"/deep.png": "PNG",
}
IDS = {
    b"a/content": "a/\\x63ontent",
    b"a/thumbnail": "a/\\x74humbnail",
    b"new\nline.png": "new\\x0aline.png",
    b"latin1/M\xfcnchen.png": "latin1/M\\xfcnchen.png",
    b"latin1/\xff\xfe.png": "latin1/\\xff\\xfe.png",
    "nfd/U\u0308bung.png".encode(): "nfd/\u00dcbung.png",
    b"looks\\x41.png": "looks\\x5cx41.png",
}
OTHERS = {
    "live.mov": MOVIE,
    "film.jpg": MOVIE,
    "IMG_1.CR2": RAW,
    "IMG_2.dng": DNG,
    "IMG_3.nef": b"MM\x00*\x00\x00\x00\x08" + bytes(50),
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "empty.jpg": b"",
    "notes.txt": b"no image",
    ".hidden.png": b"never looked at",
    ".cache/thumb.png": b"never looked at",
}
SKIPPED = {
    "video": 2,
    "RAW": 3,
    "unsupported image": 1,
    "linked folder": 2,
    "dangling link": 2,
    "other file": 2,
}
FAILED = ["empty.jpg", "text.jpg"]
SENTENCE = "skipped: 2 video, 3 RAW, 1 unsupported image, 2 linked folders, 2 dangling links, 2 other files"


def picture(number: int, format: str) -> bytes:
    image = Image.fromarray(pixels_of(5000 + number)).resize((16, 16), Image.Resampling.NEAREST)
    return encoded(image, format) if format != "PNG" else png(pixels_of(5000 + number))


def write_odd_folder(root: Path) -> Path:
    for number, (name, format) in enumerate(IMAGES.items()):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, format))
    for other, content in OTHERS.items():
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).write_bytes(content)
    (root / "text.jpg").write_bytes(b"named like an image")
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "linked.png").write_bytes(png(pixels_of(5900)))
    (root / "linked").symlink_to(outside)
    (root / "loop").symlink_to(".")
    (root / "link.png").symlink_to(outside / "linked.png")
    (root / "broken.png").symlink_to("/nonexistent.png")
    (root / "itself.png").symlink_to("itself.png")
    os.mkfifo(root / "pipe.png")
    return root


TAKEN = len(IMAGES) + 1  # and the linked file
