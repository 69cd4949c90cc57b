"""Recent queries: a bounded sample of the codes that people searched with, in memory only, for recalibration."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from eigenlens.service.gallery.recalibrate import NO_KEY, QuerySample

# A sample of so many times its size of searches: older ones fade out of it.
_REMEMBERED = 100


class RecentQueries:
    """Keeps a random sample of the last searches. Several threads may add at once; `add` costs microseconds.

    Until the sample is full, each search is in it. Then each new one takes the place of another with a probability that
    makes it a uniform sample at first and, after 100 times its size of searches, one that forgets old ones evenly.
    """

    def __init__(self, size: int, *, seed: int | None = None) -> None:
        """Keep at most `size` codes; none if 0."""
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._encoder_id = ""
        self._codes: list[NDArray[np.float32]] = []
        self._keys: list[int] = []
        self._seen = 0

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, code: NDArray[np.float32], *, key: int | None, encoder_id: str) -> None:
        """Offer the code (code_length,) of a search; `key` is of the image that it left out of its results."""
        if self._size == 0:
            return
        with self._lock:
            if encoder_id != self._encoder_id:  # codes of different encoders cannot be compared
                self._clear(encoder_id)
            self._seen = min(self._seen + 1, _REMEMBERED * self._size)
            stored_key = NO_KEY if key is None else key
            if len(self._codes) < self._size:
                self._codes.append(np.array(code, dtype=np.float32))
                self._keys.append(stored_key)
                return
            place = int(self._rng.random() * self._seen)
            if place < self._size:
                self._codes[place], self._keys[place] = np.array(code, dtype=np.float32), stored_key

    def sample(self) -> QuerySample:
        """Return what is kept now."""
        with self._lock:
            codes = np.stack(self._codes) if self._codes else np.empty((0, 0), np.float32)
            return QuerySample(self._encoder_id, codes, np.array(self._keys, dtype=np.int64))

    def forget(self) -> None:
        """Forget all queries."""
        with self._lock:
            self._clear("")

    def _clear(self, encoder_id: str) -> None:
        self._codes, self._keys, self._seen, self._encoder_id = [], [], 0, encoder_id
