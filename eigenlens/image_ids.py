r"""The ids of images: what one may be, and which one a file gets.

An id is the path of an image: text that every file system, address and terminal can hold. File names may be more than
that. What an id may not hold is written as `\xNN`, for each byte of it, so that two files never get one id:

    b"M\xfcnchen.jpg" -> "M\xfcnchen.jpg"    bytes that are no UTF-8
    "a\nb.jpg"        -> "a\x0ab.jpg"        control characters
    "a/content"       -> "a/\x63ontent"      what ends like the address of an image's bytes or thumbnail
    "\x41.jpg"        -> "\x5cx41.jpg"       what looks like such an escape
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256
from pathlib import PurePosixPath

MAX_ID_LENGTH = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
_RESERVED = ("content", "thumbnail")
_MARK_LENGTH = 16


def check_id(id: str) -> str:
    """Return an id as it is stored, in Unicode's composed form (NFC). Raises: ValueError, if it is none."""
    try:
        id.encode()
    except UnicodeEncodeError:
        raise ValueError("an id is text that UTF-8 can hold") from None
    id = normalise(id)
    if not id or len(id) > MAX_ID_LENGTH or _CONTROL.search(id):
        raise ValueError(f"an id has 1 to {MAX_ID_LENGTH} characters and no control characters")
    parts = id.split("/")
    if parts[-1] in _RESERVED or any(part in ("", ".", "..") for part in parts):
        raise ValueError("an id is a path without empty parts, `.` and `..`, whose last is not content or thumbnail")
    return id


def normalise(id: str) -> str:
    """Return a spelling that is the same for all that look the same: composed (NFC)."""
    return id if id.isascii() else unicodedata.normalize("NFC", id)


def spellings(id: str) -> tuple[str, ...]:
    """Return the spellings that an earlier version may have stored an id in, itself first."""
    if id.isascii():
        return (id,)
    return tuple(dict.fromkeys((id, unicodedata.normalize("NFC", id), unicodedata.normalize("NFD", id))))


def id_of_path(relative: str, *, prefix: str = "") -> str:
    """Return the id of a file by its path below its folder, which may hold undecodable bytes as surrogates."""
    escaped = _LIKE_AN_ESCAPE.sub(r"\\x5c", relative)
    escaped = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped)
    escaped = normalise(escape_bytes(escaped))
    head, slash, last = escaped.rpartition("/")
    if last in _RESERVED:
        escaped = f"{head}{slash}\\x{ord(last[0]):02x}{last[1:]}"
    id = prefix + escaped
    return id if len(id) <= MAX_ID_LENGTH else marked(id, relative)


def escape_bytes(path: str) -> str:
    r"""Return a path as text that UTF-8 can hold: bytes of it that are no UTF-8, now surrogates, are written `\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def marked(id: str, relative: str) -> str:
    """Return an id with a mark of the file's path: for one that is too long, or that another file has already."""
    mark = sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:_MARK_LENGTH]
    suffix = PurePosixPath(id).suffix
    suffix = suffix if len(suffix) <= _MARK_LENGTH else ""
    room = MAX_ID_LENGTH - _MARK_LENGTH - 1 - len(suffix)
    return f"{id[: len(id) - len(suffix)][:room].rstrip('/')}~{mark}{suffix}"


def ids_of_paths(paths: list[str], *, prefix: str = "") -> list[str]:
    """Return the ids of files of one folder, different for different paths, in the order of these."""
    ids: list[str] = []
    taken: dict[str, str] = {}
    for path in paths:
        id = id_of_path(path, prefix=prefix)
        if taken.setdefault(id, path) != path:  # two spellings of one name
            id = marked(id, path)
        ids.append(id)
    return ids
