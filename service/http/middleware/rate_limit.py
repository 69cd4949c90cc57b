"""The rate limit: a token bucket for each client."""

from __future__ import annotations

import math

from cachetools import LRUCache

from eigenlens.service.errors import RateLimitError

# Clients whose buckets are kept; beyond that, the one that was silent for longest is dropped.
_MAX_CLIENTS = 10_000


class RateLimit:
    """Limits each client to `rate` requests a second, and to `burst` at once after a pause."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(_MAX_CLIENTS)

    def take(self, client: str, *, now: float) -> None:
        """Count one request. Raises: RateLimitError, which says how long to wait."""
        tokens, then = self._buckets.get(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        self._buckets[client] = (tokens - 1 if tokens >= 1 else tokens, now)
        if tokens < 1:
            wait_s = math.ceil((1 - tokens) / self._rate)
            raise RateLimitError(
                f"more than {self._rate:g} requests a second; try again in {wait_s} s", retry_after_s=wait_s
            )
