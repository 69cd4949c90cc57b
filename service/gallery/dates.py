"""Dates: a gallery's images in the order in which they were taken, by the field `taken` of their metadata.

Taking an image in fills the field from what the camera wrote (EXIF), unless the metadata that come with it have one.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.images.exif import read_exif
from eigenlens.service.gallery.store.protocol import ImageStore
from eigenlens.service.gallery.store.records import ImageRecord

FIELD = "taken"
# A moment and a key. Images without a date have the moment "".
Place = tuple[str, int]
_PAGE = 1000
_MAX_MOMENT = 64
# What marks EXIF in a JPEG, a PNG and a WebP file, AVIF and HEIC included. A TIFF file begins with one of the others.
_MARKS = re.compile(rb"Exif|eXIf|EXIF|\A(?:II\*\x00|MM\x00\*)")


def with_date(metadata: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Return metadata with the moment at which the image in `data` was taken, where they have none and it tells one."""
    taken = "" if FIELD in metadata or not _MARKS.search(data) else read_exif(data).get(FIELD, "")
    return {**metadata, FIELD: taken} if taken else dict(metadata)


class Dates:
    """The order of a gallery's images by date, kept until the gallery changes. Threads may share it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._position: tuple[int, int] | None = None
        self._dated: list[Place] = []  # the first taken first
        self._undated: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # ascending

    def page(
        self, store: ImageStore, limit: int, *, after: Place | None = None, prefix: str = "", contains: str = ""
    ) -> list[tuple[Place, ImageRecord]]:
        """Return up to `limit` records and their places, the last taken first; those without a date come last.

        Args:
            after: a place that was returned before; its image may be gone by now.
            prefix, contains: ids begin with this, and have this somewhere; capital letters of ASCII do not matter.
        """
        with self._lock:
            self._update(store)
            dated, undated = self._dated, self._undated
        page: list[tuple[Place, ImageRecord]] = []
        for places in _parts(dated, undated, after):
            records = store.records([key for _, key in places])
            named = [
                (place, records[place[1]])
                for place in places
                if place[1] in records and _is_named(records[place[1]].id, prefix, contains)
            ]
            page += named[: limit - len(page)]
            if len(page) == limit:
                break
        return page

    def _update(self, store: ImageStore) -> None:
        position = store.position()
        if position == self._position:
            return
        keys, moments = store.values_of(FIELD)
        pairs = zip(keys.tolist(), moments, strict=True)
        self._dated = sorted((moment[:_MAX_MOMENT], key) for key, moment in pairs if moment)
        self._undated = np.setdiff1d(store.contents()[0], np.array([key for _, key in self._dated], dtype=np.int64))
        self._position = position


def _parts(dated: list[Place], undated: NDArray[np.int64], after: Place | None) -> Iterator[list[Place]]:
    """Yield the places after one, the last first, in parts."""
    is_dated = after is not None and after[0] != ""
    end = len(dated) if after is None else bisect_left(dated, after) if is_dated else 0
    for stop in range(end, 0, -_PAGE):
        yield dated[max(0, stop - _PAGE) : stop][::-1]
    end = len(undated) if after is None or is_dated else int(np.searchsorted(undated, after[1]))
    for stop in range(end, 0, -_PAGE):
        yield [("", key) for key in undated[max(0, stop - _PAGE) : stop][::-1].tolist()]


def _is_named(id: str, prefix: str, contains: str) -> bool:
    return id.startswith(prefix) and _small(contains) in _small(id)


def _small(text: str) -> str:
    """Return a text with small letters for the capital ones of ASCII, as a store compares ids."""
    return text.translate({letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)})
