"""Which files of a folder are images: one rule, by content, for all that reads folders, the client included."""

from __future__ import annotations

import os
import stat
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

# Bytes from the beginning of a file that tell its kind.
HEAD_BYTES = 4096
IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx"),
)
# Raw files of these cameras are TIFF files, and only some of them say that they are more.
_RAW_EXTENSIONS = {".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".kdc", ".nef", ".nrw", ".pef", ".sr2", ".srw"}

VIDEO, RAW, UNSUPPORTED, OTHER = "video", "RAW", "unsupported image", "other file"
LINKED_FOLDER, DANGLING, UNREADABLE_FILE, UNREADABLE_FOLDER = (
    "linked folder",
    "dangling link",
    "unreadable file",
    "unreadable folder",
)
# How the report names what was skipped, in its order; all but those with a plural of their own are counted as they are.
SKIPPED_KINDS = (*(VIDEO, RAW, UNSUPPORTED, LINKED_FOLDER, DANGLING, UNREADABLE_FILE, UNREADABLE_FOLDER, OTHER),)
_UNCOUNTABLE = (VIDEO, RAW)

_BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"MMOR", RAW),
    (b"IIU\x00", RAW),
    (b"FOVb", RAW),
    (b"\x00MRM", RAW),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM
    (b"\x00\x00\x01\xba", VIDEO),  # MPEG
    (b"\x00\x00\x01\xb3", VIDEO),
    (b"FLV\x01", VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", VIDEO),  # ASF, WMV
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", UNSUPPORTED),
    (b"\xff\x0a", UNSUPPORTED),  # JPEG XL
    (b"8BPS", UNSUPPORTED),  # Photoshop
    (b"\x00\x00\x01\x00", UNSUPPORTED),  # icon
    (b"gimp xcf", UNSUPPORTED),
    (b"<svg", UNSUPPORTED),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000")


def kind_of(head: bytes, name: str = "") -> str:
    """Return the kind of a file: one of IMAGE_FORMATS, VIDEO, RAW, UNSUPPORTED or OTHER.

    Args:
        head: the first HEAD_BYTES of the file, or all of it.
        name: of the file: cameras' raw files are TIFF files, and some of them differ from such by their name alone.
    """
    kind = next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), OTHER)
    if kind == "TIFF":
        return RAW if _is_raw_tiff(head) or PurePath(name).suffix.lower() in _RAW_EXTENSIONS else "TIFF"
    if kind == "BMP":  # two letters begin many a text
        return "BMP" if len(head) > 14 and head[6:10] == b"\0\0\0\0" else OTHER
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": VIDEO}.get(head[8:12], OTHER)
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):  # QuickTime of old
        return VIDEO
    return kind


