"""A cache of image records for answers: a record never changes under its key, only whether the image still exists."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import cast

from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import ImageRecord

# A plain dict that is emptied when full: every search reads it, and an LRU cache takes three times as long.
_RECORD_CACHE_SIZE = 50_000
_KEYS_PER_QUERY = 10_000


class _ThreadView(threading.local):
    """The keys that one thread knows to exist, for one version of the database."""

    def __init__(self) -> None:
        self.version: Hashable = None
        self.present: set[int] = set()


class Records:
    """Reads records by key, through a cache. Several threads may read at once.

    An image whose removal was durable before a call is never in its result, whichever process removed it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[int, ImageRecord] = {}
        self._keys: dict[str, int] = {}
        self._view = _ThreadView()

    def of_ids(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """Return the records of images by their ids. Raises: ImageNotFoundError, if there is no such image."""
        # While the image of a key exists, its id is of no other.
        keys = {id: key for id in ids if (key := self._keys.get(id)) is not None}
        present = self.present(list(keys.values()))
        records = {id: present[key] for id, key in keys.items() if key in present}
        for id in ids:
            if id not in records:
                records[id] = record = self._store.record(id)
                if len(self._keys) >= _RECORD_CACHE_SIZE:
                    self._keys = {}
                if record.id == id:  # not another one of Unicode's spellings, of which several may be stored
                    self._keys[id] = record.key
        return records

    def present(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Return the records of those images that still exist, by key."""
        cache, view, version = self._cache, self._view, self._store.version()
        if view.version != version or len(view.present) > _RECORD_CACHE_SIZE:
            view.version, view.present = version, set()
        if view.present.issuperset(keys) and None not in (records := list(map(cache.get, keys))):  # nearly always
            return cast(dict[int, ImageRecord], dict(zip(keys, records, strict=True)))
        present = {key: cache[key] for key in keys if key in view.present and key in cache}
        unknown = [key for key in dict.fromkeys(keys) if key not in present]
        for start in range(0, len(unknown), _KEYS_PER_QUERY):
            present.update(self._read(unknown[start : start + _KEYS_PER_QUERY]))
        if unknown:
            view.present.update(present)
        return present

    def _read(self, keys: list[int]) -> dict[int, ImageRecord]:
        """Return records from the database; for records in the cache it only checks that the image still exists."""
        cached = {key: record for key in keys if (record := self._cache.get(key)) is not None}
        confirmed = {key: cached[key] for key in self._store.existing(list(cached))}
        fresh = self._store.records([key for key in keys if key not in cached])
        if len(self._cache) + len(fresh) > _RECORD_CACHE_SIZE:
            self._cache = {}
        self._cache.update(fresh)
        return confirmed | fresh
