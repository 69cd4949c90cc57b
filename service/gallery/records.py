"""Records of images for answers, kept in memory: of a key nothing ever changes but whether it is still there."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from eigenlens.service.gallery.store import ImageRecord, Store

_KEPT = 50_000
_AT_ONCE = 10_000


class _Seen(threading.local):
    """What one thread knows to be there, as long as the database stays at a version."""

    def __init__(self) -> None:
        self.version: tuple[int, int] | None = None
        self.present: set[int] = set()


class Records:
    """Reads records by key. Several threads may ask at once.

    An image whose removal was durable before the question is never answered, whichever process removed it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[int, ImageRecord] = {}
        self._seen = _Seen()

    def present(self, keys: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of those images that are still there, by key."""
        kept, seen, version = self._kept, self._seen, self._store.version()
        if seen.version != version or len(seen.present) > _KEPT:
            seen.version, seen.present = version, set()
        present = {key: kept[key] for key in keys if key in seen.present and key in kept}
        unseen = [key for key in dict.fromkeys(keys) if key not in present]
        for start in range(0, len(unseen), _AT_ONCE):
            present.update(self._look(unseen[start : start + _AT_ONCE]))
        if unseen:
            seen.present.update(present)
        return present

    def _look(self, keys: list[int]) -> dict[int, ImageRecord]:
        known = {key: record for key in keys if (record := self._kept.get(key)) is not None}
        found = {key: known[key] for key in self._store.existing(list(known))}
        fresh = self._store.records([key for key in keys if key not in known])
        if len(self._kept) + len(fresh) > _KEPT:
            self._kept = {}
        self._kept.update(fresh)
        return found | fresh
