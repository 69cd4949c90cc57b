"""Thumbnails for result grids, made on demand and cached in memory."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

from cachetools import LRUCache

from eigenlens.model.images.decode import decode

SIDE = 192
# Add one when the same content comes to look different: browsers keep what has an address of a version for a year.
VERSION = 2
_THUMBNAIL_CACHE_SIZE = 4096
_QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """An encoded image and its media type."""

    data: bytes
    media_type: str


def version_of(checksum: str) -> str:
    """Return the version of a thumbnail, by the checksum of its image's content: another one looks different."""
    return f"{checksum[:16]}.{VERSION}"


class Thumbnails:
    """Makes thumbnails of at most 192 pixels a side, never enlarged, and caches those that were used last.

    thumbnails = Thumbnails()
    thumbnail = thumbnails.get(checksum) or thumbnails.make(checksum, content, max_pixels=64_000_000)
    """

    def __init__(self) -> None:
        self._cache: LRUCache[str, Thumbnail] = LRUCache(_THUMBNAIL_CACHE_SIZE)
        self._lock = threading.Lock()

    def get(self, checksum: str) -> Thumbnail | None:
        """Return the cached thumbnail of an image's content, by its checksum; None if there is none."""
        with self._lock:
            return self._cache.get(checksum)

    def make(self, checksum: str, content: bytes, *, max_pixels: int) -> Thumbnail:
        """Make and cache the thumbnail of an image's content. Raises: ImageError."""
        image = decode(content, max_pixels=max_pixels, at_least=SIDE)
        small = max(image.size) <= SIDE
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        if small:
            image.save(buffer, "PNG")
        else:
            image.save(buffer, "JPEG", quality=_QUALITY)
        made = Thumbnail(buffer.getvalue(), "image/png" if small else "image/jpeg")
        with self._lock:
            self._cache[checksum] = made
        return made
