"""Paths without a route of the API: the files of the page, or 405 if a route has the path but not the method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Where people look for the API of such a service.
REFERENCE = ("/docs", "/redoc")


class _Files(StaticFiles):
    """Files that a browser revalidates at each use, since modules of two versions do not work together."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Page:
    """The files of a directory, at every path without a route of the API."""

    def __init__(self, directory: Path, routers: Sequence[APIRouter]) -> None:
        self._files = _Files(directory=directory, html=True)
        self._routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    def serves(self, method: str, path: str) -> bool:
        """Return whether a route of the API answers a method at a path."""
        return method in self._methods_at(path)

    def _methods_at(self, path: str) -> set[str]:
        methods = {m for route in self._routes if route.path_regex.match(path) for m in route.methods or ()}
        return methods | {"HEAD"} if "GET" in methods else methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A request with a wrong method ends here too; several routes may share the path, so collect all their methods.
        if scope["type"] == "http" and (known := self._methods_at(scope["path"])):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(known))})
        if scope["type"] == "http" and scope["path"] in REFERENCE:
            scope["path"] = "/reference.html"
        if scope["type"] == "http" and scope["path"] == "/favicon.ico":  # browsers ask for it on pages without a link
            scope["path"] = "/icon.svg"
        await self._files(scope, receive, send)
