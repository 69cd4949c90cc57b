"""Access control: whether a request has a key with the scope that its route needs."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from eigenlens.service.errors import KeyMissingError, KeyScopeError, ServiceError
from eigenlens.service.http import problems
from eigenlens.service.http.middleware.rate_limit import RateLimit
from eigenlens.service.http.policy import policy_of
from eigenlens.service.http.state import state_of
from eigenlens.service.keys import KeyScope


class AccessMiddleware:
    """Refuses requests whose key is missing, wrong or lacks the scope, and clients that send too many requests.

    A request that no route answers passes, so that the application answers 404 or 405, which a key would not change.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        search_needs_key: bool,
        rate_limit: RateLimit | None,
        serves: Callable[[str, str], bool],
    ) -> None:
        """Check requests before `app`; `serves` returns whether a route answers a method at a path."""
        self.app, self.search_needs_key, self.rate_limit, self.serves = app, search_needs_key, rate_limit, serves
        self.lets_anybody_search = not search_needs_key and rate_limit is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed_scope = policy_of(scope["path"]).scope_of(scope["method"]) if scope["type"] == "http" else None
        if needed_scope is None or (needed_scope == "search" and self.lets_anybody_search):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._check(request, needed_scope)
        except (KeyMissingError, KeyScopeError) as error:
            if self.serves(scope["method"], scope["path"]):
                await problems.response_to(error, request)(scope, receive, send)
                return
        except ServiceError as error:
            await problems.response_to(error, request)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, request: Request, needed_scope: KeyScope) -> None:
        sent = _key_sent(request)
        key = state_of(request).keyring.find(sent) if sent else None
        if self.rate_limit is not None:
            address = request.client.host if request.client else ""
            self.rate_limit.take(f"address {address}" if key is None else f"key {key.id}", now=time.monotonic())
        if needed_scope == "search" and not self.search_needs_key:
            return
        if key is None:
            reason = "this key is not known" if sent else f"this needs a key with the scope {needed_scope}"
            raise KeyMissingError(
                f"{reason}: send one as `Authorization: Bearer KEY` or `api-key: KEY`, to a command as --key-file"
            )
        if not key.may(needed_scope):
            raise KeyScopeError(f"this needs the scope {needed_scope}; the key has {', '.join(key.scopes)}")


def _key_sent(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
