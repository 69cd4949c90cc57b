"""Who may do what: which scope a request needs, and whether its key has it."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from eigenlens.service.errors import KeyMissingError, KeyScopeError, RateLimitError, ServiceError
from eigenlens.service.http import problems
from eigenlens.service.http.state import state_of
from eigenlens.service.keys import KeyScope

_SEARCHES = ("/v1/search", "/v1/search/batch", "/v1/embeddings", "/embeddings")
_READ_ONLY = ("/v1/lengths", "/v1/models", "/v1/eigenfunctions")
_KEPT_CLIENTS = 10_000


def scope_of(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs; None where everybody may. What is not known to need less needs admin."""
    if not (path == "/v1" or path.startswith("/v1/") or path in _SEARCHES):
        return None
    if path == "/v1/admin" or path.startswith("/v1/admin/"):
        return "admin"
    if method in ("GET", "HEAD", "OPTIONS") or path in _SEARCHES or path.startswith(_READ_ONLY):
        return "search"
    return "write" if path == "/v1/images" or path.startswith("/v1/images/") else "admin"


class RateLimit:
    """A bucket of tokens for each client: `rate` requests a second, and `burst` at once after a pause."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, *, now: float) -> None:
        """Count one request. Raises: RateLimitError, which says how long to wait."""
        tokens, then = self._buckets.get(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        self._buckets[client] = (tokens - 1 if tokens >= 1 else tokens, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > _KEPT_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait_s = math.ceil((1 - tokens) / self._rate)
            raise RateLimitError(
                f"more than {self._rate:g} requests a second; try again in {wait_s} s", retry_after_s=wait_s
            )


class Guard:
    """Refuses requests whose key is missing, wrong or lacks the scope, and clients that send too many.

    What no route answers is left to the application, which says so: a key would not help.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        search_needs_key: bool,
        limit: RateLimit | None,
        serves: Callable[[str, str], bool],
    ) -> None:
        """`serves` tells whether a route answers a method at a path."""
        self.app, self.search_needs_key, self.limit, self.serves = app, search_needs_key, limit, serves

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = scope_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if needed is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._check(request, needed)
        except (KeyMissingError, KeyScopeError) as error:
            if self.serves(scope["method"], scope["path"]):
                await problems.response_to(error, request)(scope, receive, send)
                return
        except ServiceError as error:
            await problems.response_to(error, request)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, request: Request, needed: KeyScope) -> None:
        given = _given(request)
        key = state_of(request).keyring.find(given) if given else None
        if self.limit is not None:
            address = request.client.host if request.client else ""
            self.limit.take(f"address {address}" if key is None else f"key {key.id}", now=time.monotonic())
        if needed == "search" and not self.search_needs_key:
            return
        if key is None:
            said = "this key is not known" if given else f"this needs a key with the scope {needed}"
            raise KeyMissingError(f"{said}: send one as `Authorization: Bearer KEY` or `api-key: KEY`")
        if not key.may(needed):
            raise KeyScopeError(f"this needs the scope {needed}; the key has {', '.join(key.scopes)}")


def _given(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
