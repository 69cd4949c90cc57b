"""Facets: the values of the metadata of a gallery's images, with how many images have each."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass

from eigenlens.service.gallery.store.protocol import ImageStore

# A field of more values than this is no facet: names, addresses, prices.
_MAX_VALUES = 1000
# Nor is one whose values fewer images share, on average: moments, sizes.
_LEAST_SHARING = 2


@dataclass(frozen=True)
class Facet:
    """A field of the metadata, and its values with the number of images of each, the most frequent first."""

    field: str
    values: tuple[tuple[str | bool, int], ...]


class Facets:
    """Facets of a gallery, counted when they are asked for and kept until the gallery changes. Threads may share it."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self._lock = threading.Lock()
        self._counted: tuple[tuple[int, int], list[Facet]] | None = None

    def of(self, store: ImageStore) -> list[Facet]:
        """Return the facets of all images: fields of text or truth values that several images share, by name.

        While another thread counts, the facets as they were are good enough.
        """
        known = self._counted
        if not self._lock.acquire(blocking=known is None) and known is not None:
            return known[1]
        try:
            position = store.position()
            if self._counted is None or self._counted[0] != position:
                self._counted = position, _count(store)
            return self._counted[1]
        finally:
            self._lock.release()


def _count(store: ImageStore) -> list[Facet]:
    values: dict[str, Counter[str | bool]] = defaultdict(Counter)
    keys, _ = store.contents()
    for metadata in store.metadata_of(keys.tolist()):
        for field, given in metadata.items():
            counts = values[field]
            for value in given if isinstance(given, list) else [given]:
                if isinstance(value, str | bool) and len(counts) <= _MAX_VALUES:
                    counts[value] += 1
    facets = []
    for field, counts in sorted(values.items()):
        if 0 < len(counts) <= _MAX_VALUES and sum(counts.values()) >= _LEAST_SHARING * len(counts):
            counted = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
            facets.append(Facet(field, tuple(counted)))
    return facets
