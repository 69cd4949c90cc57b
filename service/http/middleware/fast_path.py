"""A fast path: calls the functions of some routes without the framework's routing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from eigenlens.service.http import problems


class FastPath:
    """Calls the functions of often used routes before the framework's routing, which takes longer than a search.

    Errors of a function are answered as in the application.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        """Answer POST requests to the paths of `routes`."""
        self.app, self.routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        function = self.routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if function is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await function(request)
        except problems.FORESEEN as error:
            response = problems.response_to(error, request)
        await response(scope, receive, send)