def _kind_of_brands(head: bytes) -> str:
    """Return the kind of a file of ISO's base media format by its major and its compatible brands."""
    end = min(len(head), max(16, int.from_bytes(head[:4], "big")))
    major, brands = head[8:12], {head[at : at + 4] for at in range(16, end - 3, 4)}
    if major == b"crx ":
        return RAW
    if major in _AVIF_BRANDS or (major in (b"mif1", b"msf1") and brands & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEIF_BRANDS:
        return "HEIF"
    return VIDEO


def _is_raw_tiff(head: bytes) -> bool:
    """Return whether a TIFF file is a camera's raw file: it says so, or its first picture is but a preview."""
    if head[8:10] == b"CR":
        return True
    order = "<" if head[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}L", head, 4)
        (count,) = struct.unpack_from(f"{order}H", head, at)
        tags = {}
        for position in range(at + 2, at + 2 + 12 * count, 12):
            tag, type_, _, value = struct.unpack_from(f"{order}HHLL", head, position)
            tags[tag] = value if type_ == 4 else None
    except struct.error:
        return False
    return 0xC612 in tags or (tags.get(0xFE) == 1 and 0x14A in tags)


@dataclass(frozen=True)
class FoundFile:
    """An image file below a folder.

    Attributes:
        path: of the file.
        relative: its path below the folder, as the file system spells it.
        size, mtime_ns: as the file system tells them.
    """

    path: Path
    relative: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skipped:
    """What was left out of a folder: its path below the folder, and what it is, one of SKIPPED_KINDS."""

    path: str
    kind: str


@dataclass(frozen=True)
class Listing:
    """The image files below a folder, in the order of their paths, and what else is there."""

    files: tuple[FoundFile, ...]
    skipped: tuple[Skipped, ...]


def list_images(root: Path, *, follow_links: bool = False) -> Listing:
    """List the image files below a folder, or one file; hidden files and folders count as absent.

    An image is what its content says to be one. A file named like an image whose content is unknown is listed too: it
    is damaged, and whoever reads it has to say so. Links to files are followed.

    Args:
        follow_links: follow links to folders as well, but for those that lead to what is listed anyway, or around in a
            circle.
    """
    files: list[FoundFile] = []
    skipped: list[Skipped] = []
    visited = {os.path.realpath(root)}
    for path, relative, problem in _walk(str(root), "", visited if follow_links else None):
        entry = Skipped(relative, problem) if problem else look_into(Path(path), relative)
        if isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            files.append(entry)
    return Listing(
        tuple(sorted(files, key=lambda file: PurePath(file.relative))),
        tuple(sorted(skipped, key=lambda entry: PurePath(entry.path))),
    )


def holds_image(root: Path, *, follow_links: bool = False) -> bool:
    """Return whether there is an image file below a folder; the first, in the order of `list_images`, ends the look."""
    visited = {os.path.realpath(root)} if follow_links else None
    return any(
        not problem and isinstance(look_into(Path(path), relative), FoundFile)
        for path, relative, problem in _walk(str(root), "", visited)
    )


def _walk(folder: str, relative: str, visited: set[str] | None) -> Iterator[tuple[str, str, str]]:
    """Yield (path, path below the root, problem) of what is below a folder; the problem is empty for files."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder, relative or ".", UNREADABLE_FOLDER
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        below = f"{relative}/{entry.name}" if relative else entry.name
        try:
            is_folder, is_link = entry.is_dir(), entry.is_symlink()
            is_file = entry.is_file()
        except OSError:  # a link to itself, or a folder that may be listed but not entered
            yield entry.path, below, DANGLING if entry.is_symlink() else UNREADABLE_FILE
            continue
        if is_folder and not is_link:
            yield from _walk(entry.path, below, visited)
        elif is_folder:
            if visited is None or not _is_new(entry.path, visited):
                yield entry.path, below, LINKED_FOLDER
            else:
                yield from _walk(entry.path, below, visited)
        elif is_file:
            yield entry.path, below, ""
        elif is_link and not os.path.exists(entry.path):  # noqa: PTH110 - a path of scandir
            yield entry.path, below, DANGLING
        else:
            yield entry.path, below, OTHER if _is_special(entry) else UNREADABLE_FILE


def _is_special(entry: os.DirEntry[str]) -> bool:
    try:
        return not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return False


def _is_new(link: str, visited: set[str]) -> bool:
    """Return whether a link leads to a folder that holds none of the visited ones, nor lies in one; note it."""
    target = os.path.realpath(link)
    for folder in visited:
        if os.path.commonpath((folder, target)) in (folder, target):
            return False
    visited.add(target)
    return True


def look_into(path: Path, relative: str) -> FoundFile | Skipped:
    """Look into a file. A file named like an image is one, unless its content is something else that is known."""
    try:
        with path.open("rb", buffering=0) as f:
            status = os.fstat(f.fileno())
            kind = kind_of(f.read(HEAD_BYTES), relative)
    except OSError:
        return Skipped(relative, UNREADABLE_FILE)
    if kind in IMAGE_FORMATS or (kind == OTHER and has_image_name(relative)):
        return FoundFile(path, relative, status.st_size, status.st_mtime_ns)
    return Skipped(relative, kind)


def has_image_name(name: str) -> bool:
    """Return whether a file's name ends like that of an image."""
    return PurePath(name).suffix.lower() in IMAGE_EXTENSIONS


def is_hidden(relative: PurePath) -> bool:
    """Return whether a path below a folder is hidden: a part of it begins with a dot."""
    return any(part.startswith(".") for part in relative.parts)


def count_kinds(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Count what was skipped by its kind, in the order of SKIPPED_KINDS."""
    counts = Counter(entry.kind for entry in skipped)
    return {kind: counts[kind] for kind in SKIPPED_KINDS if counts[kind]}


def describe_counts(counts: dict[str, int]) -> str:
    """Describe what was skipped: `12 video, 3 RAW, 1 linked folder, 2 unreadable folders`."""
    return ", ".join(
        f"{count} {kind}{'s' if count > 1 and kind not in _UNCOUNTABLE else ''}" for kind, count in counts.items()
    )
