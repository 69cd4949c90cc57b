"""Small pictures for result grids, made on demand and kept in memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from eigenlens.model.images.decode import decode

SIDE = 192
_KEPT = 4096
_QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """An encoded picture."""

    data: bytes
    media_type: str


class Thumbnails:
    """Makes thumbnails of at most 192 pixels a side; never enlarges; keeps the last few thousand."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, checksum: str) -> Thumbnail | None:
        """The thumbnail of a content, if it is kept."""
        with self._lock:
            found = self._kept.get(checksum)
            if found is not None:
                self._kept.move_to_end(checksum)
            return found

    def make(self, checksum: str, content: bytes, *, max_pixels: int) -> Thumbnail:
        """Make and keep the thumbnail of a content. Raises: ImageError."""
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
            self._kept[checksum] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made
